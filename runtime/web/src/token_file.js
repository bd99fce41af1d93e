/** The `.dmc` token file; docs/reference/token-file.md describes the format. */

import { crc32 } from "./crc32.js";
import { TokenFileError } from "./errors.js";

/** @import { TokenFields, Tokens } from "./tokens.js" */

const MAGIC = [0x89, 0x44, 0x4d, 0x43];
const VERSION = 1;
const CHECKED_HEADER_BYTES = 36;
const HEADER_BYTES = 40;
const CRC_BYTES = 4;

/** @param {number} codebookSize */
function codeBits(codebookSize) {
  return Math.ceil(Math.log2(codebookSize));
}

/** @param {Uint8Array} bytes */
function view(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Return the bytes of a token file.
 * @param {Tokens} tokens
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function writeTokenFile(tokens) {
  const payload = packCodes(tokens.codes, tokens.nQ, codeBits(tokens.codebookSize));
  const bytes = new Uint8Array(HEADER_BYTES + payload.length + CRC_BYTES);
  const data = view(bytes);
  bytes.set(MAGIC);
  bytes.set([VERSION, tokens.nQ, tokens.firstLevel, 0], 4);
  data.setUint32(8, tokens.codebookSize, true);
  data.setUint32(12, tokens.hopLength, true);
  data.setUint32(16, tokens.sampleRate, true);
  data.setBigUint64(20, BigInt(tokens.numSamples), true);
  const model = tokens.modelId.padEnd(16, "0");
  for (let index = 0; index < 8; index++) bytes[28 + index] = parseInt(model.slice(2 * index, 2 * index + 2), 16);
  data.setUint32(CHECKED_HEADER_BYTES, crc32(bytes.subarray(0, CHECKED_HEADER_BYTES)), true);
  bytes.set(payload, HEADER_BYTES);
  data.setUint32(HEADER_BYTES + payload.length, crc32(payload), true);
  return bytes;
}

/**
 * Read a token file.
 * @param {Uint8Array} bytes the whole file
 * @param {string} name of the file, for errors
 * @returns {TokenFields}
 * @throws {TokenFileError} not a token file, cut short, or altered
 */
export function readTokenFile(bytes, name) {
  const header = readHeader(bytes, name);
  const { nQ, codebookSize, numSamples, hopLength } = header;
  const bits = codeBits(codebookSize);
  const frames = Math.ceil(numSamples / hopLength);
  const payloadBytes = Math.ceil((frames * nQ * bits) / 8);
  const expected = HEADER_BYTES + payloadBytes + CRC_BYTES;
  if (bytes.length !== expected) {
    const problem = bytes.length < expected ? "cut short" : "longer than its header says";
    throw new TokenFileError(`${name}: ${problem} (${bytes.length} bytes, not ${expected})`);
  }
  const payload = bytes.subarray(HEADER_BYTES, HEADER_BYTES + payloadBytes);
  if (view(bytes).getUint32(HEADER_BYTES + payloadBytes, true) !== crc32(payload)) {
    throw new TokenFileError(`${name}: the checksum of its codes doesn't match; the file was altered or damaged`);
  }
  const unused = payloadBytes * 8 - frames * nQ * bits;
  if (payloadBytes && payload[payloadBytes - 1] & ((1 << unused) - 1)) {
    throw new TokenFileError(`${name}: bits behind the last code are set; not written by a conforming writer`);
  }
  const codes = unpackCodes(payload, nQ, frames, bits);
  for (const code of codes) {
    if (code >= codebookSize) {
      throw new TokenFileError(`${name}: code ${code} is out of range, 0 to ${codebookSize - 1}`);
    }
  }
  return { ...header, codes };
}

/**
 * @param {Uint8Array} bytes
 * @param {string} name
 */
function readHeader(bytes, name) {
  if (bytes.length < 4 || MAGIC.some((byte, index) => bytes[index] !== byte)) {
    throw new TokenFileError(`${name}: not a token file (.dmc)`);
  }
  if (bytes.length < HEADER_BYTES) throw new TokenFileError(`${name}: cut short within its header`);
  if (bytes[4] > VERSION) {
    throw new TokenFileError(`${name}: token file version ${bytes[4]}, this runtime reads up to ${VERSION}; update it`);
  }
  const data = view(bytes);
  if (data.getUint32(CHECKED_HEADER_BYTES, true) !== crc32(bytes.subarray(0, CHECKED_HEADER_BYTES))) {
    throw new TokenFileError(`${name}: the header's checksum doesn't match; the file was altered or damaged`);
  }
  const numSamples = data.getBigUint64(20, true);
  const model = Array.from(bytes.subarray(28, 36), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const header = {
    nQ: bytes[5],
    firstLevel: bytes[6],
    codebookSize: data.getUint32(8, true),
    hopLength: data.getUint32(12, true),
    sampleRate: data.getUint32(16, true),
    numSamples: Number(numSamples),
    modelId: /^0+$/.test(model) ? "" : model,
  };
  const sizes = header.codebookSize >= 2 && header.codebookSize <= 65536 && header.hopLength && header.sampleRate;
  const levels = header.nQ && header.nQ + header.firstLevel <= 255;
  if (!bytes[4] || bytes[7] || !sizes || !levels || numSamples > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new TokenFileError(`${name}: its header holds values out of range; not written by a conforming writer`);
  }
  return header;
}

/**
 * Pack codes frame by frame, most significant bit first.
 * @param {Uint16Array} codes nQ x frames
 * @param {number} nQ
 * @param {number} bits of a code
 */
function packCodes(codes, nQ, bits) {
  const frames = codes.length / nQ;
  const bytes = new Uint8Array(Math.ceil((codes.length * bits) / 8));
  let position = 0;
  for (let frame = 0; frame < frames; frame++) {
    for (let level = 0; level < nQ; level++) {
      const code = codes[level * frames + frame];
      for (let bit = bits - 1; bit >= 0; bit--, position++) {
        if ((code >> bit) & 1) bytes[position >> 3] |= 0x80 >> (position & 7);
      }
    }
  }
  return bytes;
}

/**
 * @param {Uint8Array} bytes
 * @param {number} nQ
 * @param {number} frames
 * @param {number} bits
 */
function unpackCodes(bytes, nQ, frames, bits) {
  const codes = new Uint16Array(nQ * frames);
  let position = 0;
  for (let frame = 0; frame < frames; frame++) {
    for (let level = 0; level < nQ; level++) {
      let code = 0;
      for (let bit = 0; bit < bits; bit++, position++) {
        code = (code << 1) | ((bytes[position >> 3] >> (7 - (position & 7))) & 1);
      }
      codes[level * frames + frame] = code;
    }
  }
  return codes;
}
