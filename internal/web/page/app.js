// What is around the views: which one is open, the figures on top, whether the agent
// is there, and when to ask it again.
import { h, text, number, plural, percent, chip, printable, span, grow } from './dom.js';
import { link, ask, takeToken, useToken, Problem } from './link.js';
import { mapView } from './map.js';
import { endpointsView } from './endpoints.js';
import { routesView } from './routes.js';
import { raftView } from './raft.js';
import { eventsView } from './events.js';

const views = { map: mapView, endpoints: endpointsView, routes: routesView, raft: raftView, events: eventsView };
const PERIOD = 5000; // between questions while nothing happens
const SOON = 2000; // after an event; many come at once

const $ = (id) => document.getElementById(id);
const main = $('main');
let summary = null;
let view = null;
let answered = Date.now(); // when the agent last did

const top = h('section', { class: 'summary', 'aria-label': 'This node and its cluster' });
const stage = h('div', { class: 'stage' });

const app = { node: () => summary?.node };

function open() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  const name = views[path] ? path : 'map';
  view?.leave();
  view = views[name](app, new URLSearchParams(query));
  document.title = `${view.title} · Stellar${summary ? ' · ' + printable(summary.node) : ''}`;
  for (const a of document.querySelectorAll('nav.views a')) {
    if (a.hash === `#/${name}`) a.setAttribute('aria-current', 'page');
    else a.removeAttribute('aria-current');
  }
  stage.replaceChildren(view.el);
  if (link.state !== 'denied') view.refresh();
}

// figures are the line on top of every view.
function figures(s) {
  const nodes = Object.values(s.nodes).reduce((a, b) => a + b, 0);
  const endpoints = Object.values(s.endpoints).reduce((a, b) => a + b, 0);
  const bad = (s.endpoints.rejected ?? 0) + (s.endpoints.retrying ?? 0);
  const total = s.used + s.cooling + s.free;
  const figure = (title, value, more, kind) => h('div', { class: 'figure' }, h('dt', {}, title), h('dd', {}, value), h('dd', { class: `more ${kind ?? ''}` }, more));
  const raft = s.checks.find((c) => c.name === 'raft')?.reason ?? '';
  const leader = s.checks.find((c) => c.name === 'leader');
  const rest = nodes - (s.nodes.ready ?? 0);
  return h('dl', { class: 'figures' },
    figure('Nodes', number(nodes), rest ? Object.entries(s.nodes).filter(([k]) => k !== 'ready').map(([k, n]) => `${number(n)} ${k}`).join(', ') : 'all ready', rest ? 'warn' : ''),
    figure('Addresses used', percent(s.used + s.cooling, total), `${number(s.used)} of ${number(total)}`),
    figure('Endpoints', number(endpoints), bad ? `${number(bad)} ${bad === 1 ? 'needs' : 'need'} a look` : 'none in trouble', bad ? 'warn' : ''),
    figure('Raft', leader?.state === 'OK' ? 'Leader answers' : 'No leader', printable(raft), leader?.state === 'OK' ? '' : 'warn'));
}

function health(s) {
  const bad = s.checks.filter((c) => c.state !== 'OK');
  const words = bad.length === 0 ? 'Everything is as it should be' : `${plural(bad.length, 'finding')}: ${bad.map((c) => c.name).join(', ')}`;
  const open = top.querySelector('details')?.open ?? false;
  return h('details', { class: 'health', open },
    h('summary', {}, chip(s.state, s.state === 'ERR' ? 'Error' : s.state === 'WARN' ? 'Warning' : 'Healthy'), h('span', {}, printable(words))),
    h('ul', { class: 'checks' }, s.checks.map((c) => h('li', {}, chip(c.state, c.name), h('span', {}, text(c.reason || 'as it should be'))))));
}

