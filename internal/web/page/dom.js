// Elements and words. Text from the cluster (names of containers, reasons) is
// untrusted: it becomes text nodes and nothing else; no HTML is ever parsed here.

// h makes an element. Attributes: on* are listeners, true and false switch.
export function h(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith('on')) e.addEventListener(key.slice(2), value);
    else e.setAttribute(key, value === true ? '' : value);
  }
  e.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}

// Characters that move text about or are not seen, among them those that turn the
// direction of writing.
const hidden = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}]/gu;

// printable shows such characters as their number, as the command line does.
export function printable(s) {
  return String(s ?? '').replace(hidden, (c) => '\\u' + c.codePointAt(0).toString(16).padStart(4, '0'));
}

// text is printable, or a dash for what is empty.
export const text = (s) => printable(s) || '–';

const numbers = new Intl.NumberFormat('en');
export const number = (n) => numbers.format(n);

// plural: 1 node, 2 nodes.
export const plural = (n, one, many = one + 's') => `${number(n)} ${n === 1 ? one : many}`;

// percent: a little is not nothing, and nearly all is not all.
export function percent(part, whole) {
  if (!whole || !part) return '0 %';
  const p = (100 * part) / whole;
  if (p < 0.1) return '< 0.1 %';
  if (p < 10) return p.toFixed(1) + ' %';
  return (part < whole ? Math.min(99, Math.round(p)) : 100) + ' %';
}

export function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return `${i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}

export function milliseconds(ms) {
  if (ms === null || ms === undefined) return 'never';
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  return ms < 120000 ? `${(ms / 1000).toFixed(1)} s` : span(ms);
}

// span: the largest unit that fits, as the command line has it.
export function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return plural(Math.floor(s / 86400), 'day');
}

// offset is the agent's clock minus the browser's, in ms.
let offset = 0;
export const setClock = (now) => { offset = Date.parse(now) - Date.now(); };
export const agentNow = () => Date.now() + offset;

// age is a <time> that says how long ago it was; the whole date is its title.
export function age(when) {
  const t = Date.parse(when);
  if (!when || t <= 0 || Number.isNaN(t)) return '–';
  return h('time', { class: 'age', datetime: when, title: new Date(t).toLocaleString() }, span(agentNow() - t));
}

// grow lets the ages that are shown grow.
export function grow() {
  for (const e of document.querySelectorAll('time.age')) e.textContent = span(agentNow() - Date.parse(e.dateTime));
}

export function clock(when) {
  const t = new Date(when);
  const far = agentNow() - t > 86400000;
  const time = t.toLocaleTimeString('en-GB');
  return h('time', { datetime: when, title: t.toLocaleString() }, far ? `${t.toLocaleDateString('en-CA')} ${time}` : time);
}

// grades of the words that the API has for states. Not colour alone: each has a sign.
const grades = {
  ok: ['OK', 'ok', 'attached', 'ready', 'held', 'leader', 'follower', 'attach', 'free', 'bound', 'shared', 'unreachable'],
  warn: ['WARN', 'provisional', 'pending', 'retrying', 'joining', 'draining', 'candidate', 'missing', 'not-adjacent', 'stray', 'quarantined', 'removed', 'repair'],
  err: ['ERR', 'rejected', 'reject', 'lost', 'fenced', 'silent', 'regressed', 'conflict'],
};
const calm = new Set(['bound', 'free', 'shared', 'follower', 'unreachable', 'detach']);

export function grade(state) {
  if (calm.has(state)) return 'calm';
  for (const [g, states] of Object.entries(grades)) if (states.includes(state)) return g;
  return 'calm';
}

const signs = { ok: '●', warn: '▲', err: '✕', calm: '○' };

export const chip = (state, label = state) =>
  h('span', { class: `chip ${grade(state)}` }, h('span', { 'aria-hidden': 'true', class: 'sign' }, signs[grade(state)]), text(label));

// bar shows how full something is. The words beside it say the same.
export function bar(used, cooling, total) {
  const e = h('span', { class: `bar ${level(used + cooling, total)}`, 'aria-hidden': 'true' }, h('span', { class: 'used' }), h('span', { class: 'cooling' }));
  e.style.setProperty('--used', total ? used / total : 0);
  e.style.setProperty('--cooling', total ? cooling / total : 0);
  return e;
}

// level: from where on a person should know.
export function level(taken, total) {
  const share = total ? taken / total : 0;
  return share >= 0.9 ? 'full' : share >= 0.75 ? 'high' : 'normal';
}

// note is what a view shows instead of data: loading, nothing there, an error.
export function note(kind, title, body, ...more) {
  return h('div', { class: `state ${kind}`, role: kind === 'error' ? 'alert' : 'status' },
    h('p', { class: 'state-title' }, title), body ? h('p', {}, body) : null, ...more);
}

export function failure(problem, again) {
  const kind = problem.code === 'not_initialized' ? 'empty' : 'error';
  return note(kind, printable(problem.message), problem.hint ? printable(problem.hint) : '',
    again ? h('button', { type: 'button', onclick: again }, 'Try again') : null);
}
