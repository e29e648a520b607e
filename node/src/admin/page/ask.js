// Requests to the node that serves this page. The admin token, where there is one, lives in this tab's
// sessionStorage and nowhere else; it travels in a header, which is why events are read with fetch, too.

const TOKEN = 'ringway-admin-token';

// The node asks its peers for at most a few seconds; beyond this it is as good as gone.
const ANSWER_MS = 8_000;

/** The node wants a token, or another one. */
export class TokenWanted extends Error {}

/** The node said no, and why. */
export class Refused extends Error {}

/** No answer, or none that can be used: the node is down, hangs, or something else answers in its place. */
export class Silent extends Error {}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function hasToken() {
  return Boolean(sessionStorage.getItem(TOKEN));
}

/** The JSON that the node answers to `GET path`. */
export async function ask(path) {
  const answer = await send(path, AbortSignal.timeout(ANSWER_MS));
  let body;
  try {
    body = await answer.json();
  } catch {
    throw new Silent(`${path}: an answer that is not JSON`);
  }
  if (!answer.ok) throw new Refused(body.error ?? `status ${answer.status}`);
  return body;
}

/** A stream of events, from behind the event `lastId` where there is one; `signal` ends it. */
export async function open(path, lastId, signal) {
  const answer = await send(path, signal, lastId === null ? {} : { 'last-event-id': lastId });
  if (!answer.ok) throw new Refused(`status ${answer.status}`);
  return answer.body;
}

async function send(path, signal, more = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { ...more, authorization: `Bearer ${token}` } : more;
  let answer;
  try {
    answer = await fetch(path, { headers, signal, cache: 'no-store', credentials: 'omit', redirect: 'error' });
  } catch (error) {
    throw new Silent(`${path}: ${error.message}`);
  }
  if (answer.status === 401) throw new TokenWanted();
  if (answer.status >= 500) throw new Silent(`${path}: status ${answer.status}`);
  return answer;
}
