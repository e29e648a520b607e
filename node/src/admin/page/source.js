// One thing that the page shows and keeps current: an address, and what to do with its JSON. It is asked again every
// two seconds while the page is seen, and at once when something happened; never twice at the same time. While
// the node is silent the pauses double.

import { ask, Refused, TokenWanted } from './ask.js';

const PAUSE_MS = 2_000;
// A node that is started again is found within this.
const PAUSE_MS_MAX = 8_000;
// Events come in bursts (a death and what follows from it): asked once for all of them.
const BURST_MS = 120;

export class Source {
  #timer = 0;
  #asking = false;
  #again = false;
  #failures = 0;

  /**
   * `path()` gives the address, or null while there is nothing to ask; `show(json)` draws the answer;
   * `told(outcome, error)` hears 'answered', 'silent', 'refused' or 'token' after each attempt.
   */
  constructor({ path, show, told }) {
    Object.assign(this, { path, show, told });
  }

  /** Asks as soon as possible: now, or once more right after the request that is on its way. */
  now() {
    if (this.#asking) {
      this.#again = true;
    } else {
      this.#wait(0);
    }
  }

  /** The same, but gathers a burst of calls into one request. */
  soon() {
    if (this.#asking) {
      this.#again = true;
    } else {
      this.#wait(BURST_MS);
    }
  }

  stop() {
    clearTimeout(this.#timer);
    this.#again = false;
  }

  #wait(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), ms);
  }

  async #ask() {
    const path = this.path();
    if (path === null || document.hidden) return;
    this.#asking = true;
    this.#again = false;
    const [outcome, error] = await this.#attempt(path);
    this.#asking = false;
    this.#failures = outcome === 'silent' ? this.#failures + 1 : 0;
    this.told(outcome, error);
    if (outcome === 'token') return;
    if (this.#again && outcome === 'answered') {
      this.#wait(BURST_MS);
    } else {
      this.#wait(Math.min(PAUSE_MS * 2 ** Math.max(0, this.#failures - 1), PAUSE_MS_MAX));
    }
  }

  async #attempt(path) {
    try {
      const json = await ask(path);
      // What was asked for in the meantime is another page of it: this answer is nobody's any more.
      if (path === this.path()) this.show(json);
      return ['answered', null];
    } catch (error) {
      if (error instanceof TokenWanted) return ['token', error];
      if (error instanceof Refused) return ['refused', error];
      return ['silent', error];
    }
  }
}
