/** Writes the page as one folder of static files. */

import { cp, mkdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");
const ORT = join(ROOT, "node_modules", "onnxruntime-web", "dist");
const ORT_FILES = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
/** Folder of what comes with the Python package. */
export const DATA = join(ROOT, "..", "..", "dmcodec", "data");

/**
 * Write the page with a bundle. The folder appears when it is complete.
 * @param {string} folder must not exist
 * @param {string} bundle path of the bundle
 */
export async function build(folder, bundle) {
  const out = resolve(folder);
  const temporary = `${out}.partial`;
  await rm(temporary, { recursive: true, force: true });
  await mkdir(join(temporary, "ort"), { recursive: true });
  await mkdir(join(temporary, "bundle"));
  for (const name of ["page", "src"]) await cp(join(ROOT, name), join(temporary, name), { recursive: true });
  // The page and its service worker stand at the root: a service worker sees what lies beside and below it.
  for (const name of ["index.html", "service_worker.js"]) {
    await rename(join(temporary, "page", name), join(temporary, name));
  }
  for (const name of ORT_FILES) await cp(join(ORT, name), join(temporary, "ort", name));
  const manifest = JSON.parse(await readFile(join(bundle, "manifest.json"), "utf8"));
  const specs = [...Object.values(manifest.graphs), ...(manifest.weights ? [manifest.weights] : [])];
  for (const file of ["manifest.json", ...specs.map((spec) => spec.file)]) {
    await cp(join(bundle, file), join(temporary, "bundle", file));
  }
  await cp(join(DATA, "speech.flac"), join(temporary, "sample.flac"));
  await rename(temporary, out);
}
