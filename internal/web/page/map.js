// The map: every subnet, how full it is, and whose it is.
import { h, text, number, plural, percent, chip, bar, level, note, failure, printable } from './dom.js';
import { ask } from './link.js';
import { Table } from './table.js';

const capacity = (r) => r.used + r.cooling + r.free;
const share = (r) => percent(r.used + r.cooling, capacity(r));
const title = (r) => r.name || r.subnet;

// mood is what a tile shows besides how full it is.
function mood(r) {
  if (r.state === 'quarantined' || r.status === 'removed') return 'quarantined';
  if (r.state === 'free') return 'free';
  if (!r.subnet) return 'without';
  if (r.status === 'lost' || r.status === 'fenced') return 'lost';
  return r.status === 'draining' || r.status === 'joining' ? 'draining' : 'held';
}

function words(r) {
  const parts = [title(r)];
  if (r.self) parts.push('this node');
  if (r.name && r.status !== 'ready') parts.push(r.status);
  if (r.subnet) parts.push(`subnet ${r.subnet}`);
  if (r.state && r.state !== 'held') parts.push(r.state);
  if (r.subnet && capacity(r)) parts.push(`${number(r.used)} of ${number(capacity(r))} used, ${share(r)}`);
  return printable(parts.join(', '));
}

// Tiles is the grid: one stop for Tab, arrows move inside.
class Tiles {
  #rows = [];
  #at = 0;
  #tell;
  el;

