/** Sends the samples of the microphone to the page. It runs on the audio thread. */

// @ts-expect-error the types of the audio thread are not in the DOM library
class Recorder extends AudioWorkletProcessor {
  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    const channel = inputs[0]?.[0];
    // @ts-expect-error as above
    if (channel) this.port.postMessage(channel.slice());
    return true;
  }
}

// @ts-expect-error as above
registerProcessor("recorder", Recorder);
