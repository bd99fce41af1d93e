/**
 * Measures the runtime in Node and in headless Chromium, on one thread:
 * `npm run bench -- [--bundle BUNDLE] [--seconds 10] [--rounds 5] [--chromium PATH]`. Prints JSON.
 */

import { createReadStream } from "node:fs";
import { access, mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { cpus, loadavg, tmpdir } from "node:os";
import { extname, join } from "node:path";
import { parseArgs } from "node:util";

import { chromium } from "playwright-core";

import { build, DATA } from "./site.js";
import { Codec } from "../src/index.js";

const TYPES = /** @type {Record<string, string>} */ ({
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
  ".css": "text/css",
});

const { values } = parseArgs({
  options: {
    bundle: { type: "string", default: join(DATA, "dmcodec-small.bundle") },
    seconds: { type: "string", default: "10" },
    rounds: { type: "string", default: "5" },
    chromium: { type: "string", default: "/usr/bin/chromium" },
  },
});
const seconds = Number(values.seconds);
const rounds = Number(values.rounds);

/** @param {number[]} numbers */
function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

async function inNode() {
  const start = performance.now();
  const codec = await Codec.load(values.bundle);
  await codec.warmUp();
  const loadS = (performance.now() - start) / 1000;
  const raw = await readFile(new URL("../test/fixtures/speech.raw", import.meta.url));
  const speech = new Int16Array(raw.buffer, raw.byteOffset, raw.length / 2);
  const clip = Int16Array.from({ length: seconds * codec.sampleRate }, (_, at) => speech[at % speech.length]);
  const encode = /** @type {number[]} */ ([]);
  const decode = /** @type {number[]} */ ([]);
  for (let round = 0; round <= rounds; round++) {
    const begin = performance.now();
    const tokens = await codec.encode(clip, codec.sampleRate);
    const middle = performance.now();
    await codec.decode(tokens);
    if (round === 0) continue; // the first run of a length allocates
    encode.push((middle - begin) / 1000 / seconds);
    decode.push((performance.now() - middle) / 1000 / seconds);
  }
  await codec.close();
  return { version: process.version, loadS, encodeRtf: median(encode), decodeRtf: median(decode) };
}

async function inChromium() {
  if (!(await access(values.chromium).then(() => true, () => false))) return null;
  const folder = await mkdtemp(join(tmpdir(), "dmcodec-"));
  const site = join(folder, "site");
  await build(site, values.bundle);
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname);
    const name = path === "/" ? "/index.html" : path;
    response.setHeader("Content-Type", TYPES[extname(name)] ?? "application/octet-stream");
    createReadStream(join(site, name))
      .on("error", () => response.writeHead(404).end())
      .pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  const flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];
  flags.push("--disable-component-update", "--disable-sync", "--disable-quic");
  const browser = await chromium.launch({ executablePath: values.chromium, args: flags });
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${address.port}/`);
  const result = await page.evaluate(measureInPage, { seconds, rounds });
  const version = browser.version();
  await browser.close();
  server.close();
  await rm(folder, { recursive: true });
  const [encodeRtf, decodeRtf] = [median(result.encode), median(result.decode)];
  return { version, loadS: result.loadS, encodeRtf, decodeRtf };
}

/** Runs in the page. @param {{ seconds: number, rounds: number }} options */
async function measureInPage({ seconds, rounds }) {
  const { CodecClient } = await import(/** @type {string} */ (new URL("src/client.js", location.href).href));
  const start = performance.now();
  const codec = await CodecClient.load("bundle/", { ortModule: "ort/ort.wasm.min.mjs", wasmFolder: "ort/" });
  await codec.warmUp();
  const loadS = (performance.now() - start) / 1000;
  const context = new OfflineAudioContext(1, 1, codec.sampleRate);
  const audio = await context.decodeAudioData(await (await fetch("sample.flac")).arrayBuffer());
  const speech = audio.getChannelData(0);
  const clip = Float32Array.from({ length: seconds * codec.sampleRate }, (_, at) => speech[at % speech.length]);
  const encode = [];
  const decode = [];
  for (let round = 0; round <= rounds; round++) {
    const encoded = await codec.encode(clip, codec.sampleRate);
    const decoded = await codec.decode(encoded.tokens);
    if (round === 0) continue;
    encode.push(encoded.seconds / seconds);
    decode.push(decoded.seconds / seconds);
  }
  return { loadS, encode, decode };
}

const machine = { cpu: cpus()[0].model, cpus: cpus().length, load: loadavg()[0], date: new Date().toISOString() };
console.log(JSON.stringify({ machine, seconds, rounds, node: await inNode(), chromium: await inChromium() }, null, 1));
