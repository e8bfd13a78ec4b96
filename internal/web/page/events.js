// Events as they happen. They are kept from the page's opening on, whatever view is
// open.
import { h, text, number, plural, printable, chip, clock, grade, note } from './dom.js';
import { link } from './link.js';

const KEEP = 500;

// log has the newest last.
export const log = [];
let missed = 0;
link.addEventListener('happened', ({ detail }) => {
  log.push(...detail.items);
  missed += detail.missed;
  if (log.length > KEEP) log.splice(0, log.length - KEEP);
});

const line = (e) => h('li', { class: grade(e.type) }, clock(e.time), chip(e.type), h('span', { class: 'subject' }, text(e.subject)), h('span', { class: 'message' }, printable(e.message)), h('span', { class: 'on' }, text(e.node)));

export function eventsView() {
  let held = null; // what is shown while paused
  const search = h('input', { type: 'search', id: 'events-q', placeholder: 'type, subject, message', autocomplete: 'off', spellcheck: 'false', oninput: () => draw() });
  const type = h('select', { id: 'events-type', onchange: () => draw() });
  const pause = h('button', { type: 'button', 'aria-pressed': 'false', onclick: () => {
    held = held ? null : [...log];
    pause.setAttribute('aria-pressed', String(Boolean(held)));
    pause.textContent = held ? 'Go on' : 'Pause';
    draw();
  } }, 'Pause');
  const count = h('p', { class: 'count', role: 'status' });
  const list = h('ol', { class: 'events', role: 'log', 'aria-live': 'off', 'aria-label': 'Events, the newest first' });
  const state = h('div', {});
  function draw() {
    const all = held ?? log;
    const types = [...new Set(all.map((e) => e.type))].sort();
    if (type.value && !types.includes(type.value)) types.push(type.value);
    const chosen = type.value;
    if (type.children.length !== types.length + 1) type.replaceChildren(h('option', { value: '' }, 'all'), ...types.map((t) => h('option', { value: t }, printable(t))));
    type.value = chosen;
    const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (e) => (!chosen || e.type === chosen) && terms.every((t) => `${e.type} ${e.subject} ${e.message} ${e.node}`.toLowerCase().includes(t));
    const found = all.filter(fits).reverse();
    const fresh = held ? log.length && log.indexOf(held.at(-1)) : 0;
    const waiting = held && fresh >= 0 ? log.length - 1 - fresh : 0;
    count.textContent = (found.length === all.length ? plural(all.length, 'event') : `${number(found.length)} of ${plural(all.length, 'event')}`)
      + (held ? `; paused, ${number(Math.max(0, waiting))} new` : '') + (missed ? `; ${number(missed)} came too fast to be shown` : '');
    list.replaceChildren(...found.slice(0, 200).map(line));
    list.hidden = found.length === 0;
    if (found.length) state.replaceChildren(found.length > 200 ? h('p', { class: 'help' }, 'The newest 200; a search finds older ones.') : '');
    else if (all.length) state.replaceChildren(note('empty', 'Nothing matches'));
    else state.replaceChildren(note('empty', 'No events yet', 'What happens to containers, routes and this node appears here at once.'));
  }
  let due = null;
  const happened = () => {
    due ??= setTimeout(() => {
      due = null;
      draw();
    }, 250);
  };
  link.addEventListener('happened', happened);
  draw();
  const el = h('section', { class: 'card', 'aria-labelledby': 'events-title' }, h('div', { class: 'card-head' }, h('h2', { id: 'events-title' }, 'Events of this node')),
    h('div', { class: 'tools', role: 'search' }, h('label', { class: 'field grow', for: 'events-q' }, h('span', {}, 'Search events'), search),
      h('label', { class: 'field', for: 'events-type' }, h('span', {}, 'Type'), type), pause),
    count, state, list);
  return {
    title: 'Events', el, refresh: async () => {},
    leave() {
      clearTimeout(due);
      link.removeEventListener('happened', happened);
    },
  };
}