async function summarize() {
  try {
    const { data, changed } = await ask('/api/summary');
    answered = Date.now();
    if (!changed && summary) return;
    const first = !summary;
    summary = data;
    $('place').replaceChildren(h('strong', {}, text(data.node)), data.cluster ? h('span', {}, ` in cluster ${printable(data.cluster.slice(0, 8))}`) : h('span', {}, ' in no cluster yet'));
    $('version').textContent = `Stellar ${printable(data.version)}`;
    const focused = top.querySelector('summary') === document.activeElement && !first;
    top.replaceChildren(...[data.problem ? null : figures(data), health(data)].filter(Boolean));
    if (focused) top.querySelector('summary').focus();
    if (first) document.title = `${view.title} · Stellar · ${printable(data.node)}`;
  } catch (e) {
    if (!(e instanceof Problem)) throw e;
    if (e.denied) denied();
  }
}

let timer = null;
let planned = Infinity;
// refresh asks for everything that is seen, now, and plans the next time.
async function refresh() {
  clearTimeout(timer);
  planned = Infinity;
  if (document.hidden || link.state === 'gone' || link.state === 'denied') return; // asked again when that ends
  await Promise.all([summarize(), view.refresh()]);
  plan(PERIOD);
}

function plan(after) {
  const at = Date.now() + after;
  if (at >= planned) return;
  planned = at;
  clearTimeout(timer);
  timer = setTimeout(refresh, after);
}

// denied asks for the token.
function denied() {
  if (main.querySelector('form')) return;
  view?.leave();
  const input = h('input', { type: 'password', id: 'token', autocomplete: 'off', required: true });
  const form = h('form', { class: 'card token' }, h('h2', {}, 'This page needs its token'),
    h('p', {}, 'On the node, as root: ', h('code', {}, 'stellar web'), '. It prints an address to be opened; or type the token here.'),
    h('label', { class: 'field', for: 'token' }, h('span', {}, 'Token'), input), h('button', { type: 'submit' }, 'Open'));
  form.addEventListener('submit', (e) => {
    e.preventDefault();
    useToken(input.value.trim().replace(/^.*token=/, ''));
    begin();
  });
  main.replaceChildren(form);
  input.focus();
}

function resume() {
  if (link.state === 'denied') return;
  link.start();
  refresh();
}

function begin() {
  main.replaceChildren(top, stage);
  open();
  link.start();
  refresh();
}

const words = { connecting: 'Connecting…', live: 'Live', gone: 'Agent gone', denied: 'No access' };
let counting = null;
function showLink() {
  $('link').dataset.state = link.state;
  $('link-text').textContent = words[link.state];
  document.body.classList.toggle('stale', link.state === 'gone');
  clearInterval(counting);
  const banner = $('banner');
  banner.hidden = link.state !== 'gone';
  if (link.state === 'gone') {
    const since = h('span', { 'aria-hidden': 'true' });
    const tick = () => { since.textContent = ` What you see is ${span(Date.now() - answered)} old.`; };
    tick();
    counting = setInterval(tick, 1000);
    banner.replaceChildren(h('strong', {}, 'The agent does not answer.'), ' Containers keep their networks. Trying again until it does.', since);
  }
}

link.addEventListener('state', () => {
  showLink();
  if (link.state === 'live') refresh();
  if (link.state === 'denied') denied();
});
link.addEventListener('happened', () => plan(SOON));
document.addEventListener('visibilitychange', () => (document.hidden ? link.stop() : resume()));
window.addEventListener('pagehide', () => link.stop());
window.addEventListener('pageshow', (e) => { if (e.persisted) resume(); });
window.addEventListener('hashchange', () => {
  if (takeToken()) {
    begin();
    return;
  }
  if (link.state === 'denied') return;
  open();
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
});
$('skip').addEventListener('click', (e) => {
  e.preventDefault(); // the address says which view is open
  main.focus();
});

setInterval(grow, 5000);
try {
  sessionStorage.removeItem('stellar-boots'); // all parts are there: see boot.js
} catch { /* storage may be forbidden */ }
takeToken();
showLink();
begin();
