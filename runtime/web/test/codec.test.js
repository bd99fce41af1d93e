import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { ArgumentError, AudioError, BundleError, Codec, StreamError, Tokens, TokensError } from "../src/index.js";
import { Bundle } from "../src/bundle.js";
import { Graphs } from "../src/graphs.js";
import { latentsInParts } from "../src/sweeps.js";
import { BUNDLE, fixture, largestDifference, samples } from "./support.js";

/** @type {Codec} */
let codec;
/** @type {string} */
let folder;

before(async () => {
  codec = await Codec.load(BUNDLE);
  folder = await mkdtemp(join(tmpdir(), "dmcodec-"));
});
after(async () => {
  await codec.close();
  await rm(folder, { recursive: true });
});

test("codes and audio are those of Python", async () => {
  const expected = Tokens.load(await fixture("speech.dmc"));
  const tokens = await codec.encode(await samples("speech.raw"), 16000);
  assert.deepEqual(tokens, expected);
  const decoded = await codec.decode(expected);
  const reference = Float32Array.from(await samples("decoded.raw"), (value) => value / 32768);
  assert.ok(largestDifference(decoded, reference) < 1e-4);
});

test("fewer levels are the first rows", async () => {
  const speech = await samples("speech.raw");
  const all = await codec.encode(speech, 16000);
  const two = await codec.encode(speech, 16000, { nQ: 2 });
  assert.deepEqual(two, all.firstLevels(2));
  assert.deepEqual(await codec.decode(all, { nQ: 2 }), await codec.decode(two));
});

test("float, int16 and two equal channels are one waveform", async () => {
  const speech = await samples("speech.raw");
  const floats = Float32Array.from(speech, (value) => value / 32768);
  const expected = await codec.encode(speech, 16000);
  for (const audio of [floats, Float64Array.from(floats), [floats, floats]]) {
    assert.deepEqual(await codec.encode(audio, 16000), expected);
  }
});

test("a stream in pushes of any size is the whole", async () => {
  const tokens = Tokens.load(await fixture("speech.dmc"));
  const whole = await codec.decode(tokens);
  for (const size of [1, 7, 50]) {
    const stream = codec.streamDecoder();
    /** @type {number[]} */
    const audio = [];
    for (let first = 0; first < tokens.numFrames; first += size) {
      const count = Math.min(size, tokens.numFrames - first);
      const codes = new Uint16Array(8 * count);
      for (let level = 0; level < 8; level++) {
        codes.set(tokens.level(level).subarray(first, first + count), level * count);
      }
      audio.push(...(await stream.push(codes)));
      assert.ok(audio.length >= (first + count - stream.lookAheadFrames) * codec.hopLength);
    }
    audio.push(...(await stream.finish()));
    assert.equal(audio.length, tokens.numFrames * codec.hopLength);
    assert.ok(largestDifference(audio.slice(0, whole.length), whole) < 1e-5, `pushes of ${size}`);
  }
});

test("a stream refuses what it can't take, and goes on", async () => {
  const stream = codec.streamDecoder({ nQ: 2 });
  await assert.rejects(stream.push(new Uint16Array(3)), TokensError);
  await assert.rejects(stream.push(new Uint16Array(0)), TokensError);
  await assert.rejects(stream.push(Uint16Array.of(1, 1024)), /code 1024 is out of range/);
  const running = stream.push(Uint16Array.of(1, 2));
  await assert.rejects(stream.push(Uint16Array.of(1, 2)), StreamError);
  await running;
  assert.equal((await stream.finish()).length, codec.hopLength);
  await assert.rejects(stream.push(Uint16Array.of(1, 2)), /push after finish/);
  await assert.rejects(stream.finish(), StreamError);
  stream.reset();
  assert.equal((await stream.push(Uint16Array.of(1, 2))).length, 0);
  assert.throws(() => codec.streamDecoder({ nQ: 9 }), ArgumentError);
});

test("the encoder in parts is the encoder in one piece, for any size of block", async () => {
  const bundle = await Bundle.open(BUNDLE);
  const graphs = new Graphs(bundle, await import("onnxruntime-web/wasm"));
  const waveform = Float32Array.from(await samples("speech.raw"), (value) => value / 32768);
  const [whole] = await graphs.run("encoder", {
    waveform: { data: waveform, dims: [1, 1, waveform.length] },
    lengths: { data: BigInt64Array.of(BigInt(waveform.length)), dims: [1] },
  });
  const [, dimension, frames] = whole.dims;
  const peak = Math.max(.../** @type {Float32Array} */ (whole.data).map(Math.abs));
  for (const block of [7, 64, 1000]) {
    let first = 0;
    for await (const part of latentsInParts(graphs, waveform, undefined, block)) {
      for (let row = 0; row < dimension; row++) {
        const expected = /** @type {Float32Array} */ (whole.data).slice(row * frames + first, row * frames + first + part.frames);
        const got = part.latents.slice(row * part.frames, (row + 1) * part.frames);
        assert.ok(largestDifference(got, expected) < 1e-5 * peak, `blocks of ${block}`);
      }
      first += part.frames;
    }
    assert.equal(first, frames);
  }
  await graphs.close();
});

