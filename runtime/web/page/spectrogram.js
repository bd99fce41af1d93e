/** Spectrograms on a canvas: a short-time Fourier transform with a Hann window, its power in dB as colours. */

const WINDOW = 512;
const RANGE_DB = 70;

/**
 * Draw the spectrogram of a waveform over the whole canvas, low frequencies at the bottom.
 * @param {HTMLCanvasElement} canvas
 * @param {Float32Array} samples
 */
export function drawSpectrogram(canvas, samples) {
  const width = Math.max(1, Math.min(1200, Math.floor(canvas.clientWidth * devicePixelRatio) || 600));
  const height = WINDOW / 2;
  [canvas.width, canvas.height] = [width, height];
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const columns = Array.from({ length: width }, (_, column) =>
    powerDb(samples, Math.round(((column + 0.5) * samples.length) / width - WINDOW / 2)),
  );
  const peak = columns.reduce((top, column) => column.reduce((a, b) => Math.max(a, b), top), -120);
  const image = context.createImageData(width, height);
  columns.forEach((column, x) => {
    for (let bin = 0; bin < height; bin++) {
      const share = Math.min(1, Math.max(0, 1 + (column[bin] - peak) / RANGE_DB));
      image.data.set([...colour(share), 255], 4 * ((height - 1 - bin) * width + x));
    }
  });
  context.putImageData(image, 0, 0);
}

/**
 * Return the power of WINDOW samples from `start` on, in dB, for each frequency.
 * @param {Float32Array} samples
 * @param {number} start
 */
function powerDb(samples, start) {
  const real = new Float64Array(WINDOW);
  const imaginary = new Float64Array(WINDOW);
  for (let index = 0; index < WINDOW; index++) {
    const hann = 0.5 - 0.5 * Math.cos((2 * Math.PI * index) / WINDOW);
    real[index] = (samples[start + index] ?? 0) * hann;
  }
  transform(real, imaginary);
  return Array.from({ length: WINDOW / 2 }, (_, bin) =>
    10 * Math.log10(real[bin] ** 2 + imaginary[bin] ** 2 + 1e-12),
  );
}

/**
 * Transform in place: the radix-2 algorithm of Cooley and Tukey.
 * @param {Float64Array} real
 * @param {Float64Array} imaginary
 */
function transform(real, imaginary) {
  const size = real.length;
  for (let index = 1, reversed = 0; index < size; index++) {
    let bit = size >> 1;
    for (; reversed & bit; bit >>= 1) reversed ^= bit;
    reversed ^= bit;
    if (index < reversed) {
      [real[index], real[reversed]] = [real[reversed], real[index]];
      [imaginary[index], imaginary[reversed]] = [imaginary[reversed], imaginary[index]];
    }
  }
  for (let half = 1; half < size; half *= 2) {
    for (let offset = 0; offset < half; offset++) {
      const angle = (-Math.PI * offset) / half;
      const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
      for (let low = offset; low < size; low += 2 * half) {
        const high = low + half;
        const re = real[high] * cosine - imaginary[high] * sine;
        const im = real[high] * sine + imaginary[high] * cosine;
        [real[high], imaginary[high]] = [real[low] - re, imaginary[low] - im];
        [real[low], imaginary[low]] = [real[low] + re, imaginary[low] + im];
      }
    }
  }
}

/**
 * Return red, green and blue for 0 to 1: black, violet, orange, light yellow.
 * @param {number} share
 */
export function colour(share) {
  const stops = [
    [0, 0, 4],
    [87, 16, 110],
    [188, 55, 84],
    [249, 142, 9],
    [252, 255, 164],
  ];
  const place = share * (stops.length - 1);
  const index = Math.min(stops.length - 2, Math.floor(place));
  const rest = place - index;
  return stops[index].map((value, channel) => Math.round(value + rest * (stops[index + 1][channel] - value)));
}
