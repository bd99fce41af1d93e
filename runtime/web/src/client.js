/** The codec of a Web Worker, with the methods of `Codec`. */

import { BackendError, DmcodecError, ERRORS } from "./errors.js";
import { Tokens } from "./tokens.js";

/**
 * @import { Config } from "./bundle.js"
 * @import { Samples } from "./audio.js"
 * @typedef {(...values: number[]) => void} Progress
 * @typedef {{ resolve: (value: any) => void, reject: (error: Error) => void, onProgress?: Progress }} Pending
 */

export class CodecClient {
  #worker;
  #next = 1;
  /** @type {Map<number, Pending>} */
  #pending = new Map();

  /** Load a client with `CodecClient.load`. */
  constructor() {
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => this.#fail(`the worker failed (${event.message || "its script can't be loaded"})`);
    /** @type {Config} */
    this.config = /** @type {any} */ (undefined);
    this.modelId = "";
    this.hopLength = 0;
  }

  /**
   * Start a worker and load a codec in it; see `Codec.load`.
   * @param {string | URL} location address of the bundle's folder
   * @param {{ ortModule: string | URL, wasmFolder?: string | URL, onProgress?: Progress }} options address of ONNX
   *   Runtime's module `ort.wasm.min.mjs`, and of the folder of its WebAssembly files; bytes loaded, and in total
   */
  static async load(location, { ortModule, wasmFolder, onProgress }) {
    const client = new CodecClient();
    const addresses = { ortModule: absolute(ortModule), wasmFolder: wasmFolder && absolute(wasmFolder) };
    try {
      Object.assign(client, await client.#call("load", [absolute(location), addresses], onProgress));
    } catch (error) {
      client.close();
      throw error;
    }
    return client;
  }

  /** Samples per second of the waveforms, in Hz. */
  get sampleRate() {
    return this.config.sample_rate;
  }

  /** Number of quantizer levels. */
  get nQ() {
    return this.config.n_q;
  }

  /** Load the graphs and run each once; see `Codec.warmUp`. */
  async warmUp() {
    await this.#call("warmUp", []);
  }

  /**
   * Return the waveform that `encode` takes audio for: mono, at the codec's sample rate.
   * @param {Samples | Samples[]} audio
   * @param {number} sampleRate in Hz
   * @returns {Promise<Float32Array<ArrayBuffer>>}
   */
  async prepare(audio, sampleRate) {
    return this.#call("prepare", [audio, sampleRate]);
  }

  /**
   * Encode a waveform; see `Codec.encode`.
   * @param {Samples | Samples[]} audio
   * @param {number} sampleRate in Hz
   * @param {{ nQ?: number, onProgress?: Progress }} [options]
   * @returns {Promise<{ tokens: Tokens, seconds: number }>} the tokens, and the time that encoding took
   */
  async encode(audio, sampleRate, { nQ, onProgress } = {}) {
    const { tokens, seconds } = await this.#call("encode", [audio, sampleRate, nQ ? { nQ } : {}], onProgress);
    return { tokens: new Tokens(tokens), seconds };
  }

  /**
   * Decode tokens; see `Codec.decode`.
   * @param {Tokens} tokens
   * @param {{ nQ?: number, onProgress?: Progress }} [options]
   * @returns {Promise<{ samples: Float32Array<ArrayBuffer>, seconds: number }>}
   */
  async decode(tokens, { nQ, onProgress } = {}) {
    return this.#call("decode", [{ ...tokens }, nQ ? { nQ } : {}], onProgress);
  }

  /**
   * Return a stream; see `Codec.streamDecoder`.
   * @param {{ nQ?: number, firstLevel?: number }} [options]
   */
  async streamDecoder(options = {}) {
    const stream = await this.#call("openStream", [options]);
    return {
      /** @param {Uint16Array} codes */
      push: (codes) => /** @type {Promise<Float32Array>} */ (this.#call("push", [stream, codes])),
      finish: () => /** @type {Promise<Float32Array>} */ (this.#call("finish", [stream])),
    };
  }

  /** Stop the worker and release its memory. Calls that are still running fail. */
  close() {
    this.#worker.terminate();
    this.#fail("the codec was closed");
  }

  /**
   * @param {string} method
   * @param {any[]} args
   * @param {Progress} [onProgress]
   * @returns {Promise<any>}
   */
  #call(method, args, onProgress) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onProgress });
      this.#worker.postMessage({ id, method, args });
    });
  }

  /** @param {{ id: number, progress?: number[], result?: any, error?: { name: string, message: string } }} answer */
  #receive({ id, progress, result, error }) {
    const pending = this.#pending.get(id);
    if (!pending) return;
    if (progress) {
      pending.onProgress?.(...progress);
      return;
    }
    this.#pending.delete(id);
    if (error) pending.reject(new (ERRORS[error.name] ?? DmcodecError)(error.message));
    else pending.resolve(result);
  }

  /** @param {string} message */
  #fail(message) {
    for (const { reject } of this.#pending.values()) reject(new BackendError(message));
    this.#pending.clear();
  }
}

/** @param {string | URL} location */
function absolute(location) {
  return new URL(location, document.baseURI).href;
}

export * from "./errors.js";
export { Tokens };
