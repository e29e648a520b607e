// A stream of server-sent events, read with fetch because EventSource can't send an Authorization header.
// It is opened again when it ends, with growing pauses, for as long as the page lives.

import { open, TokenWanted } from './ask.js';

const PAUSE_MS = 1_000;
const PAUSE_MS_MAX = 8_000;
// The node writes a comment every 15 s at the latest: three of them missing means that nobody is there.
const SILENCE_MS = 45_000;
// One event is a few hundred bytes; what never ends is no event.
const EVENT_LEN_MAX = 1 << 20;

export class Stream {
  #aborting = null;
  #timer = 0;
  #failures = 0;
  #lastId = null;

  /** `heard(json)` gets each event's data; `told('open' | 'lost' | 'token')` how the stream is. */
  constructor({ path, heard, told }) {
    Object.assign(this, { path, heard, told });
  }

  start() {
    clearTimeout(this.#timer);
    this.#aborting?.abort();
    this.#follow(new AbortController());
  }

  async #follow(aborting) {
    this.#aborting = aborting;
    try {
      const body = await open(this.path, this.#lastId, aborting.signal);
      this.#failures = 0;
      this.told('open');
      await this.#read(body.getReader(), aborting);
    } catch (error) {
      if (error instanceof TokenWanted) {
        this.told('token');
        return;
      }
    }
    // Another one has been started meanwhile.
    if (this.#aborting !== aborting) return;
    aborting.abort();
    this.told('lost');
    const pause = Math.min(PAUSE_MS * 2 ** this.#failures, PAUSE_MS_MAX);
    this.#failures += 1;
    this.#timer = setTimeout(() => this.start(), pause);
  }

  async #read(reader, aborting) {
    const decoder = new TextDecoder();
    let text = '';
    for (;;) {
      const watch = setTimeout(() => aborting.abort(), SILENCE_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(watch));
      if (done) return;
      text += decoder.decode(value, { stream: true });
      const events = text.split(/\r?\n\r?\n/);
      text = events.pop();
      if (text.length > EVENT_LEN_MAX) throw new Error('an event without an end');
      for (const event of events) this.#pass(event);
    }
  }

  #pass(event) {
    const lines = event.split(/\r?\n/);
    const field = (name) => lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trimStart());
    this.#lastId = field('id').at(-1) ?? this.#lastId;
    const data = field('data').join('\n');
    if (data !== '') this.heard(JSON.parse(data));
  }
}
