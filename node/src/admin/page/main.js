// The dashboard: what it asks the node for, and what each answer changes on the page.
//
// Every answer is drawn in the moment in which it becomes the last one in `last`, so the page never shows anything else.
// Tests read `window.ringway.last` and compare.

import { hasToken, keepToken } from './ask.js';
import { say } from './build.js';
import { colour } from './colours.js';
import { showEvent } from './events.js';
import { showForwards } from './forwards.js';
import { showHealth } from './health.js';
import { listenToLookups, lookupPath, showFound, showRefusal } from './lookup.js';
import { showMembers } from './members.js';
import { drawRing } from './ring.js';
import { sessionsPath, showSessions, turnPages } from './sessions.js';
import { Source } from './source.js';
import { Stream } from './stream.js';
import { time } from './words.js';

const at = (id) => document.getElementById(id);
const last = { members: null, ring: null, traffic: null, sessions: null, lookup: null };
window.ringway = { last };

/** The node whose part of the ring is picked out, or null. */
let picked = null;
/** When the node was first found silent, or null. */
let silentSince = null;
/** The same for single answers. */
const staleSince = {};

const sources = {
  members: new Source({ path: () => '/v1/members', show: showAll('members'), told: toldOfNode }),
  // The ring follows from the view: it is asked for when that has changed.
  ring: new Source({
    path: () => (last.ring && last.ring.view === last.members?.view ? null : '/v1/ring?arcs=1'),
    show: showAll('ring'),
    told: toldOf('ring'),
  }),
  traffic: new Source({ path: () => '/v1/traffic', show: showAll('traffic'), told: toldOf('traffic') }),
  sessions: new Source({ path: sessionsPath, show: showAll('sessions'), told: toldOf('sessions') }),
  lookup: new Source({ path: lookupPath, show: showAll('lookup'), told: toldOfLookup }),
};

const events = new Stream({ path: '/v1/events', heard, told: toldOfEvents });

function showAll(name) {
  return (json) => {
    last[name] = json;
    const members = { head: at('members-head'), body: at('members') };
    switch (name) {
      case 'members':
        json.members.forEach((member) => colour(member.name));
        say(at('seen-by'), json.members.find((member) => member.self)?.name ?? 'this node');
        say(at('view'), json.view);
        document.title = `Ringway: ${at('seen-by').textContent}`;
        if (json.view !== last.ring?.view) sources.ring.now();
        showHealth({ health: at('health'), totals: at('totals') }, last);
        showMembers(members, last, picked, pick);
        break;
      case 'ring':
        showMembers(members, last, picked, pick);
        drawRing(at('ring'), { ring: json });
        break;
      case 'traffic':
        showHealth({ health: at('health'), totals: at('totals') }, last);
        showMembers(members, last, picked, pick);
        showForwards({ head: at('forwards-head'), body: at('forwards') }, json);
        drawRing(at('ring'), { traffic: json });
        break;
      case 'sessions':
        showSessions(sessionsParts(), json, lookUp);
        break;
      case 'lookup':
        showFound(at('found'), json);
        drawRing(at('ring'), { found: json });
        break;
    }
  };
}

function sessionsParts() {
  return {
    head: at('sessions-head'), body: at('sessions'), none: at('sessions-none'), page: at('sessions-page'),
    first: at('sessions-first'), back: at('sessions-back'), forward: at('sessions-next'),
  };
}

/** Looks up what was pressed in the table of sessions. */
function lookUp(id) {
  at('look').value = id;
  at('look-form').elements.kind.value = 'session';
  at('look-form').requestSubmit();
  at('look-title').scrollIntoView({ block: 'nearest' });
}

/** Picks a node out on the ring, or lets go of it. */
function pick(name) {
  picked = picked === name ? null : name;
  showMembers({ head: at('members-head'), body: at('members') }, last, picked, pick);
  drawRing(at('ring'), { picked });
}

/** The members come from the node alone: whether it tells them is whether it is there. */
function toldOfNode(outcome) {
  if (outcome === 'token') return askForToken();
  const wasSilent = silentSince !== null;
  silentSince = outcome === 'answered' ? null : silentSince ?? new Date();
  document.body.classList.toggle('old', silentSince !== null);
  at('silence').hidden = silentSince === null;
  at('pulse').className = silentSince === null ? 'pulse good' : 'pulse bad';
  if (silentSince !== null) {
    say(at('silence'), `This node does not answer since ${time(silentSince)}; trying again. What is below is what it said before.`);
    say(at('pulse-text'), `no answer since ${time(silentSince)}`);
    return undefined;
  }
  say(at('pulse-text'), `live, as of ${time(new Date())}`);
  if (wasSilent) everythingNow();
  return undefined;
}

function toldOf(name) {
  return (outcome) => {
    if (outcome === 'token') return askForToken();
    staleSince[name] = outcome === 'answered' ? null : staleSince[name] ?? new Date();
    const note = document.querySelector(`[data-stale="${name}"]`);
    if (!note) return undefined;
    const mute = last[name]?.unreachable ?? [];
    const old = staleSince[name] ? `not current since ${time(staleSince[name])}` : '';
    say(note, old || (mute.length > 0 ? `without ${mute.join(', ')}: no answer from there` : ''));
    return undefined;
  };
}

function toldOfLookup(outcome, error) {
  if (outcome === 'token') return askForToken();
  if (outcome === 'refused') showRefusal(at('found'), `The node refuses this: ${error.message}.`);
  return undefined;
}

function toldOfEvents(state) {
  if (state === 'token') return askForToken();
  say(at('events-state'), state === 'lost' ? `interrupted since ${time(new Date())}; trying again` : '');
  return undefined;
}

/** An event is news if it is not older than the page. Whatever it is about, everything is asked for again. */
function heard(event) {
  const into = { list: at('events'), none: at('events-none'), spoken: at('spoken') };
  const isNews = event.at === undefined || event.at >= performance.timeOrigin;
  if (showEvent(into, event, isNews) && isNews) {
    for (const source of Object.values(sources)) source.soon();
  }
}

function everythingNow() {
  for (const [name, source] of Object.entries(sources)) {
    if (name !== 'members') source.now();
  }
}

/** Nothing is asked while the form waits. */
function askForToken() {
  Object.values(sources).forEach((source) => source.stop());
  const form = at('token-form');
  if (!form.hidden) return;
  say(form.querySelector('label'), hasToken() ? 'That is not this node\'s admin token' : 'This node asks for its admin token');
  form.hidden = false;
  at('main').hidden = true;
  say(at('pulse-text'), 'waiting for the token');
  at('token').focus();
}

function begin() {
  at('token-form').hidden = true;
  at('main').hidden = false;
  sources.members.now();
  everythingNow();
  events.start();
}

at('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const token = at('token').value.trim();
  if (token === '') return;
  keepToken(token);
  at('token').value = '';
  begin();
});
listenToLookups(at('look-form'), () => sources.lookup.now());
turnPages(sessionsParts(), () => sources.sessions.now());
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  sources.members.now();
  everythingNow();
});
begin();
