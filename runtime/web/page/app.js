/** The page: speech in, tokens, speech out. */

import { CodecClient, DmcodecError, Tokens } from "../src/client.js";
import { decodeFile } from "./audio_file.js";
import { Player } from "./player.js";
import { startRecording } from "./recorder.js";
import { drawSpectrogram } from "./spectrogram.js";
import { drawTokens } from "./token_picture.js";
import { wavFile } from "./wav.js";

/** @import { Recording } from "./recorder.js" */

const MAX_S = 600;

const element = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const canvas = (/** @type {string} */ id) => /** @type {HTMLCanvasElement} */ (element(id).querySelector("canvas"));

/** @type {CodecClient} */
let codec;
/** @type {Blob} */
let sample;
/** @type {Recording | undefined} */
let recording;
/**
 * What the page shows. `original` is missing where tokens were opened.
 * @type {{ name: string, original?: Float32Array<ArrayBuffer>, tokens?: Tokens, decoded?: Float32Array<ArrayBuffer> }}
 */
const state = { name: "speech" };
/** @type {{ encode?: number, decode?: number }} seconds that the last runs took */
const times = {};
const player = new Player(onPlayer);
/** @type {Promise<unknown>} */
let work = Promise.resolve();

async function load() {
  const bar = element("load-progress");
  try {
    codec = await CodecClient.load("bundle/", {
      ortModule: "ort/ort.wasm.min.mjs",
      wasmFolder: "ort/",
      onProgress: (loaded, total) => (bar.value = loaded / total),
    });
    bar.removeAttribute("value");
    element("load-text").textContent = "Starting the codec";
    await codec.warmUp();
    sample = await (await fetch("sample.flac")).blob(); // now, so that it is there offline
  } catch (error) {
    element("loading").hidden = true;
    showProblem(error);
    return;
  }
  element("loading").hidden = true;
  for (const id of ["record", "choose", "sample"]) element(id).disabled = false;
  element("levels").max = element("levels").value = String(codec.nQ);
  say("Ready.");
}

/**
 * Run one thing after the other; show what goes wrong.
 * @param {() => Promise<void>} job
 */
function run(job) {
  element("problem").hidden = true;
  work = work.then(job).catch(showProblem);
}

/** @param {unknown} error */
function showProblem(error) {
  const known = error instanceof DmcodecError;
  const text = known ? error.message : `Something went wrong (${error}). Reload the page and try again.`;
  element("problem").textContent = text.charAt(0).toUpperCase() + text.slice(1);
  element("problem").hidden = false;
  say("");
}

/** @param {string} text */
function say(text) {
  element("status").textContent = text;
}

async function toggleRecording() {
  if (recording) {
    const running = recording;
    recording = undefined;
    showRecording(false);
    const { samples, sampleRate } = await running.stop();
    await encode(samples, sampleRate, "recording");
    return;
  }
  recording = await startRecording((seconds) => {
    say(`Recording, ${seconds.toFixed(1)} s. Press Stop when you are done.`);
    if (seconds > MAX_S && recording) run(toggleRecording);
  });
  showRecording(true);
}

/** @param {boolean} on */
function showRecording(on) {
  element("record").textContent = on ? "Stop" : "Record";
  element("record").classList.toggle("recording", on);
}

/** @param {File} file */
async function open(file) {
  const name = file.name.replace(/\.[^.]*$/, "") || "speech";
  if (file.name.toLowerCase().endsWith(".dmc")) {
    const tokens = Tokens.load(await file.arrayBuffer(), file.name);
    Object.assign(state, { name, original: undefined, tokens, decoded: undefined });
    times.encode = undefined;
    await decode();
    return;
  }
  say(`Reading ${file.name}`);
  await encode(await decodeFile(file, codec.sampleRate), codec.sampleRate, name);
}

/**
 * @param {Float32Array | Float32Array[]} audio
 * @param {number} sampleRate
 * @param {string} name
 */
async function encode(audio, sampleRate, name) {
  const channels = Array.isArray(audio) ? audio : [audio];
  if (channels[0].length > MAX_S * sampleRate) {
    throw new DmcodecError(`The clip is longer than ${MAX_S / 60} minutes. Use \`dmcodec encode\` for long files.`);
  }
  say("Encoding");
  const original = await codec.prepare(audio, sampleRate);
  const { tokens, seconds } = await codec.encode(original, codec.sampleRate, {
    onProgress: (share) => say(`Encoding, ${Math.round(100 * share)} %`),
  });
  Object.assign(state, { name, original, tokens });
  times.encode = seconds;
  await decode();
}

async function decode() {
  const tokens = state.tokens;
  if (!tokens) return;
  say("Decoding");
  const nQ = heardLevels();
  const { samples, seconds } = await codec.decode(tokens, {
    nQ,
    onProgress: (share) => say(`Decoding, ${Math.round(100 * share)} %`),
  });
  state.decoded = samples;
  times.decode = seconds;
  show(tokens, nQ);
}

function heardLevels() {
  return Math.min(Number(element("levels").value), state.tokens?.nQ ?? codec.nQ);
}

