/** What the tests share. */

import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));

export const BUNDLE = join(HERE, "..", "..", "..", "dmcodec", "data", "dmcodec-small.bundle");

/**
 * Read a fixture; scripts/make_web_fixtures.py makes them.
 * @param {string} name
 */
export async function fixture(name) {
  return new Uint8Array(await readFile(join(HERE, "fixtures", name)));
}

/**
 * Read a fixture of 16-bit samples.
 * @param {string} name
 */
export async function samples(name) {
  return new Int16Array((await fixture(name)).buffer);
}

/**
 * Return the largest difference of two signals.
 * @param {ArrayLike<number>} left
 * @param {ArrayLike<number>} right
 */
export function largestDifference(left, right) {
  let largest = left.length === right.length ? 0 : Infinity;
  for (let index = 0; index < left.length; index++) largest = Math.max(largest, Math.abs(left[index] - right[index]));
  return largest;
}
