/**
 * Drives the page in headless Chromium and writes down what it did: `node page_proof.js OPTIONS.json`.
 *
 * tests/test_web_page.py runs it and compares with the Python runtime. Options: url, chromium, wav, tokens (a .dmc of
 * Python), broken and silent (files that the page must refuse), out (folder for saved files and screenshots).
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { chromium } from "playwright-core";

const options = JSON.parse(await readFile(process.argv[2], "utf8"));
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--autoplay-policy=no-user-gesture-required",
];
const MICROPHONE = [
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  `--use-file-for-fake-audio-capture=${options.wav}`,
];

/** @param {string[]} flags */
async function open(flags, settings = {}) {
  const browser = await chromium.launch({ executablePath: options.chromium, args: [...FLAGS, ...flags] });
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...settings });
  const page = await context.newPage();
  page.setDefaultTimeout(120000);
  return { browser, context, page };
}

/** @param {import("playwright-core").Page} page */
async function loaded(page) {
  await page.goto(options.url);
  await page.evaluate(() => /** @type {any} */ (window).dmcodec.loaded);
}

/** Return what the page works on: samples as base64 of float32, codes as numbers. */
/** @param {import("playwright-core").Page} page */
function read(page) {
  return page.evaluate(() => {
    const { state } = /** @type {any} */ (window).dmcodec;
    const base64 = (/** @type {Float32Array | undefined} */ samples) => {
      if (!samples) return null;
      let text = "";
      for (const byte of new Uint8Array(samples.buffer)) text += String.fromCharCode(byte);
      return btoa(text);
    };
    return { original: base64(state.original), decoded: base64(state.decoded), codes: [...state.tokens.codes] };
  });
}

/** @param {import("playwright-core").Page} page */
async function idle(page) {
  await page.waitForFunction(() => {
    const [status, problem] = ["status", "problem"].map((id) => /** @type {any} */ (document.getElementById(id)));
    if (!problem.hidden) throw new Error(problem.textContent);
    return / levels\.$/.test(status.textContent);
  });
}

/**
 * @param {import("playwright-core").Page} page
 * @param {string} file
 */
async function choose(page, file) {
  await page.evaluate(() => (/** @type {any} */ (document.getElementById("status")).textContent = ""));
  await page.setInputFiles("#file", file);
}

const results = /** @type {Record<string, any>} */ ({ errors: [], hosts: [] });
const { browser, context, page } = await open(MICROPHONE);
const hosts = new Set();
page.on("pageerror", (error) => results.errors.push(String(error)));
context.on("request", (request) => hosts.add(new URL(request.url()).host));
await loaded(page);

await choose(page, options.wav);
await idle(page);
results.file = await read(page);
await page.click("#play");
results.playing = await page.textContent("#play");
await page.keyboard.press("s");
results.switched = await page.getAttribute("#hear-decoded", "aria-pressed");
await page.screenshot({ path: join(options.out, "wide.png"), fullPage: true });
await page.click("#play");
const saving = page.waitForEvent("download");
await page.click("#save");
await (await saving).saveAs(join(options.out, "saved.dmc"));

await page.evaluate(() => (/** @type {any} */ (document.getElementById("status")).textContent = ""));
await page.focus("#levels");
for (let press = 0; press < 5; press++) await page.keyboard.press("ArrowLeft");
await page.waitForFunction(() => /^3 of /.test(document.getElementById("bitrate")?.textContent ?? ""));
await idle(page);
results.threeLevels = await read(page);

await choose(page, options.tokens);
await idle(page);
results.tokens = await read(page);

results.stream = await page.evaluate(async () => {
  const { CodecClient } = await import(/** @type {string} */ (new URL("src/client.js", location.href).href));
  const { state } = /** @type {any} */ (window).dmcodec;
  const client = await CodecClient.load("bundle/", { ortModule: "ort/ort.wasm.min.mjs", wasmFolder: "ort/" });
  const whole = (await client.decode(state.tokens)).samples;
  const stream = await client.streamDecoder();
  /** @type {number[]} */
  const audio = [];
  for (let first = 0; first < state.tokens.numFrames; first += 6) {
    const count = Math.min(6, state.tokens.numFrames - first);
    const codes = new Uint16Array(8 * count);
    for (let level = 0; level < 8; level++) {
      codes.set(state.tokens.level(level).subarray(first, first + count), level * count);
    }
    audio.push(...(await stream.push(codes)));
  }
  audio.push(...(await stream.finish()));
  client.close();
  return Math.max(...whole.map((/** @type {number} */ sample, /** @type {number} */ at) => Math.abs(sample - audio[at])));
});

for (const name of ["broken", "silent"]) {
  await choose(page, options[name]);
  await page.waitForSelector("#problem:not([hidden])");
  results[name] = await page.textContent("#problem");
}

await page.click("#record");
await page.waitForFunction(() => /Recording, 1\.[5-9]/.test(document.getElementById("status")?.textContent ?? ""));
await page.click("#record");
await idle(page);
results.microphone = await read(page);

await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
await loaded(page); // through the service worker, which keeps everything now
await context.setOffline(true);
await loaded(page);
await page.click("#sample");
await idle(page);
results.offline = await page.textContent("#status");
await browser.close();

const phone = await open([], { viewport: { width: 390, height: 800 }, colorScheme: "dark" });
await loaded(phone.page);
await phone.page.click("#sample");
await idle(phone.page);
results.overflow = await phone.page.evaluate(() => document.documentElement.scrollWidth);
await phone.page.screenshot({ path: join(options.out, "phone.png"), fullPage: true });
await phone.page.click("#record");
await phone.page.waitForSelector("#problem:not([hidden])");
results.refused = await phone.page.textContent("#problem");
await phone.browser.close();

results.hosts = [...hosts];
process.stdout.write(JSON.stringify(results));
