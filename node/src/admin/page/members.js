// The nodes: what gossip says of each, what each says of itself, and its share of the ring.

import { figure, head, keyed, make } from './build.js';
import { swatch } from './colours.js';
import { count, percent } from './words.js';

const COLUMNS = [
  ['Node'], ['Phase'], ['Share', 'number'], ['Live', 'number'], ['Idle', 'number'], ['Streams', 'number'],
  ['Children', 'number'], ['Requests', 'number'], ['Lease'], ['Address', 'spare'], ['Version', 'spare'],
];

const SIGNS = { active: '●', joining: '◐', draining: '◌', dead: '✕' };

/** `pick(name)` is called when somebody presses a node's name. */
export function showMembers(into, { members, ring, traffic }, picked, pick) {
  head(into.head, COLUMNS);
  const shares = new Map((ring?.nodes ?? []).map((node) => [node.name, node.share]));
  const own = new Map((traffic?.nodes ?? []).map((node) => [node.name, node]));
  keyed(into.body, members?.members ?? [], (member) => member.name, (member) => row(member, pick), (child, member) => {
    fill(child, member, shares.get(member.name), own.get(member.name), picked === member.name);
  });
}

function row(member, pick) {
  const button = make('button', { type: 'button', class: 'name', 'aria-pressed': 'false' }, swatch(member.name), member.name);
  button.addEventListener('click', () => pick(member.name));
  const cells = COLUMNS.slice(1).map(([, kind]) => make('td', { class: kind ?? '' }));
  const name = make('th', { scope: 'row' }, button, make('span', { class: 'self' }, 'this node'));
  return make('tr', { 'data-node': member.name }, name, ...cells);
}

function fill(made, member, share, own, pressed) {
  const [name, phase, part, live, idle, streams, children, requests, lease, listen, version] = made.cells;
  name.firstChild.setAttribute('aria-pressed', String(pressed));
  name.lastChild.hidden = !member.self;
  phase.className = `phase ${member.phase}`;
  figure(phase, 'phase', member.phase, `${SIGNS[member.phase] ?? '?'} ${member.phase}`);
  figure(part, 'share', share, share === undefined ? '' : percent(share));
  const figures = [
    [live, 'sessions', own?.sessions?.live], [idle, 'idle', own?.sessions?.idle], [streams, 'streams', own?.streams],
    [children, 'children', own?.children], [requests, 'requests', own?.requests],
  ];
  for (const [cell, what, value] of figures) figure(cell, what, value, count(value ?? 0));
  figure(lease, 'leased', own?.leased, own?.leased ? 'held' : 'not held');
  lease.className = own?.leased === false ? 'warn' : '';
  figure(listen, 'listen', member.listen);
  figure(version, 'version', member.version);
}
