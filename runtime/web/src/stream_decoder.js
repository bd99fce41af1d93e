/** Decoding while tokens arrive, equal to the decoding of the whole clip, with bounded look-ahead and memory. */

import { StreamError, TokensError } from "./errors.js";
import { decoderReach, hopLength } from "./reach.js";
import { join, reflectEnds, slice } from "./time_axis.js";

/**
 * @import { Graphs, Array as GraphArray } from "./graphs.js"
 * @typedef {{ data: Float32Array, rows: number, length: number }} Rows rows x length, time last
 *
 * @typedef {object} State
 * @property {number} framesIn latent frames received
 * @property {number} framesReady LSTM frames computed
 * @property {number} framesOut frames whose audio was returned
 * @property {boolean} finished
 * @property {Rows} latents
 * @property {Rows} features
 * @property {GraphArray} hidden
 * @property {GraphArray} cell
 */

export class StreamDecoder {
  /** @type {State} */
  #state;
  #busy = false;

  /**
   * @param {Graphs} graphs
   * @param {number} nQ levels of each push
   * @param {number} firstLevel quantizer level of their first row
   */
  constructor(graphs, nQ, firstLevel) {
    this.graphs = graphs;
    this.nQ = nQ;
    this.firstLevel = firstLevel;
    this.config = graphs.bundle.manifest.config;
    this.reach = decoderReach(this.config);
    this.#state = this.#initial();
  }

  /**
   * Frames that must follow a frame before its audio is returned, once the clip has begun; fewer at its end. The first
   * frame of a causal codec waits for six more.
   */
  get lookAheadFrames() {
    return this.reach.frontFuture + this.reach.future;
  }

  /** Start a new clip. */
  reset() {
    this.#state = this.#initial();
  }

  /**
   * Add frames; return the audio that is final now.
   * @param {Uint16Array} codes nQ x frames, level after level
   * @returns {Promise<Float32Array>} whole frames of samples; empty until the look-ahead has arrived
   * @throws {TokensError} another number of levels, codes out of range, or no frames; the stream is unchanged
   * @throws {StreamError} the clip has ended, or another call is still running
   */
  async push(codes) {
    if (this.#state.finished) throw new StreamError("stream: push after finish; call reset() to start a new clip");
    const frames = codes.length / this.nQ;
    if (!(codes instanceof Uint16Array) || !Number.isInteger(frames) || frames === 0) {
      throw new TokensError(`stream: expected a Uint16Array of ${this.nQ} x frames codes, and at least one frame`);
    }
    const size = this.config.codebook_size;
    const wrong = codes.find((code) => code >= size);
    if (wrong !== undefined) throw new TokensError(`stream: code ${wrong} is out of range, 0 to ${size - 1}`);
    return this.#alone(async () => {
      const [latents] = await this.graphs.run("dequantizer", {
        codes: { data: BigInt64Array.from(codes, BigInt), dims: [this.nQ, 1, frames] },
        first_level: { data: BigInt64Array.of(BigInt(this.firstLevel)), dims: [] },
      });
      const rows = asRows(latents);
      return this.#advance({
        ...this.#state,
        framesIn: this.#state.framesIn + frames,
        latents: join(this.#state.latents, rows),
      });
    });
  }

  /**
   * End the clip; return the rest of its audio.
   * @returns {Promise<Float32Array>}
   * @throws {StreamError} the clip has ended already
   */
  async finish() {
    if (this.#state.finished) throw new StreamError("stream: finished already; call reset() to start a new clip");
    return this.#alone(() => this.#advance({ ...this.#state, finished: true }));
  }

  /**
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  async #alone(work) {
    if (this.#busy) throw new StreamError("stream: a push is still running; await it before the next");
    this.#busy = true;
    try {
      return await work();
    } finally {
      this.#busy = false;
    }
  }

  /** @param {State} state */
  async #advance(state) {
    const recurred = await this.#recur(state);
    const { state: next, audio } = await this.#upsample(recurred);
    this.#state = next; // only now: a push that failed leaves the stream as it was
    return audio;
  }

  /** @param {State} state */
  async #recur(state) {
    const { front, frontFuture } = this.reach;
    const right = state.finished ? frontFuture : 0;
    const ready = state.framesIn - (state.finished ? 0 : frontFuture);
    if (ready <= state.framesReady || !(state.finished || state.framesIn > front)) return state;
    const window = reflectEnds(state.latents, Math.max(0, front - state.framesReady), right);
    const [features, hidden, cell] = await this.graphs.run("decoder_recurrent", {
      latents: { data: window.data, dims: [1, window.rows, window.length] },
      hidden: state.hidden,
      cell: state.cell,
    });
    const kept = Math.max(0, ready - front) - Math.max(0, state.framesReady - front);
    return {
      ...state,
      framesReady: ready,
      latents: slice(state.latents, kept),
      features: join(state.features, asRows(features)),
      hidden,
      cell,
    };
  }

  /** @param {State} state */
  async #upsample(state) {
    const { past, future, head } = this.reach;
    const out = state.framesReady - (state.finished ? 0 : future);
    if (out <= state.framesOut || !(state.finished || state.framesReady >= head)) return { state, audio: new Float32Array(0) };
    const start = Math.max(0, state.framesOut - past);
    const { data, rows, length } = state.features;
    const [waveform] = await this.graphs.run("decoder_upsampler", { features: { data, dims: [1, rows, length] } });
    const hop = hopLength(this.config);
    const samples = /** @type {Float32Array} */ (waveform.data);
    const audio = samples.slice((state.framesOut - start) * hop, (out - start) * hop);
    const features = slice(state.features, Math.max(0, out - past) - start);
    return { state: { ...state, framesOut: out, features }, audio };
  }

  /** @returns {State} */
  #initial() {
    const channels = this.config.n_filters * 2 ** this.config.strides.length;
    const layers = this.config.lstm_layers;
    const zeros = { data: new Float32Array(layers * channels), dims: [layers, 1, channels] };
    return {
      framesIn: 0,
      framesReady: 0,
      framesOut: 0,
      finished: false,
      latents: { data: new Float32Array(0), rows: this.config.dimension, length: 0 },
      features: { data: new Float32Array(0), rows: channels, length: 0 },
      hidden: zeros,
      cell: zeros,
    };
  }
}

/**
 * @param {GraphArray} array [1, rows, length]
 * @returns {Rows}
 */
function asRows({ data, dims }) {
  return { data: /** @type {Float32Array} */ (data), rows: dims[1], length: dims[2] };
}