test("an engine without WebAssembly SIMD gets a sentence", async (context) => {
  context.mock.method(WebAssembly, "validate", () => false);
  await assert.rejects(Codec.load(BUNDLE), /no WebAssembly SIMD; use a current/);
});

test("a long clip runs in parts with the result of one piece", async () => {
  const speech = await samples("speech.raw");
  const long = new Int16Array(16 * speech.length); // 32 s: over the limit of one piece
  for (let at = 0; at < 16; at++) long.set(speech, at * speech.length);
  /** @type {number[]} */
  const shares = [];
  const tokens = await codec.encode(long, 16000, { onProgress: (share) => shares.push(share) });
  assert.deepEqual(shares, [...shares].sort((a, b) => a - b));
  // The clip's start hardly depends on what follows after thirty seconds.
  const start = await codec.encode(long.subarray(0, 29 * 16000), 16000);
  const frames = 20 * 50;
  let equal = 0;
  for (let frame = 0; frame < frames; frame++) equal += Number(tokens.level(0)[frame] === start.level(0)[frame]);
  assert.ok(equal / frames > 0.98, `level 0 agrees on ${equal} of ${frames} frames`);
  const audio = await codec.decode(tokens);
  assert.equal(audio.length, long.length);
});

test("wrong audio and arguments", async () => {
  const second = new Float32Array(16000);
  await assert.rejects(codec.encode(new Float32Array(0), 16000), AudioError);
  await assert.rejects(codec.encode(Float32Array.of(NaN), 16000), /NaN/);
  await assert.rejects(codec.encode(/** @type {any} */ ([1, 2]), 16000), AudioError);
  await assert.rejects(codec.encode([second, second.subarray(1)], 16000), /different lengths/);
  await assert.rejects(codec.encode(second, 0), /sample rate/);
  await assert.rejects(codec.encode(second, 16000, { nQ: 9 }), ArgumentError);
  const tokens = await codec.encode(second.subarray(0, 1), 16000);
  assert.equal(tokens.numFrames, 1);
  await assert.rejects(codec.decode(new Tokens({ ...tokens, modelId: "00000000000000ff" })), /modelId/);
  await assert.rejects(codec.decode(new Tokens({ ...tokens, firstLevel: 1 })), TokensError);
  assert.equal((await codec.decode(new Tokens({ ...tokens, modelId: "" }))).length, 1);
});

test("other sample rates are resampled", async () => {
  const tone = (/** @type {number} */ rate) =>
    Float32Array.from({ length: rate }, (_, at) => 0.5 * Math.sin((2 * Math.PI * 440 * at) / rate));
  const { prepareWaveform } = await import("../src/audio.js");
  for (const rate of [8000, 22050, 44100, 48000]) {
    const resampled = prepareWaveform(tone(rate), rate, 16000);
    assert.equal(resampled.length, 16000);
    const middle = [resampled.subarray(2000, 14000), tone(16000).subarray(2000, 14000)];
    assert.ok(largestDifference(middle[0], middle[1]) < 1e-4, `${rate} Hz`);
  }
  const high = Float32Array.from({ length: 48000 }, (_, at) => Math.sin((2 * Math.PI * 12000 * at) / 48000));
  const left = prepareWaveform(high, 48000, 16000).subarray(500, 15500);
  assert.ok(Math.max(...left.map(Math.abs)) < 1e-4, "what is above 8 kHz is gone");
});

/** @param {(copy: string) => Promise<void>} change */
async function alteredBundle(change) {
  const copy = join(folder, String(Math.random()));
  await cp(BUNDLE, copy, { recursive: true });
  await change(copy);
  return Codec.load(copy);
}

test("a bundle that is missing, altered or newer is refused", async () => {
  await assert.rejects(Codec.load(join(folder, "nowhere")), BundleError);
  const cut = alteredBundle(async (copy) => writeFile(join(copy, "weights.bin"), "x"));
  await assert.rejects(cut, /weights\.bin was altered or cut/);
  const graph = alteredBundle(async (copy) => {
    const bytes = await readFile(join(copy, "quantizer.onnx"));
    bytes[bytes.length - 1] ^= 1;
    await writeFile(join(copy, "quantizer.onnx"), bytes);
  });
  await assert.rejects(graph, /quantizer\.onnx was altered/);
  const edit = (/** @type {(text: string) => string} */ change) =>
    alteredBundle(async (copy) => {
      const path = join(copy, "manifest.json");
      await writeFile(path, change(await readFile(path, "utf8")));
    });
  await assert.rejects(edit((text) => text.replace('"n_q": 8', '"n_q": 7')), /altered after the export/);
  await assert.rejects(edit((text) => text.replace('"format_version": 2', '"format_version": 99')), /reads up to 3/);
  await assert.rejects(edit(() => "{"), /can't be read as a manifest/);
  await assert.rejects(edit(() => "[]"), /not a bundle/);
});
