// Numbers, durations and times as people read them at night.

const grouped = new Intl.NumberFormat('en');
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });

/** Several hundred thousand are written out: an operator compares them with the JSON. */
export function count(number) {
  return grouped.format(number);
}

export function percent(share) {
  return `${(share * 100).toFixed(1)} %`;
}

export function time(date) {
  return clock.format(date);
}

/** The time, with the day before it where that is not today. */
export function moment(date) {
  const today = new Date().toDateString() === date.toDateString();
  return today ? time(date) : `${day.format(date)} ${time(date)}`;
}

/** Two units at most: 42 s, 3 m 05 s, 2 h 07 m, 5 d 3 h. */
export function duration(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (number) => String(number).padStart(2, '0');
  if (whole < 3_600) return `${Math.floor(whole / 60)} m ${two(whole % 60)} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3_600)} h ${two(Math.floor((whole % 3_600) / 60))} m`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3_600)} h`;
}

/** a; a and b; a, b and c. */
export function list(names) {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
