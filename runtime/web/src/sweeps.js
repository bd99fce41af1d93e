/**
 * Encoding of long clips in parts, with the result of one piece: convolutions in tiles, then each layer of the LSTM
 * forward from the start and backward from the end in blocks, its state handed on.
 */

import { BundleError } from "./errors.js";
import { encoderReach, hopLength, KERNEL_SIZE, padding } from "./reach.js";

/**
 * @import { Graphs } from "./graphs.js"
 * @import { Config } from "./bundle.js"
 */

const BLOCK_FRAMES = 250; // of a tile and of a block; the result does not depend on it

/** @param {Config} config */
function directions(config) {
  return config.bidirectional ? ["forward", "backward"] : ["forward"];
}

/**
 * Compute the latents of a clip.
 * @param {Graphs} graphs
 * @param {Float32Array} waveform
 * @param {(share: number) => void} [onProgress] called with the share that is done, 0 to 1
 * @param {number} [block] frames of a tile and of a block
 * @returns {AsyncGenerator<{ latents: Float32Array, frames: number }>} blocks in the clip's order, [1, dimension, frames]
 * @throws {BundleError} the bundle has no graphs of the encoder in parts
 */
export async function* latentsInParts(graphs, waveform, onProgress, block = BLOCK_FRAMES) {
  if (!graphs.has("encoder_downsampler")) {
    throw new BundleError("this bundle has no graphs for clips over 30 s; export it again with a newer dmcodec");
  }
  const config = graphs.bundle.manifest.config;
  const channels = config.n_filters * 2 ** config.strides.length;
  const stages = 2 + config.lstm_layers;
  const report = (/** @type {number} */ stage, /** @type {number} */ share) => onProgress?.((stage + share) / stages);
  const features = await runTiles(graphs, waveform, channels, block, (share) => report(0, share));
  /** @type {Record<string, Float32Array>} */
  let inputs = { features };
  for (let layer = 0; layer < config.lstm_layers; layer++) {
    /** @type {Record<string, Float32Array>} */
    const outputs = {};
    for (const way of directions(config)) {
      outputs[way] = await sweep(graphs, `encoder_lstm_${layer}_${way}`, inputs, channels, block, way === "backward");
    }
    inputs = outputs;
    report(1, layer + 1);
  }
  yield* runOutput(graphs, { features, ...inputs }, channels, block);
}

/**
 * @param {Graphs} graphs
 * @param {Float32Array} waveform
 * @param {number} channels
 * @param {number} block
 * @param {(share: number) => void} report
 */
async function runTiles(graphs, waveform, channels, block, report) {
  const config = graphs.bundle.manifest.config;
  const [hop, reach] = [hopLength(config), encoderReach(config)];
  const frames = Math.ceil(waveform.length / hop);
  const features = new Float32Array(frames * channels);
  for (let first = 0; first < frames; first += block) {
    const last = Math.min(frames, first + block);
    const start = Math.floor(Math.max(0, first * hop - reach.past) / hop);
    const samples = waveform.slice(start * hop, Math.max(last * hop + reach.future, reach.head));
    const [tile] = await graphs.run("encoder_downsampler", {
      waveform: { data: samples, dims: [1, 1, samples.length] },
      lengths: { data: BigInt64Array.of(BigInt(samples.length)), dims: [1] },
    });
    const data = /** @type {Float32Array} */ (tile.data);
    features.set(data.subarray((first - start) * channels, (last - start) * channels), first * channels);
    report(last / frames);
  }
  return features;
}

/**
 * @param {Graphs} graphs
 * @param {string} name
 * @param {Record<string, Float32Array>} inputs [frames, channels] each
 * @param {number} channels
 * @param {number} block
 * @param {boolean} backward
 */
async function sweep(graphs, name, inputs, channels, block, backward) {
  const size = Object.values(inputs)[0].length;
  const output = new Float32Array(size);
  const state = { data: new Float32Array(channels), dims: [1, 1, channels] };
  let [hidden, cell] = /** @type {import("./graphs.js").Array[]} */ ([state, state]);
  const step = block * channels;
  const blocks = Math.ceil(size / step);
  for (let index = 0; index < blocks; index++) {
    const first = (backward ? blocks - 1 - index : index) * step;
    const parts = Object.fromEntries(
      Object.entries(inputs).map(([key, data]) => {
        const part = data.slice(first, first + step);
        return [key, { data: part, dims: [part.length / channels, 1, channels] }];
      }),
    );
    const [result, newHidden, newCell] = await graphs.run(name, { ...parts, hidden, cell });
    output.set(/** @type {Float32Array} */ (result.data), first);
    [hidden, cell] = [newHidden, newCell];
  }
  return output;
}

/**
 * @param {Graphs} graphs
 * @param {Record<string, Float32Array>} inputs
 * @param {number} channels
 * @param {number} block
 */
async function* runOutput(graphs, inputs, channels, block) {
  const frames = inputs.features.length / channels;
  const { left, right } = padding(graphs.bundle.manifest.config, KERNEL_SIZE);
  for (let first = 0; first < frames; first += block) {
    const count = Math.min(block, frames - first);
    const parts = Object.fromEntries(
      Object.entries(inputs).map(([key, data]) => {
        const part = new Float32Array((left + count + right) * channels);
        for (let at = -left; at < count + right; at++) {
          const frame = reflectedFrame(first + at, frames);
          part.set(data.subarray(frame * channels, (frame + 1) * channels), (at + left) * channels);
        }
        return [key, { data: part, dims: [left + count + right, 1, channels] }];
      }),
    );
    const [latents] = await graphs.run("encoder_output", parts);
    yield { latents: /** @type {Float32Array} */ (latents.data), frames: count };
  }
}

/**
 * @param {number} frame
 * @param {number} frames more than the context of the convolution
 */
function reflectedFrame(frame, frames) {
  if (frame < 0) return -frame;
  return frame < frames ? frame : 2 * (frames - 1) - frame;
}
