// Who forwarded how many requests to whom, as a table: a row for each node that says it, a column for each it names.

import { head, keyed, make, say } from './build.js';
import { swatch } from './colours.js';
import { count } from './words.js';

const MISSES = [['refused', 'refused'], ['not_here', 'not here'], ['unsent', 'not sent']];

export function showForwards(into, traffic) {
  const nodes = traffic?.nodes ?? [];
  const columns = [...new Set([...nodes.map((node) => node.name), ...nodes.flatMap((node) => (node.forwards ?? []).map(({ to }) => to))])].sort();
  const titles = columns.join('\n');
  if (into.head.dataset.columns !== titles) {
    into.head.dataset.columns = titles;
    into.head.replaceChildren();
    into.body.replaceChildren();
    head(into.head, [['From \\ to'], ...columns.map((name) => [name, 'number'])]);
  }
  const rows = nodes.filter((node) => node.forwards);
  keyed(into.body, rows, (node) => node.name, (node) => row(node.name, columns), (child, node) => {
    const to = new Map(node.forwards.map((forward) => [forward.to, forward]));
    columns.forEach((name, at) => fill(child.cells[at + 1], to.get(name), name === node.name));
  });
}

function row(from, columns) {
  const cells = columns.map((to) => make('td', { class: 'number', 'data-from': from, 'data-to': to },
    make('span', { 'data-figure': 'answered' }),
    ...MISSES.map(([key]) => make('span', { class: 'missed', 'data-figure': key }))));
  return make('tr', {}, make('th', { scope: 'row' }, swatch(from), from), ...cells);
}

/** A node that a row names nowhere has been sent nothing. */
function fill(cell, forward, same) {
  const [answered, ...missed] = cell.children;
  answered.className = same ? 'same' : '';
  write(answered, forward?.answered, (number) => count(number), same ? '·' : '0');
  MISSES.forEach(([key, words], at) => {
    write(missed[at], forward?.[key], (number) => `${count(number)} ${words}`, '');
    missed[at].hidden = !forward?.[key];
  });
}

function write(element, value, text, otherwise) {
  if (value === undefined) {
    delete element.dataset.value;
  } else {
    element.dataset.value = String(value);
  }
  say(element, value === undefined ? otherwise : text(value));
}
