/** The codec that applications embed: waveforms to tokens, and tokens to waveforms. */

import { prepareWaveform } from "./audio.js";
import { Bundle } from "./bundle.js";
import { ArgumentError, BackendError, TokensError } from "./errors.js";
import { Graphs } from "./graphs.js";
import { hopLength } from "./reach.js";
import { StreamDecoder } from "./stream_decoder.js";
import { latentsInParts } from "./sweeps.js";
import { Tokens } from "./tokens.js";

/**
 * @import { Ort } from "./graphs.js"
 * @import { Samples } from "./audio.js"
 *
 * @typedef {object} LoadOptions
 * @property {Ort} [ort] the module of ONNX Runtime Web; by default the package `onnxruntime-web`
 * @property {string} [wasmFolder] address of ONNX Runtime's WebAssembly files, where they don't lie beside the module
 * @property {import("./bundle.js").Progress} [onProgress]
 */

const WHOLE_S = 30; // clips up to this length run in one piece
const STREAM_S = 15; // of the part of a long clip that one decoding step covers

export class Codec {
  /** @type {Graphs} */
  #graphs;

  /**
   * Load a codec with `Codec.load`.
   * @param {Bundle} bundle
   * @param {Ort} ort
   */
  constructor(bundle, ort) {
    this.config = bundle.manifest.config;
    this.modelId = bundle.manifest.model_id;
    this.hopLength = hopLength(this.config);
    this.#graphs = new Graphs(bundle, ort);
  }

  /**
   * Open a bundle, check its files, and prepare ONNX Runtime with one thread.
   * @param {string | URL} location address of the bundle's folder, or in Node its path
   * @param {LoadOptions} [options]
   * @throws {BundleError} missing, incomplete, altered, or from a newer dmcodec
   * @throws {BackendError} this browser has no WebAssembly SIMD
   */
  static async load(location, { ort, wasmFolder, onProgress } = {}) {
    if (!hasSimd()) {
      throw new BackendError("this browser has no WebAssembly SIMD; use a current Chrome, Edge, Firefox or Safari");
    }
    const module = ort ?? (await import("onnxruntime-web/wasm"));
    module.env.wasm.numThreads = 1;
    if (wasmFolder) module.env.wasm.wasmPaths = wasmFolder;
    return new Codec(await Bundle.open(location, onProgress), module);
  }

  /** Samples per second of the waveforms, in Hz. */
  get sampleRate() {
    return this.config.sample_rate;
  }

  /** Number of quantizer levels. */
  get nQ() {
    return this.config.n_q;
  }

  /** Latent frames per second. */
  get frameRate() {
    return this.sampleRate / this.hopLength;
  }

  /** Load the graphs of `encode` and `decode` and run each once, so that the first real call is fast. */
  async warmUp() {
    await this.decode(await this.encode(new Float32Array(this.sampleRate / 10), this.sampleRate));
  }