  constructor(tell) {
    this.#tell = tell;
    this.el = h('div', { class: 'tiles', role: 'group', 'aria-label': 'Subnets', 'aria-describedby': 'tiles-help', onkeydown: (e) => this.#key(e) });
    this.el.addEventListener('focusin', (e) => this.#pick(e, true));
    this.el.addEventListener('pointerover', (e) => this.#pick(e, false));
    this.el.addEventListener('pointerleave', () => this.#tell(this.#rows[this.#at]));
    this.el.addEventListener('click', (e) => this.#pick(e, true));
  }

  #pick(event, keep) {
    const i = [...this.el.children].indexOf(event.target.closest('.tile'));
    if (i < 0) return;
    if (keep) this.#goto(i);
    this.#tell(this.#rows[i]);
  }

  #goto(i) {
    for (const [j, chosen] of [[this.#at, false], [i, true]]) {
      const tile = this.el.children[j];
      if (!tile) continue;
      tile.tabIndex = chosen ? 0 : -1;
      tile.setAttribute('aria-pressed', String(chosen));
    }
    this.#at = i;
  }

  #key(event) {
    const all = this.el.children;
    let columns = 1;
    while (columns < all.length && all[columns].offsetTop === all[0].offsetTop) columns++;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: 5 * columns, PageUp: -5 * columns }[event.key];
    let to = this.#at + (step ?? 0);
    if (event.key === 'Home') to = 0;
    else if (event.key === 'End') to = all.length - 1;
    else if (!step) return;
    event.preventDefault();
    if (to >= 0 && to < all.length) all[to].focus();
  }

  show(rows) {
    const chosen = this.#rows[this.#at];
    const same = rows.length === this.#rows.length && rows.every((r, i) => r.id + r.subnet === this.#rows[i].id + this.#rows[i].subnet);
    this.#rows = rows;
    const size = rows.length <= 24 ? 'large' : rows.length <= 240 ? 'medium' : 'small';
    this.el.dataset.size = size;
    if (!same) {
      const found = rows.findIndex((r) => (chosen ? r.id + r.subnet === chosen.id + chosen.subnet : r.self));
      this.#at = Math.max(0, found);
      const focused = this.el.contains(document.activeElement);
      this.el.replaceChildren(...rows.map((_, i) => h('button', { type: 'button', class: 'tile', tabindex: i === this.#at ? 0 : -1, 'aria-pressed': String(i === this.#at) })));
      if (focused) this.el.children[this.#at]?.focus();
    }
    rows.forEach((r, i) => this.#draw(this.el.children[i], r, size));
    this.#tell(rows[this.#at]);
  }

  #draw(tile, r, size) {
    const face = JSON.stringify([r, size]);
    if (tile.face === face) return;
    tile.face = face;
    tile.setAttribute('aria-label', words(r));
    tile.dataset.mood = mood(r);
    tile.dataset.level = level(r.used + r.cooling, capacity(r));
    tile.classList.toggle('self', r.self);
    tile.classList.toggle('some', r.used + r.cooling > 0);
    tile.style.setProperty('--share', capacity(r) ? (r.used + r.cooling) / capacity(r) : 0);
    if (size !== 'large') {
      if (tile.firstChild) tile.replaceChildren();
      return;
    }
    tile.replaceChildren(
      h('span', { class: 'tile-head' }, h('span', { class: 'tile-name' }, text(title(r))), r.self ? h('span', { class: 'tag' }, 'this node') : null),
      h('span', { class: 'tile-net' }, r.name ? text(r.subnet) : 'held by nobody'),
      h('span', { class: 'tile-share' }, r.subnet ? share(r) : '–'),
      r.subnet ? bar(r.used, r.cooling, capacity(r)) : null,
      h('span', { class: 'tile-foot' }, chip(r.status), h('span', {}, plural(r.endpoints, 'endpoint'))));
  }
}

// details is the card beside the map.
function details(r) {
  if (!r) return [];
  const line = (k, ...v) => [h('dt', {}, k), h('dd', {}, ...v)];
  return [
    h('h3', {}, text(title(r)), r.self ? h('span', { class: 'tag' }, 'this node') : null),
    h('p', { class: 'chips' }, chip(r.status), r.role && r.role !== '-' ? h('span', { class: 'tag' }, r.role) : null),
    r.subnet ? h('p', { class: 'big' }, share(r), h('span', {}, ` of ${number(capacity(r))} addresses`)) : null,
    r.subnet ? bar(r.used, r.cooling, capacity(r)) : null,
    h('dl', { class: 'facts' },
      line('Subnet', text(r.subnet)), line('Used', number(r.used)), line('Cooling', number(r.cooling)), line('Free', number(r.free)),
      line('Reserved', number(r.reserved)), line('Epoch', text(r.epoch)),
      r.name ? [line('Address', text(r.address)), line('Version', text(r.version)),
        line('Endpoints', r.endpoints ? h('a', { href: `#/endpoints?node=${encodeURIComponent(r.name)}` }, plural(r.endpoints, 'endpoint')) : '0')] : []),
  ];
}

const legend = () => h('ul', { class: 'legend', 'aria-label': 'Legend' },
  [['held', 'normal', 'up to 75 %'], ['held', 'high', 'from 75 %'], ['held', 'full', 'from 90 %'], ['held', 'none', 'empty'], ['draining', 'none', 'draining, joining'], ['lost', 'none', 'lost'], ['quarantined', 'none', 'quarantined'], ['free', 'none', 'free again']]
    .map(([m, l, title]) => {
      const key = h('span', { class: `tile key ${l === 'none' ? '' : 'some'}`, 'data-mood': m, 'data-level': l, 'aria-hidden': 'true' });
      key.style.setProperty('--share', { normal: 0.5, high: 0.8, full: 0.95 }[l] ?? 0);
      return h('li', {}, key, title);
    }));

export function mapView() {
  const card = h('aside', { class: 'card node-card', 'aria-label': 'The chosen subnet' });
  let last;
  const tiles = new Tiles((r) => {
    if (r === last) return;
    last = r;
    card.replaceChildren(...details(r));
  });
  const state = h('div', {}, note('loading', 'Loading…'));
  const field = h('div', { class: 'field-of-tiles' }, tiles.el, h('p', { id: 'tiles-help', class: 'help' }, 'Arrow keys move from subnet to subnet.'), legend());
  const body = h('div', { class: 'atlas', hidden: true }, field, card);
  const count = h('p', { class: 'count' });
  const table = new Table({
    url: '/api/nodes', what: ['node', 'nodes'], hint: 'name, address, subnet, role', key: (r) => r.id + r.subnet,
    empty: () => note('empty', 'No nodes yet'),
    columns: [
      { name: 'name', title: 'Node', cell: (r) => h('span', {}, text(r.name || '–'), r.self ? h('span', { class: 'tag' }, 'this node') : null) },
      { name: 'status', title: 'Status', cell: (r) => chip(r.status) },
      { name: 'role', title: 'Role', cell: (r) => r.role },
      { name: 'subnet', title: 'Subnet', cell: (r) => r.subnet },
      { name: 'full', title: 'Full', cell: (r) => (r.subnet ? h('span', { class: 'full-cell' }, bar(r.used, r.cooling, capacity(r)), h('span', { class: 'num' }, share(r))) : '–') },
      { name: 'free', title: 'Free', numeric: true, cell: (r) => number(r.free) },
      { name: 'endpoints', title: 'Endpoints', numeric: true, cell: (r) => (r.endpoints ? h('a', { href: `#/endpoints?node=${encodeURIComponent(r.name)}`, 'aria-label': `${plural(r.endpoints, 'endpoint')} of ${printable(r.name)}` }, number(r.endpoints)) : '0') },
      { name: 'address', title: 'Address', cell: (r) => r.address },
      { name: 'version', title: 'Version', wide: true, cell: (r) => r.version },
    ],
  });
  const el = h('div', {},
    h('section', { class: 'card', 'aria-labelledby': 'map-title' }, h('div', { class: 'card-head' }, h('h2', { id: 'map-title' }, 'Subnets by address'), count), state, body),
    h('section', { class: 'card', 'aria-labelledby': 'nodes-title' }, h('div', { class: 'card-head' }, h('h2', { id: 'nodes-title' }, 'Nodes')), table.el));
  async function map() {
    try {
      const { data, changed } = await ask('/api/map');
      if (!changed && !body.hidden) return;
      const held = data.items.filter((r) => r.state === 'held').length;
      count.textContent = plural(held, 'subnet') + ' held';
      body.hidden = false;
      state.replaceChildren();
      tiles.show(data.items);
    } catch (e) {
      if (e.code === 'gone' && !body.hidden) return;
      body.hidden = true;
      state.replaceChildren(failure(e, map));
    }
  }
  return { title: 'Map', el, refresh: () => Promise.all([map(), table.refresh()]), leave: () => table.leave() };
}
