/** Conversion of a user's audio to the waveform of the codec: mono float32 at its sample rate. */

import { AudioError } from "./errors.js";
import { resample } from "./resample.js";

const MIN_SAMPLE_RATE = 1000;
const MAX_SAMPLE_RATE = 768000;

/** @typedef {Float32Array | Float64Array | Int16Array} Samples */

/**
 * Convert audio.
 * @param {Samples | Samples[]} audio one channel, or several of one length, which are averaged; float in [-1, 1] or int16
 * @param {number} sampleRate of `audio`, in Hz
 * @param {number} targetRate in Hz
 * @returns {Float32Array}
 * @throws {AudioError} empty, NaN, another type, or a sample rate out of range
 */
export function prepareWaveform(audio, sampleRate, targetRate) {
  const channels = Array.isArray(audio) ? audio : [audio];
  if (!Number.isInteger(sampleRate) || sampleRate < MIN_SAMPLE_RATE || sampleRate > MAX_SAMPLE_RATE) {
    throw new AudioError(
      `waveform: the sample rate must be an integer from ${MIN_SAMPLE_RATE} to ${MAX_SAMPLE_RATE} Hz, not ${sampleRate}`,
    );
  }
  if (!channels.every(isSamples)) {
    throw new AudioError("waveform: expected a Float32Array, Float64Array or Int16Array, or an array of these");
  }
  const length = channels[0]?.length ?? 0;
  if (length === 0) throw new AudioError("waveform: holds no samples");
  if (channels.some((channel) => channel.length !== length)) {
    throw new AudioError("waveform: its channels have different lengths");
  }
  const mono = new Float32Array(length);
  for (const channel of channels) {
    const scale = (channel instanceof Int16Array ? 1 / 32768 : 1) / channels.length;
    for (let index = 0; index < length; index++) mono[index] += channel[index] * scale;
  }
  if (!mono.every(Number.isFinite)) throw new AudioError("waveform: holds NaN or infinite values");
  return resample(mono, sampleRate, targetRate);
}

/** @param {unknown} value */
function isSamples(value) {
  return value instanceof Float32Array || value instanceof Float64Array || value instanceof Int16Array;
}
