// The ring as a picture: outside the arcs of each node as they lie, then each node's share as one piece with its
// name, and inside the forwards between them. A looked-up key is marked where it lies.

import { draw } from './build.js';
import { arc, backward, chord, line, pin, point, SIZE } from './circle.js';
import { colour, pattern, patterns } from './colours.js';
import { list, percent } from './words.js';

const ARCS = 166;
const SHARES = 136;
const CHORDS = 120;
/** Between two shares, so that neighbours don't run together. */
const GAP = 0.004;
/** Of the name on a share: units per character, a little more than the font takes. */
const CHARACTER = 8.2;
const CHORD_WIDTH = 9;

/** What is drawn: kept here because its parts come at different times. */
const shown = { ring: null, traffic: null, found: null, picked: null };
let root = null;

/** Draws anew with what has changed. */
export function drawRing(into, changes) {
  Object.assign(shown, changes);
  if (!shown.ring) return;
  if (!root) {
    root = draw('svg', { viewBox: `0 0 ${SIZE} ${SIZE}`, role: 'img', 'aria-labelledby': 'ring-name ring-words' });
    root.append(draw('title', { id: 'ring-name' }), draw('desc', { id: 'ring-words' }), patterns(), draw('g'));
    into.append(root);
  }
  const [title, desc] = root.children;
  title.textContent = 'The ring of this cluster';
  desc.textContent = inWords();
  root.lastElementChild.replaceChildren(...picture());
}

function inWords() {
  const { nodes } = shown.ring;
  if (nodes.length === 0) return 'No node is active, so the ring is empty.';
  const shares = list(nodes.map((node) => `${node.name} ${percent(node.share)}`));
  const { found } = shown;
  const lies = found?.position === undefined || found.position === null ? '' : ` What was looked up lies at ${percent(found.position)} of the circle.`;
  return `It is shared by ${nodes.length} ${nodes.length === 1 ? 'node' : 'nodes'}: ${shares}.${lies}`;
}

function picture() {
  const { nodes, arcs } = shown.ring;
  if (nodes.length === 0) {
    const words = draw('text', { class: 'none', x: SIZE / 2, y: SIZE / 2 + 5, 'text-anchor': 'middle' }, 'nobody is active');
    return [draw('path', { class: 'empty', d: arc(0, 1, ARCS) }), words];
  }
  const places = sectors(nodes);
  return [
    ...ticks(),
    ...nodes.map((node) => territory(node.name, arcs)),
    ...[...places].flatMap(([name, place]) => sector(name, place)),
    ...chords(places),
    ...mark(places),
  ];
}

/** Where each node's share lies when they are put side by side. */
function sectors(nodes) {
  let from = 0;
  return new Map(nodes.map(({ name, share }) => {
    const place = { from: from + GAP / 2, to: Math.max(from + share - GAP / 2, from + GAP / 2 + 0.0005) };
    from += share;
    return [name, place];
  }));
}

function ticks() {
  return [0, 0.25, 0.5, 0.75].map((at) => draw('path', { class: 'tick', d: line(at, ARCS + 15, ARCS + 20) }));
}

function territory(name, arcs) {
  const own = arcs.filter((piece) => piece.owner === name);
  const d = own.map(({ from, to }) => arc(from, to, ARCS)).join('');
  return draw('path', { class: `arc ${colour(name)} ${quiet(name)}`, d, 'data-arcs-of': name });
}

function sector(name, { from, to }) {
  const way = arc(from, to, SHARES);
  const kind = `${colour(name)} ${quiet(name)}`;
  const edge = arc(from, to, SHARES - 12);
  return [
    draw('path', { class: `share ${kind}`, d: way }),
    draw('path', { class: quiet(name), d: way, fill: 'none', 'stroke-width': 24, 'stroke-opacity': 0.45, stroke: `url(#${pattern(name)})` }),
    draw('path', { class: `edge ${kind}`, d: edge }),
    ...label(name, from, to),
  ];
}

/** The name along the share, upright in both halves, cut to what fits. */
function label(name, from, to) {
  const room = Math.floor(((to - from) * 2 * Math.PI * SHARES) / CHARACTER) - 1;
  if (room < 1) return [];
  const text = name.length <= room ? name : `${name.slice(0, Math.max(room - 1, 1))}…`;
  const middle = (from + to) / 2;
  const below = middle > 0.25 && middle < 0.75;
  const id = `along-${colour(name)}-${pattern(name)}`;
  // The middle of the letters shall lie in the middle of the band: they are about nine units high.
  const d = below ? backward(from, to, SHARES + 4.5) : arc(from, to, SHARES - 4.5);
  const way = draw('path', { id, d, fill: 'none' });
  const words = draw('textPath', { href: `#${id}`, startOffset: '50%' }, text);
  return [way, draw('text', { class: `name ${quiet(name)}`, 'text-anchor': 'middle' }, words)];
}

/** One line for each pair that forwards, as wide as its part of the most; in the colour of who forwards. */
function chords(places) {
  const pairs = (shown.traffic?.nodes ?? []).flatMap((node) =>
    (node.forwards ?? []).map((forward) => ({ from: node.name, to: forward.to, answered: forward.answered })));
  const drawn = pairs.filter(({ from, to, answered }) => answered > 0 && places.has(from) && places.has(to));
  const most = Math.max(...drawn.map(({ answered }) => answered), 1);
  return drawn.map(({ from, to, answered }) => draw('path', {
    class: `chord ${colour(from)} ${quiet(from)}`,
    // Those that go and those that come shall not lie on each other.
    d: chord(beside(places.get(from), -1), beside(places.get(to), 1), CHORDS),
    'stroke-width': (1 + (CHORD_WIDTH - 1) * Math.sqrt(answered / most)).toFixed(2),
  }));
}

function beside({ from, to }, side) {
  return (from + to) / 2 + side * Math.min(0.02, (to - from) / 4);
}

function mark(places) {
  const { found } = shown;
  if (found?.position === undefined || found.position === null) return [];
  const [x, y] = point(found.position, CHORDS);
  const owner = places.get(found.owner);
  const thread = owner ? [draw('path', { class: 'thread', d: chord(found.position, (owner.from + owner.to) / 2, CHORDS) })] : [];
  return [
    draw('path', { class: 'thread', d: line(found.position, CHORDS, ARCS + 13) }),
    ...thread,
    draw('circle', { class: 'mark', cx: x.toFixed(2), cy: y.toFixed(2), r: 4 }),
    draw('path', { class: 'mark', d: pin(found.position, ARCS + 14), 'data-position': found.position }),
  ];
}

function quiet(name) {
  return shown.picked === null || shown.picked === name ? '' : 'quiet';
}