  /**
   * Encode a waveform.
   * @param {Samples | Samples[]} audio one channel, or several, which are averaged; float in [-1, 1] or int16
   * @param {number} sampleRate in Hz; resampled to the codec's if it differs
   * @param {{ nQ?: number, onProgress?: (share: number) => void }} [options] levels to keep, by default all
   * @returns {Promise<Tokens>}
   * @throws {AudioError} another type, empty, or NaN
   * @throws {ArgumentError} nQ out of range
   */
  async encode(audio, sampleRate, { nQ = this.nQ, onProgress } = {}) {
    if (!Number.isInteger(nQ) || nQ < 1 || nQ > this.nQ) {
      throw new ArgumentError(`nQ must be an integer from 1 to ${this.nQ}, not ${nQ}`);
    }
    const waveform = prepareWaveform(audio, sampleRate, this.sampleRate);
    const frames = Math.ceil(waveform.length / this.hopLength);
    const codes = new Uint16Array(nQ * frames);
    let first = 0;
    for await (const block of this.#latents(waveform, onProgress)) {
      const [result] = await this.#graphs.run("quantizer", {
        latents: { data: block.latents, dims: [1, this.config.dimension, block.frames] },
      });
      for (let level = 0; level < nQ; level++) {
        for (let frame = 0; frame < block.frames; frame++) {
          codes[level * frames + first + frame] = Number(result.data[level * block.frames + frame]);
        }
      }
      first += block.frames;
    }
    return new Tokens({ codes, nQ, numSamples: waveform.length, ...this.#origin() });
  }

  /**
   * Decode tokens.
   * @param {Tokens} tokens made by this codec's model, or without a model id
   * @param {{ nQ?: number, onProgress?: (share: number) => void }} [options] use the first levels only
   * @returns {Promise<Float32Array>} tokens.numSamples samples at the codec's sample rate
   * @throws {TokensError} another model or configuration, levels that the codec doesn't have, or no frames
   */
  async decode(tokens, { nQ = tokens.nQ, onProgress } = {}) {
    this.checkOrigin(tokens);
    if (!Number.isInteger(nQ) || nQ < 1 || nQ > tokens.nQ) {
      throw new ArgumentError(`nQ must be an integer from 1 to ${tokens.nQ}, not ${nQ}`);
    }
    if (tokens.numFrames === 0) throw new TokensError("tokens: no frames to decode");
    const selected = tokens.firstLevels(nQ);
    const whole = tokens.durationS <= WHOLE_S;
    return whole ? this.#decodeWhole(selected) : this.#decodeLong(selected, onProgress);
  }

  /**
   * Return a stream that decodes codes while they arrive.
   * @param {{ nQ?: number, firstLevel?: number }} [options] levels of the codes of each push
   * @throws {ArgumentError} levels that the codec doesn't have
   */
  streamDecoder({ firstLevel = 0, nQ = this.nQ - firstLevel } = {}) {
    const whole = Number.isInteger(nQ) && Number.isInteger(firstLevel);
    if (!whole || nQ < 1 || firstLevel < 0 || firstLevel + nQ > this.nQ) {
      throw new ArgumentError(`nQ ${nQ} from level ${firstLevel} on: the codec has levels 0 to ${this.nQ - 1}`);
    }
    return new StreamDecoder(this.#graphs, nQ, firstLevel);
  }

  /** Release the memory of the graphs. */
  async close() {
    await this.#graphs.close();
  }

  /**
   * Check that tokens are of this codec's model and configuration.
   * @param {Tokens} tokens
   * @throws {TokensError}
   */
  checkOrigin(tokens) {
    for (const [name, value] of Object.entries(this.#origin())) {
      const given = tokens[/** @type {keyof Tokens} */ (name)];
      if (given !== value && !(name === "modelId" && given === "")) {
        throw new TokensError(
          `tokens: ${name} is ${given}, this codec's is ${value}; decode them with the model that made them`,
        );
      }
    }
    const last = tokens.firstLevel + tokens.nQ - 1;
    if (last >= this.nQ) throw new TokensError(`tokens: level ${last}, this codec has levels 0 to ${this.nQ - 1}`);
  }

  #origin() {
    const { sampleRate, hopLength: hop, modelId } = this;
    return { sampleRate, hopLength: hop, codebookSize: this.config.codebook_size, modelId };
  }

  /**
   * @param {Float32Array} waveform
   * @param {(share: number) => void} [onProgress]
   * @returns {AsyncGenerator<{ latents: Float32Array, frames: number }>}
   */
  async *#latents(waveform, onProgress) {
    if (waveform.length > WHOLE_S * this.sampleRate) {
      yield* latentsInParts(this.#graphs, waveform, onProgress);
      return;
    }
    const [latents] = await this.#graphs.run("encoder", {
      waveform: { data: waveform, dims: [1, 1, waveform.length] },
      lengths: { data: BigInt64Array.of(BigInt(waveform.length)), dims: [1] },
    });
    yield { latents: /** @type {Float32Array} */ (latents.data), frames: latents.dims[2] };
  }

  /** @param {Tokens} tokens */
  async #decodeWhole(tokens) {
    const frames = tokens.numFrames;
    const [latents] = await this.#graphs.run("dequantizer", {
      codes: { data: BigInt64Array.from(tokens.codes, BigInt), dims: [tokens.nQ, 1, frames] },
      first_level: { data: BigInt64Array.of(BigInt(tokens.firstLevel)), dims: [] },
    });
    const lengths = { data: BigInt64Array.of(BigInt(frames)), dims: [1] };
    const [waveform] = await this.#graphs.run("decoder", { latents, lengths });
    return /** @type {Float32Array} */ (waveform.data).slice(0, tokens.numSamples);
  }

  /**
   * @param {Tokens} tokens
   * @param {(share: number) => void} [onProgress]
   */
  async #decodeLong(tokens, onProgress) {
    const stream = this.streamDecoder({ nQ: tokens.nQ, firstLevel: tokens.firstLevel });
    const samples = new Float32Array(tokens.numFrames * this.hopLength);
    const step = Math.round(STREAM_S * this.frameRate);
    let done = 0;
    const append = (/** @type {Float32Array} */ audio) => {
      samples.set(audio, done);
      done += audio.length;
    };
    for (let first = 0; first < tokens.numFrames; first += step) {
      const count = Math.min(step, tokens.numFrames - first);
      const codes = new Uint16Array(tokens.nQ * count);
      for (let level = 0; level < tokens.nQ; level++) {
        codes.set(tokens.level(level).subarray(first, first + count), level * count);
      }
      append(await stream.push(codes));
      onProgress?.((first + count) / tokens.numFrames);
    }
    append(await stream.finish());
    return samples.slice(0, tokens.numSamples);
  }
}

/** Return whether this engine runs WebAssembly with SIMD: a module of one function that adds two vectors. */
function hasSimd() {
  const module = [
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
  ];
  return typeof WebAssembly === "object" && WebAssembly.validate(Uint8Array.from(module));
}
