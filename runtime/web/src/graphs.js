/** The graphs of a bundle in ONNX Runtime, each loaded when it is first needed. */

import { BackendError } from "./errors.js";

/**
 * @import { Bundle } from "./bundle.js"
 * @typedef {typeof import("onnxruntime-web/wasm")} Ort
 * @typedef {import("onnxruntime-web/wasm").InferenceSession} Session
 *
 * @typedef {{ data: Float32Array | BigInt64Array, dims: readonly number[] }} Array
 */

export class Graphs {
  /** @type {Map<string, Promise<Session>>} */
  #sessions = new Map();
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();

  /**
   * @param {Bundle} bundle
   * @param {Ort} ort
   */
  constructor(bundle, ort) {
    this.bundle = bundle;
    this.ort = ort;
  }

  /**
   * Return whether the bundle has a graph.
   * @param {string} name
   */
  has(name) {
    return name in this.bundle.manifest.graphs;
  }

  /**
   * Load graphs now, and not when they are first needed.
   * @param {string[]} names
   */
  async load(names) {
    for (const name of names) await this.#session(name);
  }

  /**
   * Run a graph; return its outputs in order.
   * @param {string} name
   * @param {Record<string, Array>} inputs
   * @returns {Promise<Array[]>}
   * @throws {BackendError} the graph can't be loaded or run
   */
  async run(name, inputs) {
    // ONNX Runtime Web runs one graph at a time; concurrent calls wait here.
    const result = this.#last.then(() => this.#run(name, inputs));
    this.#last = result.catch(() => {});
    return result;
  }

  /** Release the memory of all graphs. */
  async close() {
    const sessions = [...this.#sessions.values()];
    this.#sessions.clear();
    for (const session of sessions) await (await session).release();
  }

  /**
   * @param {string} name
   * @param {Record<string, Array>} inputs
   * @returns {Promise<Array[]>}
   */
  async #run(name, inputs) {
    const session = await this.#session(name);
    const { Tensor } = this.ort;
    const feeds = Object.fromEntries(
      Object.entries(inputs).map(([key, { data, dims }]) => [
        key,
        data instanceof Float32Array ? new Tensor("float32", data, dims) : new Tensor("int64", data, dims),
      ]),
    );
    try {
      const results = await session.run(feeds);
      return session.outputNames.map((output) => {
        const { data, dims } = results[output];
        return { data: /** @type {Float32Array | BigInt64Array} */ (data), dims };
      });
    } catch (error) {
      throw new BackendError(`${name}: failed to run (${firstLine(error)})`);
    }
  }

  /**
   * @param {string} name
   * @returns {Promise<Session>}
   */
  #session(name) {
    const loaded = this.#sessions.get(name) ?? this.#create(name);
    this.#sessions.set(name, loaded);
    return loaded;
  }

  /** @param {string} name */
  async #create(name) {
    const { manifest, files } = this.bundle;
    const graph = /** @type {Uint8Array} */ (files.get(manifest.graphs[name].file));
    const weights = manifest.weights && files.get(manifest.weights.file);
    const externalData = manifest.weights && weights ? [{ path: manifest.weights.file, data: weights }] : [];
    try {
      return await this.ort.InferenceSession.create(graph, { executionProviders: ["wasm"], externalData });
    } catch (error) {
      throw new BackendError(`${name}: ONNX Runtime can't load this graph (${firstLine(error)})`);
    }
  }
}

/** @param {unknown} error */
function firstLine(error) {
  return String(error instanceof Error ? error.message : error).split("\n")[0];
}
