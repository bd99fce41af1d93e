/** The codec in a Web Worker, so that a page stays responsive; `CodecClient` talks to it. */

import { prepareWaveform } from "./audio.js";
import { Codec } from "./codec.js";
import { Tokens } from "./tokens.js";

/**
 * @import { StreamDecoder } from "./stream_decoder.js"
 * @import { TokenFields } from "./tokens.js"
 * @typedef {{ id: number, method: keyof typeof METHODS, args: any[] }} Request
 */

/** @type {Codec} */
let codec;
/** @type {Map<number, StreamDecoder>} */
const streams = new Map();

const METHODS = {
  /**
   * @param {number} id
   * @param {string} location
   * @param {{ ortModule: string, wasmFolder?: string }} options
   */
  async load(id, location, { ortModule, wasmFolder }) {
    const ort = await import(ortModule);
    codec = await Codec.load(location, { ort, wasmFolder, onProgress: (...values) => report(id, values) });
    return { config: codec.config, modelId: codec.modelId, hopLength: codec.hopLength };
  },
  /** @param {number} id */
  async warmUp(id) {
    report(id, [0]);
    await codec.warmUp();
  },
  /**
   * @param {number} _id
   * @param {any} audio
   * @param {number} sampleRate
   */
  async prepare(_id, audio, sampleRate) {
    return prepareWaveform(audio, sampleRate, codec.sampleRate);
  },
  /**
   * @param {number} id
   * @param {any} audio
   * @param {number} sampleRate
   * @param {{ nQ?: number }} options
   */
  async encode(id, audio, sampleRate, options) {
    const start = performance.now();
    const tokens = await codec.encode(audio, sampleRate, { ...options, onProgress: (share) => report(id, [share]) });
    return { tokens: { ...tokens }, seconds: (performance.now() - start) / 1000 };
  },
  /**
   * @param {number} id
   * @param {TokenFields} fields
   * @param {{ nQ?: number }} options
   */
  async decode(id, fields, options) {
    const start = performance.now();
    const tokens = new Tokens(fields);
    const samples = await codec.decode(tokens, { ...options, onProgress: (share) => report(id, [share]) });
    return { samples, seconds: (performance.now() - start) / 1000 };
  },
  /**
   * @param {number} id
   * @param {{ nQ?: number, firstLevel?: number }} options
   */
  async openStream(id, options) {
    streams.set(id, codec.streamDecoder(options));
    return id;
  },
  /**
   * @param {number} _id
   * @param {number} stream
   * @param {Uint16Array} codes
   */
  async push(_id, stream, codes) {
    return streams.get(stream)?.push(codes);
  },
  /**
   * @param {number} _id
   * @param {number} stream
   */
  async finish(_id, stream) {
    const audio = await streams.get(stream)?.finish();
    streams.delete(stream);
    return audio;
  },
};

/**
 * @param {number} id
 * @param {number[]} progress
 */
function report(id, progress) {
  self.postMessage({ id, progress });
}

self.onmessage = async (/** @type {MessageEvent<Request>} */ event) => {
  const { id, method, args } = event.data;
  try {
    // @ts-expect-error the arguments are those of the client's method
    self.postMessage({ id, result: await METHODS[method](id, ...args) });
  } catch (error) {
    const { name, message } = error instanceof Error ? error : new Error(String(error));
    self.postMessage({ id, error: { name, message } });
  }
};
