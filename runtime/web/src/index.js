/** The dmcodec runtime for browsers and Node. */

export { Codec } from "./codec.js";
export * from "./errors.js";
export { StreamDecoder } from "./stream_decoder.js";
export { Tokens } from "./tokens.js";
