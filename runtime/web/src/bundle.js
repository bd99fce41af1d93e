/** The bundle: a folder with graphs, their weights and `manifest.json`, read over the network or from disk. */

import { BundleError } from "./errors.js";
import { canonicalJson } from "./json.js";

const FORMAT_VERSION = 3;
const MANIFEST = "manifest.json";
const GRAPHS = ["encoder", "quantizer", "dequantizer", "decoder", "decoder_recurrent", "decoder_upsampler"];

/**
 * @typedef {object} Config
 * @property {number} n_filters
 * @property {number[]} strides
 * @property {number} dimension
 * @property {boolean} bidirectional
 * @property {number} dilation_base
 * @property {number} residual_kernel_size
 * @property {number} n_residual_layers
 * @property {number} lstm_layers
 * @property {number} codebook_size
 * @property {number} n_q
 * @property {number} sample_rate
 * @property {boolean} [causal] false where it is missing, as in all bundles of formats 1 and 2
 * @property {number} [trim_right_ratio] 1 where it is missing
 *
 * @typedef {{ file: string, sha256: string, size_bytes: number }} FileSpec
 * @typedef {object} Manifest
 * @property {Config} config
 * @property {string} model_id
 * @property {string} precision
 * @property {Record<string, FileSpec>} graphs
 * @property {FileSpec} [weights]
 *
 * @typedef {(loadedBytes: number, totalBytes: number) => void} Progress
 */

/** A bundle whose files were read and checked. */
export class Bundle {
  /**
   * @param {Manifest} manifest
   * @param {Map<string, Uint8Array>} files by name
   */
  constructor(manifest, files) {
    this.manifest = manifest;
    this.files = files;
  }

  /**
   * Read a bundle; check that it is complete, unaltered, and of a version that this runtime knows.
   * @param {string | URL} location address of the folder, or in Node its path
   * @param {Progress} [onProgress]
   * @throws {BundleError}
   */
  static async open(location, onProgress) {
    const text = new TextDecoder().decode(await readFile(location, MANIFEST));
    const manifest = await parseManifest(text, String(location));
    const specs = [...Object.values(manifest.graphs), ...(manifest.weights ? [manifest.weights] : [])];
    const total = specs.reduce((sum, spec) => sum + spec.size_bytes, 0);
    let loaded = 0;
    /** @type {Map<string, Uint8Array>} */
    const files = new Map();
    await Promise.all(
      specs.map(async (spec) => {
        const bytes = await readFile(location, spec.file, (count) => onProgress?.((loaded += count), total));
        if (bytes.length !== spec.size_bytes || (await sha256(bytes)) !== spec.sha256) {
          throw new BundleError(`${location}: ${spec.file} was altered or cut after the export; export again`);
        }
        files.set(spec.file, bytes);
      }),
    );
    return new Bundle(manifest, files);
  }
}

/**
 * @param {string} text
 * @param {string} location
 * @returns {Promise<Manifest>}
 */
async function parseManifest(text, location) {
  /** @type {any} */
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    throw new BundleError(`${location}: ${MANIFEST} can't be read as a manifest`);
  }
  const version = body?.format_version;
  if (!Number.isInteger(version)) throw new BundleError(`${location}: not a bundle, its manifest has no format_version`);
  if (version > FORMAT_VERSION) {
    throw new BundleError(
      `${location}: bundle format ${version}, this runtime reads up to ${FORMAT_VERSION}; update it or export again`,
    );
  }
  if ((await sha256(new TextEncoder().encode(canonicalJson(text, "sha256")))) !== body.sha256) {
    throw new BundleError(`${location}: ${MANIFEST} was altered after the export; export again`);
  }
  if (GRAPHS.some((name) => !body.graphs?.[name])) throw new BundleError(`${location}: its manifest lacks a graph`);
  for (const spec of [...Object.values(body.graphs), ...(body.weights ? [body.weights] : [])]) {
    if (!/^[\w-][\w.-]*$/.test(spec.file)) throw new BundleError(`${location}: file ${spec.file} is not a plain name`);
  }
  return body;
}

/**
 * Read a file of the bundle.
 * @param {string | URL} location
 * @param {string} file
 * @param {(count: number) => void} [onBytes]
 */
async function readFile(location, file, onBytes) {
  if (isNetwork(location)) return fetchFile(new URL(file, folder(location)), onBytes);
  const [{ readFile: read }, { join }, { fileURLToPath }] = await Promise.all([
    import("node:fs/promises"),
    import("node:path"),
    import("node:url"),
  ]);
  const path = location instanceof URL || location.startsWith("file:") ? fileURLToPath(location) : location;
  try {
    const bytes = new Uint8Array(await read(join(path, file)));
    onBytes?.(bytes.length);
    return bytes;
  } catch (error) {
    const code = /** @type {NodeJS.ErrnoException} */ (error).code;
    throw new BundleError(`${path}: ${file} can't be read (${code}); is it a folder that dmcodec export wrote?`);
  }
}

/** @param {string | URL} location */
function isNetwork(location) {
  return typeof window !== "undefined" || typeof WorkerGlobalScope !== "undefined" || /^https?:/.test(String(location));
}

/** @param {string | URL} location */
function folder(location) {
  const base = typeof self === "undefined" ? undefined : self.location?.href;
  return new URL(String(location).replace(/\/*$/, "/"), base);
}

/**
 * @param {URL} url
 * @param {(count: number) => void} [onBytes]
 */
async function fetchFile(url, onBytes) {
  const problem = `${url}: can't be loaded; check the address and the connection`;
  const response = await fetch(url).catch(() => {
    throw new BundleError(problem);
  });
  if (!response.ok || !response.body) throw new BundleError(`${problem} (HTTP ${response.status})`);
  /** @type {Uint8Array[]} */
  const parts = [];
  try {
    const reader = response.body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      parts.push(part.value);
      onBytes?.(part.value.length);
    }
  } catch {
    throw new BundleError(`${url}: the connection broke; try again`);
  }
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new BundleError("the hashes of the bundle can't be checked here: open the page over https or from localhost");
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
