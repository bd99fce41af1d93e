/**
 * Resampling by a windowed sinc (Kaiser window; J. O. Smith, Digital Audio Resampling), for clips that are held whole.
 *
 * The package in Python resamples with soxr. The two agree to about 100 dB, and not to the last bit: send audio at the
 * codec's own rate where its tokens must be the same.
 */

const ZERO_CROSSINGS = 48; // of the sinc on each side
const BETA = 12; // of the Kaiser window: 118 dB of attenuation
const ROLL_OFF = 0.96; // the pass band ends at this share of the lower rate's half

/**
 * Resample a waveform.
 * @param {Float32Array} samples
 * @param {number} from sample rate in Hz
 * @param {number} to sample rate in Hz
 * @returns {Float32Array} round(samples x to / from) samples, at least one
 */
export function resample(samples, from, to) {
  if (from === to) return samples;
  const divisor = greatestCommonDivisor(from, to);
  const [step, phases] = [from / divisor, to / divisor];
  const cutoff = Math.min(1, to / from) * ROLL_OFF;
  const half = Math.ceil(ZERO_CROSSINGS / cutoff);
  const kernels = new Map();
  const output = new Float32Array(Math.max(1, Math.round((samples.length * to) / from)));
  for (let index = 0; index < output.length; index++) {
    const position = index * step;
    const phase = position % phases;
    const centre = (position - phase) / phases;
    if (!kernels.has(phase)) kernels.set(phase, kernel(phase / phases, half, cutoff));
    const weights = kernels.get(phase);
    const first = Math.max(0, centre - half + 1);
    const last = Math.min(samples.length - 1, centre + half);
    let sum = 0;
    for (let at = first; at <= last; at++) sum += samples[at] * weights[at - centre + half - 1];
    output[index] = sum;
  }
  return output;
}

/**
 * Return the weights of the 2 x half samples around a position `fraction` after a sample.
 * @param {number} fraction
 * @param {number} half
 * @param {number} cutoff share of the input's half rate
 */
function kernel(fraction, half, cutoff) {
  const weights = new Float64Array(2 * half);
  let sum = 0;
  for (let index = 0; index < weights.length; index++) {
    const distance = index - (half - 1) - fraction;
    const angle = Math.PI * distance * cutoff;
    const sinc = angle === 0 ? 1 : Math.sin(angle) / angle;
    const place = Math.min(1, Math.abs(distance / half));
    weights[index] = sinc * bessel(BETA * Math.sqrt(1 - place * place));
    sum += weights[index];
  }
  return weights.map((weight) => weight / sum);
}

/**
 * Return the modified Bessel function of the first kind and order 0.
 * @param {number} x
 */
function bessel(x) {
  let sum = 1;
  for (let term = 1, k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/**
 * @param {number} a
 * @param {number} b
 * @returns {number}
 */
function greatestCommonDivisor(a, b) {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
