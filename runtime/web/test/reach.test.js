import assert from "node:assert/strict";
import { test } from "node:test";

import { decoderReach, encoderReach } from "../src/reach.js";

const SIZES = {
  n_filters: 64,
  strides: [8, 5, 4, 2],
  dimension: 1024,
  bidirectional: true,
  dilation_base: 2,
  residual_kernel_size: 3,
  n_residual_layers: 1,
  lstm_layers: 2,
  codebook_size: 1024,
  n_q: 8,
  sample_rate: 16000,
};

// The numbers are those of dmcodec/receptive_field.py, which tests/test_encodec_reach.py has, too.
test("DM-Codec sees both sides, and EnCodec only what is past, but for the reflection at the start", () => {
  assert.deepEqual(encoderReach(SIZES), { past: 523, future: 235, head: 555 });
  assert.deepEqual(decoderReach(SIZES), { front: 3, frontFuture: 3, past: 1, future: 1, head: 2 });
  const causal = { ...SIZES, causal: true };
  assert.deepEqual(encoderReach(causal), { past: 478, future: 0, head: 360 });
  assert.deepEqual(decoderReach(causal), { front: 6, frontFuture: 0, past: 2, future: 0, head: 1 });
  assert.equal(decoderReach({ ...causal, trim_right_ratio: 0.5 }).future, 1);
  const far = { ...SIZES, strides: [1, 4], residual_kernel_size: 5, n_residual_layers: 3 };
  assert.deepEqual(encoderReach(far), { past: 79, future: 79, head: 83 });
});