/**
 * @param {Tokens} tokens
 * @param {number} nQ
 */
function show(tokens, nQ) {
  element("result").hidden = false;
  element("original").hidden = element("hear-original").disabled = !state.original;
  const clips = { ...(state.original && { original: state.original }), decoded: state.decoded };
  const playing = player.playing;
  player.setClips(/** @type {any} */ (clips), tokens.sampleRate);
  hear(state.original ? player.heard : "decoded");
  if (state.original) drawSpectrogram(canvas("original"), state.original);
  if (state.decoded) drawSpectrogram(canvas("decoded"), state.decoded);
  drawTokens(canvas("tokens"), tokens, nQ);
  const bitrate = (tokens.bitrateBps / tokens.nQ) * nQ;
  element("levels").max = String(tokens.nQ); // a higher value becomes this one
  element("bitrate").textContent = `${nQ} of ${tokens.nQ}, ${bitrate / 1000} kbit/s`;
  showFigures(tokens, nQ);
  if (playing) run(() => player.play());
  say(`${state.name}: ${tokens.durationS.toFixed(2)} s, ${tokens.numFrames} frames x ${tokens.nQ} levels.`);
}

/**
 * @param {Tokens} tokens
 * @param {number} nQ
 */
function showFigures(tokens, nQ) {
  const speed = (/** @type {number | undefined} */ seconds) =>
    seconds === undefined ? "-" : `${seconds.toFixed(2)} s, RTF ${(seconds / tokens.durationS).toFixed(3)}`;
  const pcm = 2 * tokens.numSamples;
  const bytes = tokens.firstLevels(nQ).save().length;
  const figures = {
    Encode: speed(times.encode),
    Decode: speed(times.decode),
    Size: `${bytes} bytes, 1/${Math.round(pcm / bytes)} of the 16-bit samples`,
    Model: codec.modelId,
  };
  element("figures").replaceChildren(
    ...Object.entries(figures).map(([name, value]) => {
      const group = document.createElement("div");
      const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
      [term.textContent, detail.textContent] = [name, value];
      group.append(term, detail);
      return group;
    }),
  );
}

/** @param {"original" | "decoded"} version */
function hear(version) {
  if (version === "original" && !state.original) return;
  player.hear(version);
  for (const name of ["original", "decoded"]) {
    element(`hear-${name}`).setAttribute("aria-pressed", String(name === version));
    element(name).classList.toggle("heard", name === version);
  }
}

function onPlayer() {
  element("play").textContent = player.playing ? "Stop" : "Play";
  moveCursors();
}

function moveCursors() {
  for (const cursor of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".cursor"))) {
    cursor.hidden = !player.playing;
    cursor.style.left = `${100 * player.position}%`;
  }
  if (player.playing) requestAnimationFrame(moveCursors);
}

/**
 * @param {BlobPart} content
 * @param {string} name
 */
function download(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content]));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function togglePlaying() {
  if (player.playing) player.stop();
  else run(() => player.play());
}

function listen() {
  element("record").onclick = () => run(toggleRecording);
  element("choose").onclick = () => element("file").click();
  element("file").onchange = () => {
    const [file] = element("file").files;
    element("file").value = "";
    if (file) run(() => open(file));
  };
  element("sample").onclick = () => run(() => open(new File([sample], "sample.flac")));
  element("play").onclick = togglePlaying;
  element("hear-original").onclick = () => hear("original");
  element("hear-decoded").onclick = () => hear("decoded");
  element("levels").onchange = () => {
    const wanted = element("levels").value;
    run(async () => {
      if (element("levels").value === wanted) await decode(); // else a later change is waiting
    });
  };
  element("levels").oninput = () => {
    const nQ = heardLevels();
    element("bitrate").textContent = `${nQ} levels`;
  };
  element("save").onclick = () =>
    state.tokens && download(state.tokens.firstLevels(heardLevels()).save(), `${state.name}.dmc`);
  element("save-audio").onclick = () =>
    state.decoded && download(wavFile(state.decoded, codec.sampleRate), `${state.name}.wav`);
  document.onkeydown = (event) => {
    const typing = event.target instanceof HTMLButtonElement || event.target instanceof HTMLInputElement;
    if (element("result").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && !typing) {
      event.preventDefault();
      togglePlaying();
    }
    if (event.key.toLowerCase() === "s") hear(player.heard === "original" ? "decoded" : "original");
  };
  const main = /** @type {HTMLElement} */ (document.querySelector("main"));
  document.ondragover = (event) => {
    event.preventDefault();
    main.classList.add("dropping");
  };
  document.ondragleave = () => main.classList.remove("dropping");
  document.ondrop = (event) => {
    event.preventDefault();
    main.classList.remove("dropping");
    const file = event.dataTransfer?.files[0];
    if (file && codec) run(() => open(file));
  };
}

if ("serviceWorker" in navigator) navigator.serviceWorker.register("service_worker.js").catch(() => {});
listen();
// Tests read the samples and the tokens that the page works on.
Object.assign(window, { dmcodec: { state, loaded: load() } });
