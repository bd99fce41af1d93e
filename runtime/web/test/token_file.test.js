import assert from "node:assert/strict";
import { test } from "node:test";

import { crc32 } from "../src/crc32.js";
import { Tokens, TokenFileError, TokensError } from "../src/index.js";
import { fixture } from "./support.js";

/**
 * @param {number} codebookSize
 * @param {number} nQ
 * @param {number} frames
 */
function someTokens(codebookSize, nQ, frames) {
  const codes = Uint16Array.from({ length: nQ * frames }, (_, index) => (index * 7919) % codebookSize);
  const numSamples = frames ? frames * 320 - 5 : 0;
  return new Tokens({ codes, nQ, numSamples, sampleRate: 16000, hopLength: 320, codebookSize, modelId: "0123456789abcdef" });
}

test("crc32 is zlib's", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
});

test("a file that Python wrote is read and written again to the same bytes", async () => {
  const bytes = await fixture("speech.dmc");
  const tokens = Tokens.load(bytes);
  assert.equal(tokens.nQ, 8);
  assert.equal(tokens.sampleRate, 16000);
  assert.match(tokens.modelId, /^[0-9a-f]{16}$/);
  assert.deepEqual(tokens.save(), bytes);
});

for (const [codebookSize, nQ, frames] of [[1024, 8, 37], [2, 1, 9], [3, 3, 5], [65536, 2, 4], [1000, 5, 1], [1024, 8, 0]]) {
  test(`${nQ} x ${frames} codes of ${codebookSize} come back`, () => {
    const tokens = someTokens(codebookSize, nQ, frames);
    assert.deepEqual(Tokens.load(tokens.save()), tokens);
  });
}

test("every altered byte and every cut is found", async () => {
  const bytes = someTokens(1024, 3, 7).save();
  for (let at = 0; at < bytes.length; at++) {
    const altered = bytes.slice();
    altered[at] ^= 0x10;
    assert.throws(() => Tokens.load(altered, "x.dmc"), TokenFileError, `byte ${at}`);
    assert.throws(() => Tokens.load(bytes.subarray(0, at), "x.dmc"), /x\.dmc: (not a token file|cut short)/);
  }
  const longer = new Uint8Array([...bytes, 0]);
  assert.throws(() => Tokens.load(longer, "x.dmc"), /longer than its header says/);
});

test("a header with a huge length costs nothing", () => {
  const bytes = someTokens(1024, 8, 3).save();
  new DataView(bytes.buffer).setBigUint64(20, 2n ** 50n, true);
  new DataView(bytes.buffer).setUint32(36, crc32(bytes.subarray(0, 36)), true);
  assert.throws(() => Tokens.load(bytes, "x.dmc"), /cut short/);
});

test("levels and wrong values", () => {
  const tokens = someTokens(1024, 8, 10);
  assert.deepEqual(tokens.firstLevels(3).level(2), tokens.level(2));
  assert.equal(tokens.firstLevels(2).bitrateBps, 1000);
  assert.throws(() => tokens.firstLevels(9), TokensError);
  assert.throws(() => new Tokens({ ...tokens, codes: tokens.codes.slice(1) }), /need 8 x 10 codes/);
  assert.throws(() => new Tokens({ ...tokens, codebookSize: 64 }), /out of range/);
  assert.throws(() => new Tokens({ ...tokens, modelId: "xyz" }), /16 hex digits/);
});
