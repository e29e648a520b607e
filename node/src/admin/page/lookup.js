// The box to look an id or a key up: the sentence that says why, the facts under it, and its place on the ring.

import { figure, make } from './build.js';
import { swatch } from './colours.js';
import { list, percent } from './words.js';

/** What is being looked up, or null. */
let asked = null;

export function lookupPath() {
  return asked === null ? null : `/v1/ring/lookup?${asked.kind}=${encodeURIComponent(asked.text)}`;
}

/** `begun()` is called when there is something else to look up. */
export function listenToLookups(form, begun) {
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const text = form.elements.look.value.trim();
    if (text === '') return;
    asked = { kind: form.elements.kind.value, text };
    begun();
  });
  // Every id of Ringway's begins so: a key is told from it without a click.
  form.elements.look.addEventListener('paste', () => setTimeout(() => {
    const isId = form.elements.look.value.trim().startsWith('rw1.');
    form.elements.kind.value = isId ? 'session' : 'key';
  }));
}

let written = null;

/** Says it only where it changed: the answer is read aloud, and is asked for again and again. */
export function showFound(into, found) {
  const text = JSON.stringify(found);
  if (written === text) return;
  written = text;
  const owner = make('span');
  figure(owner, 'owner', found.owner, found.owner ?? undefined);
  if (found.owner !== null) owner.prepend(swatch(found.owner));
  const facts = [
    ['State', fact('state', found.state)],
    ['Owner', owner],
    ['Home', fact('home', found.home)],
    ['Epoch', fact('epoch', found.epoch)],
    ['Next on the ring', fact('successors', found.successors?.length ? found.successors.join(' ') : null, list(found.successors ?? []))],
    ['Place on the ring', fact('position', found.position, percent(found.position ?? 0))],
  ];
  const rows = facts.flatMap(([title, value]) => [make('dt', {}, title), make('dd', {}, value)]);
  into.replaceChildren(make('p', { id: 'why' }, found.why), make('dl', { class: 'facts' }, ...rows));
}

/** What the node has against the question itself. */
export function showRefusal(into, words) {
  written = null;
  into.replaceChildren(make('p', { class: 'bad' }, words));
}

function fact(name, value, text) {
  const span = make('span');
  figure(span, name, value, text);
  return span;
}
