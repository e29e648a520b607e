// The geometry of the ring: fractions of the circle, from the top and clockwise, as paths.

export const SIZE = 400;
const CENTRE = SIZE / 2;

export function point(fraction, radius) {
  const angle = (fraction - 0.25) * 2 * Math.PI;
  return [CENTRE + radius * Math.cos(angle), CENTRE + radius * Math.sin(angle)];
}

/** The arc from one fraction to another; more than half a circle is two arcs, since one can't be a whole. */
export function arc(from, to, radius) {
  if (to - from > 0.5) {
    const middle = (from + to) / 2;
    return `${arc(from, middle, radius)}${sweep(middle, to, radius)}`;
  }
  return `M${at(point(from, radius))}${sweep(from, to, radius)}`;
}

/** The same drawn the other way, for text that would stand on its head. */
export function backward(from, to, radius) {
  return `M${at(point(to, radius))}A${radius} ${radius} 0 ${to - from > 0.5 ? 1 : 0} 0 ${at(point(from, radius))}`;
}

/** From one place on a circle to another, bent towards the middle. */
export function chord(from, to, radius) {
  return `M${at(point(from, radius))}Q${CENTRE} ${CENTRE} ${at(point(to, radius))}`;
}

export function line(fraction, inner, outer) {
  return `M${at(point(fraction, inner))}L${at(point(fraction, outer))}`;
}

/** A pointer that stands outside of the circle and points at it. */
export function pin(fraction, radius) {
  const half = 0.013;
  const [tip, left, right] = [
    point(fraction, radius),
    point(fraction - half, radius + 17),
    point(fraction + half, radius + 17),
  ];
  return `M${at(tip)}L${at(left)}L${at(right)}Z`;
}

function sweep(from, to, radius) {
  return `A${radius} ${radius} 0 0 1 ${at(point(to, radius))}`;
}

/** A hundredth of a unit is a thirtieth of a pixel. */
function at([x, y]) {
  return `${x.toFixed(2)} ${y.toFixed(2)}`;
}
