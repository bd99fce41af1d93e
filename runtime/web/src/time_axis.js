/** Arrays of rows x length, with time as the last axis: joined, cut, and padded along it. */

/** @import { Rows } from "./stream_decoder.js" */

/**
 * Join two arrays of the same rows.
 * @param {Rows} left
 * @param {Rows} right
 * @returns {Rows}
 */
export function join(left, right) {
  const length = left.length + right.length;
  const data = new Float32Array(left.rows * length);
  for (let row = 0; row < left.rows; row++) {
    data.set(left.data.subarray(row * left.length, (row + 1) * left.length), row * length);
    data.set(right.data.subarray(row * right.length, (row + 1) * right.length), row * length + left.length);
  }
  return { data, rows: left.rows, length };
}

/**
 * Return the columns from `first` on.
 * @param {Rows} array
 * @param {number} first
 * @returns {Rows}
 */
export function slice(array, first) {
  return gather(array, array.length - first, (column) => column + first);
}

/**
 * Pad by reflection at both ends. An array that is too short is first extended with zeros, as in the trained model.
 * @param {Rows} array
 * @param {number} left
 * @param {number} right
 * @returns {Rows}
 */
export function reflectEnds(array, left, right) {
  const extended = Math.max(array.length, Math.max(left, right) + 1);
  return gather(array, left + array.length + right, (column) => {
    const position = column - left;
    if (position < 0) return -position;
    return position < extended ? position : 2 * (extended - 1) - position;
  });
}

/**
 * @param {Rows} array
 * @param {number} length of the result
 * @param {(column: number) => number} source column; zero where it is beyond the array
 * @returns {Rows}
 */
function gather(array, length, source) {
  const data = new Float32Array(array.rows * length);
  for (let column = 0; column < length; column++) {
    const from = source(column);
    if (from >= array.length) continue;
    for (let row = 0; row < array.rows; row++) data[row * length + column] = array.data[row * array.length + from];
  }
  return { data, rows: array.rows, length };
}
