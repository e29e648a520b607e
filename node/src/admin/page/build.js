// Elements from values. Text from elsewhere (names of clients, ids, keys) becomes text nodes and attributes only:
// nothing on this page is ever parsed as HTML.

const SVG = 'http://www.w3.org/2000/svg';

export function make(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

/** Writes text only where it changes, so that what somebody has selected stays selected, and nothing is read aloud twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * A figure of the admin JSON: `value` as it is there in `data-value`, `text` for people. Tests compare the former.
 * A figure that nobody knows at the moment is a dash and has no `data-value`.
 */
export function figure(element, name, value, text) {
  element.dataset.figure = name;
  if (value === undefined || value === null) {
    delete element.dataset.value;
    say(element, '–');
  } else {
    element.dataset.value = String(value);
    say(element, text ?? String(value));
  }
}

/** Makes `parent` hold one child per item, in order; a child whose key stays is kept and filled again. */
export function keyed(parent, items, keyOf, create, fill) {
  const before = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]));
  const used = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = before.get(key);
    // Two items of one key are two rows.
    if (!child || used.has(child)) {
      child = create(item);
      child.dataset.key = key;
    }
    used.add(child);
    fill(child, item);
    if (child === place) {
      place = place.nextElementSibling;
    } else {
      parent.insertBefore(child, place);
    }
  }
  for (const child of Array.from(parent.children)) {
    if (!used.has(child)) child.remove();
  }
}

/** The head of a table, once: pairs of a title and the class of its column. */
export function head(element, columns) {
  if (element.firstChild) return;
  const cells = columns.map(([title, kind]) => make('th', { scope: 'col', class: kind ?? '' }, title));
  element.append(make('tr', {}, ...cells));
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
