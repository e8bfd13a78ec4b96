// The link to the agent: token, questions, and the stream of events, which also tells
// whether the agent is there.
import { setClock } from './dom.js';

const KEY = 'stellar-token';
let token = null;
try {
  token = sessionStorage.getItem(KEY);
} catch { /* storage may be forbidden: then a reload asks for the token anew */ }

// useToken remembers a token for as long as this tab is open.
export function useToken(t) {
  token = t;
  try {
    sessionStorage.setItem(KEY, t);
  } catch { /* as above */ }
}

// takeToken takes it out of the address bar and the tab's history.
export function takeToken() {
  const found = /^#token=([A-Za-z0-9_-]+)/.exec(location.hash);
  if (!found) return false;
  useToken(found[1]);
  history.replaceState(null, '', location.pathname + '#/map');
  return true;
}

// Problem is an error as the agent tells it; code 'gone' when nobody answers.
export class Problem extends Error {
  constructor({ code, message, hint }, denied = false) {
    super(message);
    this.code = code;
    this.hint = hint;
    this.denied = denied;
  }
}

const known = new Map(); // path → {tag, data}

// ask returns {data, changed}; an answer that is the same as the last is not parsed
// again.
export async function ask(path, signal) {
  const used = token;
  const headers = used ? { Authorization: `Bearer ${used}` } : {};
  const last = known.get(path);
  if (last) headers['If-None-Match'] = last.tag;
  const response = await patiently(() => fetch(path, { headers, signal, cache: 'no-store' }), signal);
  if (response.status === 304) return { data: last.data, changed: false };
  const data = await response.json().catch(() => ({ error: { code: 'internal', message: `The answer (${response.status}) cannot be read.` } }));
  if (!response.ok) throw new Problem(data.error, response.status === 401 && used === token);
  known.delete(path);
  known.set(path, { tag: response.headers.get('ETag'), data });
  if (known.size > 40) known.delete(known.keys().next().value);
  return { data, changed: true };
}

// patiently tries once more: a browser breaks off what is under way when the network of
// its machine changes, which says nothing of the agent.
async function patiently(question, signal) {
  for (let tries = 0; ; tries++) {
    try {
      return await question();
    } catch (e) {
      if (signal?.aborted) throw e;
      if (tries > 0 || link.state === 'gone') throw new Problem({ code: 'gone', message: 'The agent does not answer.', hint: 'systemctl status stellar' });
      await new Promise((wake) => { setTimeout(wake, 400); });
    }
  }
}

// Link follows the stream. States: connecting, live, gone, denied.
class Link extends EventTarget {
  state = 'connecting';
  since = Date.now(); // of the state
  #last = null; // time of the newest event
  #newest = new Set(); // events of that very time: they come once more
  #retry = null;
  #abort = null;
  #failed = 0; // times since something was heard
  #waiting = false; // the agent is there and has no events yet

  #be(state) {
    if (state === this.state) return;
    this.state = state;
    this.since = Date.now();
    this.dispatchEvent(new Event('state'));
  }

  // start connects now, whatever was being waited for.
  start() {
    this.stop();
    if (this.state === 'denied') this.#be('connecting'); // with another token
    this.#failed = 0;
    this.#follow();
  }

  // stop lets go of the stream while nobody looks: a browser has six connections to a
  // host for all its tabs together. What was missed comes with the next start.
  stop() {
    clearTimeout(this.#retry);
    this.#abort?.abort();
    this.#abort = null;
  }

  async #follow() {
    const abort = (this.#abort = new AbortController());
    let watch;
    // The agent says something every ten seconds.
    const heard = () => {
      clearTimeout(watch);
      watch = setTimeout(() => abort.abort('silent'), 25000);
    };
    try {
      heard();
      const url = '/api/events' + (this.#last ? `?since=${encodeURIComponent(this.#last)}` : '');
      const response = await fetch(url, { headers: token ? { Authorization: `Bearer ${token}` } : {}, signal: abort.signal, cache: 'no-store' });
      if (abort !== this.#abort) return;
      if (response.status === 401) {
        this.#be('denied');
        return;
      }
      if (response.ok) await this.#read(response.body, heard);
      else this.#take('problem'); // it answers, be it a refusal: the views say which
    } catch { /* the same as an end of the stream */
    } finally {
      clearTimeout(watch);
    }
    if (abort !== this.#abort) return; // start or stop has taken over
    this.#failed++;
    if (this.#failed > 1) this.#be('gone');
    this.#retry = setTimeout(() => this.#follow(), this.#waiting ? 3000 : Math.min(300 * 2 ** (this.#failed - 1), 5000));
  }

  async #read(body, heard) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      const parts = (rest + value).split('\n\n');
      rest = parts.pop();
      for (const part of parts) {
        const [, name, data] = /^event: (\w+)\ndata: (.*)$/s.exec(part) ?? [];
        if (name) this.#take(name, JSON.parse(data));
      }
    }
  }

  #take(name, data) {
    this.#failed = 0;
    this.#waiting = name === 'problem';
    this.#be('live');
    if (name === 'clock') setClock(data.now);
    if (name !== 'events') return;
    const id = (e) => JSON.stringify([e.time, e.type, e.node, e.subject, e.message]);
    const items = data.items.filter((e) => !this.#newest.has(id(e)));
    for (const e of items) {
      if (e.time !== this.#last) this.#newest.clear();
      this.#last = e.time;
      this.#newest.add(id(e));
    }
    if (items.length) this.dispatchEvent(new CustomEvent('happened', { detail: { items, missed: data.missed } }));
  }
}

export const link = new Link();
