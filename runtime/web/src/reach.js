/** Receptive fields: what one frame depends on. dmcodec/receptive_field.py has the same in Python. */

/** @import { Config } from "./bundle.js" */

export const KERNEL_SIZE = 7; // of the first and the last convolution of encoder and decoder
const MIDDLE_FRAME = 8; // at first

/**
 * Return samples per frame.
 * @param {Config} config
 */
export function hopLength(config) {
  return config.strides.reduce((product, stride) => product * stride, 1);
}

/**
 * Return the padding of a convolution at both ends, but for what completes the last window.
 * @param {Config} config
 * @param {number} kernelSize
 * @param {number} [stride]
 * @param {number} [dilation]
 */
export function padding(config, kernelSize, stride = 1, dilation = 1) {
  const total = (kernelSize - 1) * dilation - (stride - 1);
  const right = config.causal ? 0 : Math.floor(total / 2);
  return { left: total - right, right };
}

/**
 * Return the samples that a transposed convolution drops at its left end.
 * @param {Config} config
 * @param {number} stride
 */
function trimLeft(config, stride) {
  return stride - (config.causal ? Math.ceil(stride * (config.trim_right_ratio ?? 1)) : Math.floor(stride / 2));
}

/**
 * Return the samples before the first and after the last sample of a frame that its features depend on, and how many
 * of a clip's samples those of its first frame depend on.
 * @param {Config} config
 */
export function encoderReach(config) {
  for (let middle = MIDDLE_FRAME; ; middle *= 2) {
    const found = reachInClips(config, middle);
    // Else the clips were too short to show all of it.
    if (Math.max(found.past, found.future) < (middle - 1) * hopLength(config)) return found;
  }
}

/**
 * Return what is seen of the receptive field in clips of about twice `middle` frames.
 * @param {Config} config
 * @param {number} middle
 */
function reachInClips(config, middle) {
  const hop = hopLength(config);
  let past = 0;
  let future = 0;
  let head = 0;
  for (let length = 2 * middle * hop; length < (2 * middle + 1) * hop; length++) {
    const frames = Math.ceil(length / hop);
    for (const frame of [0, 1, middle, frames - 2, frames - 1]) {
      const [low, high] = downsamplerNeeds(config, length, frame);
      past = Math.max(past, frame * hop - low);
      if (frame === 0) head = Math.max(head, high + 1);
      if (frame > 1 || !config.causal) future = Math.max(future, high - (frame + 1) * hop + 1);
    }
  }
  return { past, future, head };
}

/**
 * @param {Config} config
 * @param {number} length
 * @param {number} frame
 */
function downsamplerNeeds(config, length, frame) {
  const strides = config.strides;
  const lengths = [length];
  for (const stride of [...strides].reverse()) lengths.push(Math.ceil(lengths[lengths.length - 1] / stride));
  let [low, high] = [frame, frame];
  strides.forEach((stride, index) => {
    const size = lengths[lengths.length - 2 - index];
    const left = padding(config, 2 * stride, stride).left;
    [low, high] = reflected(low * stride - left, high * stride - left + 2 * stride - 1, size);
    for (let layer = config.n_residual_layers - 1; layer >= 0; layer--) {
      const inner = padding(config, config.residual_kernel_size, 1, config.dilation_base ** layer);
      [low, high] = reflected(low - inner.left, high + inner.right, size);
    }
  });
  const first = padding(config, KERNEL_SIZE);
  return reflected(low - first.left, high + first.right, length);
}

/**
 * @param {number} low
 * @param {number} high
 * @param {number} size
 */
function reflected(low, high, size) {
  const end = size - 1;
  const inside = [Math.max(low, 0), Math.min(high, end)];
  if (low < 0) inside[1] = Math.max(inside[1], -low);
  if (high > end) inside[0] = Math.min(inside[0], 2 * end - high);
  return inside;
}

/**
 * Return the frames that one output frame of the decoder depends on, besides itself; see `DecoderReach` in Python.
 * @param {Config} config
 */
export function decoderReach(config) {
  const end = hopLength(config) - 1;
  const inside = upsamplerNeeds(config, end, false, false);
  const atStart = upsamplerNeeds(config, end, true, false);
  const atEnd = upsamplerNeeds(config, end, false, true);
  const first = padding(config, KERNEL_SIZE);
  return {
    front: first.left,
    frontFuture: first.right,
    past: -Math.min(inside[0], atEnd[0]),
    future: config.causal ? inside[1] : Math.max(inside[1], atStart[1]),
    head: atStart[1] + 1,
  };
}

/**
 * @param {Config} config
 * @param {number} end
 * @param {boolean} first
 * @param {boolean} last
 */
function upsamplerNeeds(config, end, first, last) {
  let [low, high] = convolution(0, end, padding(config, KERNEL_SIZE), end, first, last);
  for (const stride of [...config.strides].reverse()) {
    for (let layer = config.n_residual_layers - 1; layer >= 0; layer--) {
      const inner = padding(config, config.residual_kernel_size, 1, config.dilation_base ** layer);
      [low, high] = convolution(low, high, inner, end, first, last);
    }
    const trim = trimLeft(config, stride);
    [low, high] = [Math.floor((low + trim) / stride) - 1, Math.floor((high + trim) / stride)];
    end = Math.floor((end + 1) / stride) - 1;
    [low, high] = [first ? Math.max(low, 0) : low, last ? Math.min(high, end) : high];
  }
  return [low, high];
}

/**
 * @param {number} low
 * @param {number} high
 * @param {{ left: number, right: number }} ends padding of the convolution
 * @param {number} end
 * @param {boolean} first
 * @param {boolean} last
 */
function convolution(low, high, ends, end, first, last) {
  [low, high] = [low - ends.left, high + ends.right];
  if (first && low < 0) [low, high] = [0, Math.max(high, -low)];
  if (last && high > end) [low, high] = [Math.min(low, 2 * end - high), end];
  return [low, high];
}
