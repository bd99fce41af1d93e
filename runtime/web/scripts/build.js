/** Builds the page as one folder of static files: `npm run build -- --out FOLDER [--bundle BUNDLE]`. */

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { build, DATA } from "./site.js";

const { values } = parseArgs({
  options: {
    out: { type: "string" },
    bundle: { type: "string", default: join(DATA, "dmcodec-small.bundle") },
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
try {
  await build(values.out, values.bundle);
} catch (error) {
  console.error(`error: ${error instanceof Error ? error.message : error}; is --bundle a bundle, and did npm ci run?`);
  process.exit(1);
}
console.log(`${values.out}: serve it over https or from localhost, for example with python -m http.server`);
