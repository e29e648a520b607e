// The first thing to read: one sentence on how the cluster is, and the sums of the figures below.

import { keyed, make, say } from './build.js';
import { count, list, plural } from './words.js';

export function showHealth(into, { members, traffic }) {
  if (!members) return;
  const [words, kind] = sentence(members.members, traffic);
  say(into.health, words);
  into.health.className = kind;
  showTotals(into.totals, members.members, traffic);
}

/** The worst thing first; what follows from it for somebody who wants to restart a node last. */
function sentence(members, traffic) {
  const named = (phase) => members.filter((member) => member.phase === phase).map((member) => member.name);
  const [active, joining, draining, dead] = ['active', 'joining', 'draining', 'dead'].map(named);
  const parked = (traffic?.nodes ?? []).filter((node) => node.phase === 'active' && node.leased === false);
  const mute = (traffic?.unreachable ?? []).filter((name) => !dead.includes(name));
  const are = (names) => (names.length === 1 ? 'is' : 'are');
  const troubles = [
    dead.length > 0 && `${list(dead)} ${are(dead)} dead`,
    parked.length > 0 && `${list(parked.map((node) => node.name))} may not serve (no lease)`,
    mute.length > 0 && `${list(mute)} ${mute.length === 1 ? 'does' : 'do'} not answer this node`,
    draining.length > 0 && `${list(draining)} ${are(draining)} draining`,
    joining.length > 0 && `${list(joining)} ${are(joining)} joining`,
  ].filter(Boolean);
  if (troubles.length > 0) {
    const bad = dead.length + parked.length + mute.length > 0;
    const rest = `${active.length} of ${plural(members.length, 'node')} ${active.length === 1 ? 'is' : 'are'} active`;
    return [`${troubles.join('; ')}. ${rest}: restart no other one now.`, bad ? 'bad' : 'warn'];
  }
  if (active.length === 1) return [`${active[0]} is active, and alone: a restart ends its service for a while.`, 'warn'];
  return [`All ${active.length} nodes are active. Any one of them may be drained and restarted.`, 'good'];
}

function showTotals(totals, members, traffic) {
  const nodes = traffic?.nodes ?? [];
  const sum = (value) => (traffic ? nodes.reduce((all, node) => all + (value(node) ?? 0), 0) : undefined);
  const rows = [
    ['active', 'nodes active', members.filter((member) => member.phase === 'active').length, ` of ${members.length}`],
    ['sessions', 'live sessions', sum((node) => node.sessions?.live)],
    ['idle', 'idle sessions', sum((node) => node.sessions?.idle)],
    ['streams', 'open streams', sum((node) => node.streams)],
    ['children', 'child processes', sum((node) => node.children)],
    ['requests', 'requests answered', sum((node) => node.requests)],
  ];
  keyed(totals, rows, ([name]) => name, total, (made, [, , value, rest]) => {
    const number = made.lastChild;
    if (value === undefined) {
      delete number.dataset.value;
    } else {
      number.dataset.value = String(value);
    }
    say(number.firstChild, value === undefined ? '–' : count(value));
    say(number.lastChild, rest ?? '');
  });
}

function total([name, title]) {
  return make('div', {}, make('dt', {}, title), make('dd', { 'data-total': name }, make('span'), make('small')));
}
