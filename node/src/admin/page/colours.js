// Which colour and which pattern stands for which node. A node keeps its own for as long as the page is open;
// names are given theirs in the order in which they are first seen, which is by name when the page opens.

import { draw } from './build.js';

const COLOURS = 8;
const places = new Map();

function place(name) {
  if (!places.has(name)) places.set(name, places.size);
  return places.get(name);
}

/** The class that makes `currentColor` the node's. */
export function colour(name) {
  return name === null ? 'off' : `n${place(name) % COLOURS}`;
}

/** The node's pattern, defined by `patterns()`. From the ninth node on colours come again with another pattern. */
export function pattern(name) {
  const at = place(name);
  return `texture-${(at + Math.floor(at / COLOURS)) % COLOURS}-${at % COLOURS}`;
}

/** The marks that tell nodes apart without colour. */
const TEXTURES = [
  [],
  [['path', { d: 'M0 6L6 0M-1 1L1 -1M5 7L7 5', 'stroke-width': 1.6 }]],
  [['circle', { cx: 3, cy: 3, r: 1.3, stroke: 'none' }]],
  [['path', { d: 'M0 0L6 6M5 -1L7 1M-1 5L1 7', 'stroke-width': 1.6 }]],
  [['path', { d: 'M0 3H6', 'stroke-width': 1.6 }]],
  [['path', { d: 'M3 0V6', 'stroke-width': 1.6 }]],
  [['path', { d: 'M0 3H6M3 0V6', 'stroke-width': 1.2 }]],
  [['circle', { cx: 3, cy: 3, r: 1.8, fill: 'none', 'stroke-width': 1 }]],
];

/** Every pattern in every colour: 64 of a few bytes, so that none has to be made while the page is used. */
export function patterns() {
  const defs = draw('defs');
  TEXTURES.forEach((marks, texture) => {
    for (let shade = 0; shade < COLOURS; shade += 1) {
      const size = { width: 6, height: 6, patternUnits: 'userSpaceOnUse' };
      const shapes = marks.map(([tag, attributes]) => draw(tag, attributes));
      defs.append(draw('pattern', { id: `texture-${texture}-${shade}`, class: `texture n${shade}`, ...size }, ...shapes));
    }
  });
  return defs;
}

/** A small square in the node's colour and pattern, to stand before its name. */
export function swatch(name) {
  const square = { width: 14, height: 14 };
  return draw(
    'svg',
    { class: `swatch ${colour(name)}`, viewBox: '0 0 14 14', 'aria-hidden': 'true' },
    draw('rect', { ...square, fill: 'currentColor', 'fill-opacity': texture(name) ? 0.35 : 1 }),
    draw('rect', { ...square, fill: `url(#${pattern(name)})` }),
    draw('rect', { x: 1, y: 1, width: 12, height: 12, rx: 2, fill: 'none', stroke: 'currentColor', 'stroke-width': 2 }),
  );
}

function texture(name) {
  return !pattern(name).startsWith('texture-0-');
}
