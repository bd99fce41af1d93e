/** Tokens: the codes of one clip with all that decoding them needs. */

import { TokensError } from "./errors.js";
import { readTokenFile, writeTokenFile } from "./token_file.js";

const MAX_LEVELS = 255;

/**
 * @typedef {object} TokenFields
 * @property {Uint16Array} codes nQ x frames, level after level
 * @property {number} nQ number of quantizer levels
 * @property {number} numSamples true length of the clip in samples at `sampleRate`
 * @property {number} sampleRate of the codec, in Hz
 * @property {number} hopLength samples per frame
 * @property {number} codebookSize entries per codebook
 * @property {string} [modelId] 16 hex digits that identify the weights, or "" if unknown
 * @property {number} [firstLevel] quantizer level of the first row
 */

/**
 * Return the bits of one code.
 * @param {number} codebookSize
 */
export function bitsPerCode(codebookSize) {
  return Math.ceil(Math.log2(codebookSize));
}

export class Tokens {
  /**
   * @param {TokenFields} fields
   * @throws {TokensError} codes out of range, or a length that doesn't fit them
   */
  constructor({ codes, nQ, numSamples, sampleRate, hopLength, codebookSize, modelId = "", firstLevel = 0 }) {
    checkInteger("numSamples", numSamples, 0, Number.MAX_SAFE_INTEGER);
    checkInteger("sampleRate", sampleRate, 1, 2 ** 32 - 1);
    checkInteger("hopLength", hopLength, 1, 2 ** 32 - 1);
    checkInteger("codebookSize", codebookSize, 2, 65536);
    checkInteger("firstLevel", firstLevel, 0, MAX_LEVELS - 1);
    checkInteger("nQ", nQ, 1, MAX_LEVELS - firstLevel);
    if (!/^([0-9a-f]{16})?$/.test(modelId)) {
      throw new TokensError(`tokens: modelId must be 16 hex digits or empty, not ${JSON.stringify(modelId)}`);
    }
    const frames = Math.ceil(numSamples / hopLength);
    if (!(codes instanceof Uint16Array) || codes.length !== nQ * frames) {
      throw new TokensError(`tokens: ${numSamples} samples at ${hopLength} a frame need ${nQ} x ${frames} codes`);
    }
    for (const code of codes) {
      if (code >= codebookSize) throw new TokensError(`tokens: code ${code} is out of range, 0 to ${codebookSize - 1}`);
    }
    this.codes = codes;
    this.nQ = nQ;
    this.numSamples = numSamples;
    this.sampleRate = sampleRate;
    this.hopLength = hopLength;
    this.codebookSize = codebookSize;
    this.modelId = modelId;
    this.firstLevel = firstLevel;
  }

  /** Number of latent frames. */
  get numFrames() {
    return this.codes.length / this.nQ;
  }

  /** True length in seconds. */
  get durationS() {
    return this.numSamples / this.sampleRate;
  }

  /** Bits per second of the packed codes. */
  get bitrateBps() {
    return (this.sampleRate / this.hopLength) * this.nQ * bitsPerCode(this.codebookSize);
  }

  /**
   * Return the codes of one level.
   * @param {number} level from 0
   */
  level(level) {
    return this.codes.subarray(level * this.numFrames, (level + 1) * this.numFrames);
  }

  /**
   * Return tokens of the first levels only.
   * @param {number} nQ 1 to `this.nQ`
   */
  firstLevels(nQ) {
    checkInteger("nQ", nQ, 1, this.nQ);
    return new Tokens({ ...this, nQ, codes: this.codes.slice(0, nQ * this.numFrames) });
  }

  /**
   * Read a token file (.dmc).
   * @param {ArrayBuffer | Uint8Array} bytes the whole file
   * @param {string} [name] of the file, for errors
   * @throws {TokenFileError} not a token file, cut short, or altered
   */
  static load(bytes, name = "tokens") {
    return new Tokens(readTokenFile(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes), name));
  }

  /** Return the bytes of a token file (.dmc). */
  save() {
    return writeTokenFile(this);
  }
}

/**
 * @param {string} name
 * @param {unknown} value
 * @param {number} low
 * @param {number} high
 */
function checkInteger(name, value, low, high) {
  if (!Number.isInteger(value) || Number(value) < low || Number(value) > high) {
    throw new TokensError(`tokens: ${name} must be an integer from ${low} to ${high}, not ${value}`);
  }
}
