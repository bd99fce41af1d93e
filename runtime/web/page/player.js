/** Plays two versions of a clip at once and lets one be heard, so that switching keeps the place. */

/** @typedef {"original" | "decoded"} Version */

const FADE_S = 0.01;

export class Player {
  /** @type {AudioContext | undefined} */
  #context;
  /** @type {Partial<Record<Version, { source: AudioBufferSourceNode, gain: GainNode }>>} */
  #nodes = {};
  #started = 0;
  /** @type {Partial<Record<Version, Float32Array<ArrayBuffer>>>} */
  #clips = {};
  #sampleRate = 0;
  /** @type {Version} */
  heard = "original";
  playing = false;

  /** @param {() => void} onChange called when playing starts or ends */
  constructor(onChange) {
    this.onChange = onChange;
  }

  /**
   * @param {Partial<Record<Version, Float32Array<ArrayBuffer>>>} clips
   * @param {number} sampleRate in Hz
   */
  setClips(clips, sampleRate) {
    this.stop();
    this.#clips = clips;
    this.#sampleRate = sampleRate;
  }

  /** Share of the clip that was played, 0 to 1. */
  get position() {
    if (!this.#context || !this.playing) return 0;
    return Math.min(1, (this.#context.currentTime - this.#started) / this.#duration);
  }

  async play() {
    this.stop();
    this.#context ??= new AudioContext();
    await this.#context.resume();
    this.#started = this.#context.currentTime + 0.02;
    for (const [version, samples] of Object.entries(this.#clips)) {
      const buffer = this.#context.createBuffer(1, samples.length, this.#sampleRate);
      buffer.copyToChannel(samples, 0);
      const source = new AudioBufferSourceNode(this.#context, { buffer });
      const gain = new GainNode(this.#context, { gain: version === this.heard ? 1 : 0 });
      source.connect(gain).connect(this.#context.destination);
      source.start(this.#started);
      source.onended = () => source === this.#nodes[this.#longest()]?.source && this.stop();
      this.#nodes[/** @type {Version} */ (version)] = { source, gain };
    }
    this.playing = true;
    this.onChange();
  }

  stop() {
    for (const { source } of Object.values(this.#nodes)) {
      source.onended = null;
      source.stop();
    }
    this.#nodes = {};
    if (this.playing) {
      this.playing = false;
      this.onChange();
    }
  }

  /** @param {Version} version */
  hear(version) {
    this.heard = version;
    for (const [name, { gain }] of Object.entries(this.#nodes)) {
      gain.gain.setTargetAtTime(name === version ? 1 : 0, this.#context?.currentTime ?? 0, FADE_S / 3);
    }
  }

  get #duration() {
    return Math.max(...Object.values(this.#clips).map((samples) => samples.length)) / this.#sampleRate;
  }

  #longest() {
    const [version] = Object.entries(this.#clips).sort(([, a], [, b]) => b.length - a.length)[0];
    return /** @type {Version} */ (version);
  }
}
