/** Mono WAV files of 16 bits. */

/**
 * Return the bytes of a WAV file.
 * @param {Float32Array} samples in [-1, 1]; values outside are clipped
 * @param {number} sampleRate in Hz
 */
export function wavFile(samples, sampleRate) {
  const data = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (/** @type {number} */ at, /** @type {string} */ word) =>
    [...word].forEach((letter, index) => data.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  data.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  data.setUint32(16, 16, true);
  data.setUint16(20, 1, true);
  data.setUint16(22, 1, true);
  data.setUint32(24, sampleRate, true);
  data.setUint32(28, 2 * sampleRate, true);
  data.setUint16(32, 2, true);
  data.setUint16(34, 16, true);
  text(36, "data");
  data.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, index) => {
    const scaled = Math.round(sample * 32768);
    data.setInt16(44 + 2 * index, Math.min(32767, Math.max(-32768, scaled)), true);
  });
  return data.buffer;
}
