/** Errors of the runtime, named as those of the Python package (dmcodec.errors). */

export class DmcodecError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = new.target.name;
  }
}

/** An argument out of range. */
export class ArgumentError extends DmcodecError {}

/** A waveform of another shape or type, empty, or with NaN. */
export class AudioError extends DmcodecError {}

/** A bundle that is missing, incomplete, altered, or from a newer dmcodec. */
export class BundleError extends DmcodecError {}

/** Tokens that don't fit the codec, or codes out of range. */
export class TokensError extends DmcodecError {}

/** Bytes that are no token file, or a damaged one. */
export class TokenFileError extends TokensError {}

/** A call that a stream can't take now. */
export class StreamError extends DmcodecError {}

/** A graph that can't be loaded or run. */
export class BackendError extends DmcodecError {}

/** @type {Record<string, typeof DmcodecError>} */
export const ERRORS = {
  DmcodecError,
  ArgumentError,
  AudioError,
  BundleError,
  TokensError,
  TokenFileError,
  StreamError,
  BackendError,
};
