/**
 * Builds the page as one folder of static files: `npm run build -- --out FOLDER [--bundle BUNDLE] [--sample FILE]`.
 */

import { cp, mkdir, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");
const DATA = join(ROOT, "..", "..", "dmcodec", "data");
const ORT = join(ROOT, "node_modules", "onnxruntime-web", "dist");
const ORT_FILES = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];

const { values } = parseArgs({
  options: {
    out: { type: "string" },
    bundle: { type: "string", default: join(DATA, "dmcodec-small.bundle") },
    sample: { type: "string", default: join(DATA, "speech.flac") },
  },
});
if (!values.out) {
  console.error("error: name the folder to write: npm run build -- --out FOLDER");
  process.exit(2);
}
if (await stat(values.out).catch(() => false)) {
  console.error(`error: ${values.out} exists already; remove it or name another folder`);
  process.exit(2);
}

const out = resolve(values.out);
const temporary = `${out}.partial`;
await rm(temporary, { recursive: true, force: true });
await mkdir(join(temporary, "ort"), { recursive: true });
await mkdir(join(temporary, "bundle"));
await cp(join(ROOT, "page"), join(temporary, "page"), { recursive: true });
await cp(join(ROOT, "src"), join(temporary, "src"), { recursive: true });
// The page and its service worker stand at the root: a service worker sees what lies beside and below it.
for (const name of ["index.html", "service_worker.js"]) {
  await cp(join(ROOT, "page", name), join(temporary, name));
  await rm(join(temporary, "page", name));
}
for (const name of ORT_FILES) await cp(join(ORT, name), join(temporary, "ort", name));
const manifest = JSON.parse(await readFile(join(values.bundle, "manifest.json"), "utf8"));
const specs = [...Object.values(manifest.graphs), ...(manifest.weights ? [manifest.weights] : [])];
for (const file of ["manifest.json", ...specs.map((spec) => spec.file)]) {
  await cp(join(values.bundle, file), join(temporary, "bundle", file));
}
await cp(values.sample, join(temporary, "sample.flac"));
await rename(temporary, out);
console.log(`${values.out}: serve it over https or from localhost, for example with python -m http.server`);
