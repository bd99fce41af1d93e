/** Records the microphone. */

import { AudioError } from "../src/errors.js";

/** A recording that is running; made by `startRecording`. */
export class Recording {
  /** @type {Float32Array[]} */
  #parts = [];

  /**
   * @param {MediaStream} stream
   * @param {AudioContext} context
   * @param {AudioWorkletNode} node
   * @param {(seconds: number) => void} onSeconds
   */
  constructor(stream, context, node, onSeconds) {
    this.stream = stream;
    this.context = context;
    this.node = node;
    let count = 0;
    node.port.onmessage = ({ data }) => {
      this.#parts.push(data);
      count += data.length;
      onSeconds(count / context.sampleRate);
    };
  }

  /**
   * End the recording.
   * @returns {Promise<{ samples: Float32Array, sampleRate: number }>}
   * @throws {AudioError} the microphone sent silence
   */
  async stop() {
    this.node.port.onmessage = null;
    for (const track of this.stream.getTracks()) track.stop();
    const { sampleRate } = this.context;
    await this.context.close();
    const samples = new Float32Array(this.#parts.reduce((sum, part) => sum + part.length, 0));
    let offset = 0;
    for (const part of this.#parts) {
      samples.set(part, offset);
      offset += part.length;
    }
    if (samples.every((sample) => sample === 0)) {
      throw new AudioError("The microphone sent only silence. Check that it is switched on, and choose it in the browser.");
    }
    return { samples, sampleRate };
  }
}

/**
 * Ask for the microphone and start a recording.
 * @param {(seconds: number) => void} onSeconds called with the length so far
 * @throws {AudioError} no microphone, or it was refused
 */
export async function startRecording(onSeconds) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new AudioError("This page can't reach a microphone: open it over https or from localhost, or choose a file.");
  }
  /** @type {MediaStream} */
  let stream;
  try {
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new AudioError(refusal(error));
  }
  const context = new AudioContext();
  await context.audioWorklet.addModule(new URL("./recorder_worklet.js", import.meta.url));
  const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  context.createMediaStreamSource(stream).connect(node);
  return new Recording(stream, context, node, onSeconds);
}

/** @param {unknown} error */
function refusal(error) {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError" || name === "SecurityError") {
    return "The microphone was refused. Allow it in the browser's address bar and try again, or choose a file.";
  }
  if (name === "NotFoundError") return "No microphone was found. Connect one and try again, or choose a file.";
  return "The microphone can't be used; another program may hold it. Close that program and try again, or choose a file.";
}
