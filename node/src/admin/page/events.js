// What happens, newest first: joins, deaths, verdicts, takeovers, drains, as the node tells them.

import { make } from './build.js';
import { swatch } from './colours.js';
import { duration, list, moment, plural } from './words.js';

const SHOWN_MAX = 200;
// A screen reader is told the newest event once it is quiet for this long, not each of a burst.
const SPOKEN_AFTER_MS = 1_500;

/** How a death is known. */
const DEATHS = {
  proven: 'its process is gone',
  silent: 'it was silent for too long',
  agreed: 'its witnesses agree on it',
};

let speaking = 0;

/** Adds an event unless it is there already (after an interruption the node may tell its history again). */
export function showEvent(into, event, isNews) {
  const known = Array.from(into.list.children).some((item) => item.dataset.event === String(event.id));
  if (known && event.id !== undefined) return false;
  into.none.hidden = true;
  into.list.prepend(entry(event, isNews));
  while (into.list.children.length > SHOWN_MAX) into.list.lastElementChild.remove();
  if (isNews) speak(into.spoken, `${subject(event) ?? 'Some events'} ${words(event)}`);
  return true;
}

/** Which node it happened to; who tells it is another thing. */
function subject(event) {
  return event.name ?? event.node;
}

function entry(event, isNews) {
  const at = new Date(event.at ?? Date.now());
  const name = subject(event);
  const who = name === undefined ? [] : [swatch(name), make('b', {}, name), ' '];
  const said = make('span', {}, ...who, words(event));
  if (event.name !== undefined && event.name !== event.node) said.append(' ', make('small', {}, `seen by ${event.node}`));
  return make(
    'li',
    { class: isNews ? 'fresh' : '', 'data-kind': event.kind, 'data-of': name ?? '', 'data-event': event.id ?? '' },
    make('time', { datetime: at.toISOString(), title: at.toISOString() }, moment(at)),
    said,
  );
}

/** The rest of the sentence that begins with the node. A kind that is not known here is told as it came. */
function words(event) {
  switch (event.kind) {
    case 'joined': return 'has joined';
    case 'active': return 'is active';
    case 'draining': return 'is draining: it takes no new sessions';
    case 'left': return 'has left';
    case 'died': return `has died: ${DEATHS[event.how] ?? event.how}`;
    case 'verdict': return event.heirs?.length ? `is over for good; its sessions go to ${list(event.heirs)}` : 'is over for good, without heirs';
    case 'takeover': return `has taken over ${plural(event.sessions, 'session')} from ${event.from}`;
    case 'reborn': return `was taken for gone, and goes on as a new incarnation without ${plural(event.lost, 'session')}`;
    case 'leased': return 'may serve its sessions';
    case 'parked': return 'may not serve: too few of the others answer it';
    case 'drain_began': return `begins to drain ${plural(event.sessions, 'session')}, for ${duration(event.deadline_s)} at most`;
    case 'drain_progress': return `is draining: ${plural(event.sessions, 'session')} left, ${event.busy} of them busy`;
    case 'drain_ended': return `has drained in ${Number(event.seconds).toFixed(1)} s${event.lost > 0 ? `; ${plural(event.lost, 'session')} lost` : ''}`;
    case 'session_ended': return `has ended ${event.session} (${event.route}), as an operator asked`;
    case 'reloaded': return `has read its ${event.what} anew`;
    case 'refused': return `goes on with the old ${event.what}: ${event.why}`;
    case 'missed': return `${plural(event.missed, 'event')} came too fast to be shown`;
    default: return `${event.kind} ${rest(event)}`;
  }
}

function rest({ id, at, node, kind, name, ...others }) {
  return Object.entries(others).map(([what, value]) => `${what}: ${typeof value === 'string' ? value : JSON.stringify(value)}`).join(', ');
}

function speak(into, text) {
  clearTimeout(speaking);
  speaking = setTimeout(() => { into.textContent = text; }, SPOKEN_AFTER_MS);
}
