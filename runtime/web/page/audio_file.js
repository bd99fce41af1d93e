/** Reads audio files with the browser's own decoders. */

import { AudioError } from "../src/errors.js";

/**
 * Decode a file.
 * @param {File} file any format that the browser plays
 * @param {number} sampleRate in Hz; the browser resamples to it
 * @returns {Promise<Float32Array[]>} its channels
 * @throws {AudioError} not audio, damaged, or silent
 */
export async function decodeFile(file, sampleRate) {
  const context = new OfflineAudioContext(1, 1, sampleRate);
  /** @type {AudioBuffer} */
  let audio;
  try {
    audio = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new AudioError(`${file.name} can't be read as audio by this browser. Convert it to WAV or FLAC and try again.`);
  }
  const channels = Array.from({ length: audio.numberOfChannels }, (_, index) => audio.getChannelData(index));
  if (channels.every((channel) => channel.every((sample) => sample === 0))) {
    throw new AudioError(`${file.name} holds only silence. Choose a file with speech.`);
  }
  if (channels.every(isScaledUp)) channels.forEach(scaleDown);
  return channels;
}

/**
 * Return whether all positive samples are whole multiples of 1 / 32767.
 *
 * Chromium divides positive 16-bit samples by 32767 and negative ones by 32768. The codec, like libsndfile, divides all
 * by 32768, and its tokens are the same only for the same samples.
 * @param {Float32Array} channel
 */
function isScaledUp(channel) {
  return channel.every((sample) => sample <= 0 || Math.abs(sample * 32767 - Math.round(sample * 32767)) < 0.004);
}

/** @param {Float32Array} channel */
function scaleDown(channel) {
  channel.forEach((sample, index) => {
    if (sample > 0) channel[index] = Math.round(sample * 32767) / 32768;
  });
}
