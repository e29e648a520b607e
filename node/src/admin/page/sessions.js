// The sessions of the cluster, a page at a time. The node says where the next page begins; where the earlier ones
// began is remembered here.

import { figure, head, keyed, make } from './build.js';
import { swatch } from './colours.js';
import { count, duration } from './words.js';

const LIMIT = 25;

const COLUMNS = [
  ['Session'], ['Owner'], ['State'], ['Epoch', 'number'], ['Age', 'number'], ['Idle for', 'number'],
  ['Streams', 'number'], ['Route'], ['Client'], ['Protocol', 'spare'],
];

/** Where the pages up to the one that is shown begin; the first begins at nothing. */
let begins = [null];
let next = null;

export function sessionsPath() {
  const after = begins.at(-1);
  const place = after === null ? '' : `&after=${encodeURIComponent(after)}`;
  return `/v1/sessions?scope=cluster&limit=${LIMIT}${place}`;
}

/** `turned()` is called when another page shall be asked for. */
export function turnPages({ first, back, forward }, turned) {
  const turn = (change) => () => {
    change();
    turned();
  };
  first.addEventListener('click', turn(() => { begins = [null]; }));
  back.addEventListener('click', turn(() => { if (begins.length > 1) begins.pop(); }));
  forward.addEventListener('click', turn(() => { if (next !== null) begins.push(next); next = null; }));
}

/** `lookUp(id)` is called when somebody presses a session's id. */
export function showSessions(into, json, lookUp) {
  next = json.next ?? null;
  head(into.head, COLUMNS);
  keyed(into.body, json.sessions, (session) => session.id, (session) => row(session, lookUp), fill);
  into.none.hidden = json.sessions.length > 0;
  const page = begins.length;
  into.page.textContent = `page ${page}`;
  setEnabled(into.first, page > 1);
  setEnabled(into.back, page > 1);
  setEnabled(into.forward, next !== null);
}

/** A button that is about to be disabled gives its focus to one that is not, so that keys still work. */
function setEnabled(button, enabled) {
  if (!enabled && document.activeElement === button) button.closest('section').querySelector('[tabindex]').focus();
  button.disabled = !enabled;
}

function row(session, lookUp) {
  const button = make('button', { type: 'button', class: 'name mono', title: 'look it up', 'data-figure': 'id', 'data-value': session.id }, session.id);
  button.addEventListener('click', () => lookUp(session.id));
  const cells = COLUMNS.slice(1).map(([, kind]) => make('td', { class: kind ?? '' }));
  return make('tr', { 'data-session': session.id }, make('th', { scope: 'row' }, button), ...cells);
}

function fill(made, session) {
  const [, owner, state, epoch, age, idle, streams, route, client, protocol] = made.cells;
  if (owner.dataset.value !== String(session.owner)) {
    figure(owner, 'owner', session.owner);
    if (session.owner !== null) owner.prepend(swatch(session.owner));
  }
  state.className = `phase ${session.state}`;
  figure(state, 'state', session.state);
  figure(epoch, 'epoch', session.epoch, count(session.epoch ?? 0));
  figure(age, 'age_s', session.age_s, duration(session.age_s ?? 0));
  figure(idle, 'idle_s', session.idle_s, duration(session.idle_s ?? 0));
  figure(streams, 'streams', session.streams, count(session.streams ?? 0));
  figure(route, 'route', session.route);
  route.className = 'mono';
  figure(client, 'client', session.client);
  // A client may call itself anything, at any length: cut by the style, whole when pointed at.
  client.className = 'cut';
  client.title = session.client ?? '';
  figure(protocol, 'protocol', session.protocol);
}
