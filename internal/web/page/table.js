// A table whose rows are searched, sorted and paged by the agent.
import { h, text, number, plural, note, failure } from './dom.js';
import { ask } from './link.js';

const LIMIT = 50;
let serial = 0;

// Options: url, what (one, many: the names of a row), columns, key(row), empty (an
// element's maker for when there are no rows at all), params (fixed), filters
// (elements before the search), details(row) (a promise of an element, or nothing).
// A column: name, title, cell(row), sortable, numeric, wide (shown on wide screens).
export class Table {
  #o;
  #query = { q: '', state: '', sort: '', order: 'asc', offset: 0 };
  #open = new Map(); // key → element of a row that is opened
  #abort = null;
  #shown = null;
  #rows; #count; #states; #search; #pager; #wrap; #heads = new Map(); #place; #buttons = {};

  constructor(options) {
    this.#o = options;
    const id = `table-${++serial}`;
    this.#search = h('input', { type: 'search', id: `${id}-q`, placeholder: options.hint, autocomplete: 'off', spellcheck: 'false', oninput: () => this.#typed() });
    this.#states = h('select', { id: `${id}-state`, onchange: () => this.#ask({ state: this.#states.value, offset: 0 }) }, h('option', { value: '' }, 'all'));
    this.#count = h('p', { class: 'count', role: 'status' });
    this.#rows = h('tbody', {});
    const table = h('table', { 'aria-label': options.what[1] }, h('thead', {}, h('tr', {}, options.columns.map((c) => this.#head(c)))), this.#rows);
    this.#wrap = h('div', { class: 'rows' }, table);
    this.#place = h('span', { class: 'place-in' });
    const step = (name, title, to) => (this.#buttons[name] = h('button', { type: 'button', onclick: () => this.#ask({ offset: to() }) }, title));
    this.#pager = h('div', { class: 'pager', role: 'group', 'aria-label': 'Pages' },
      step('first', 'First', () => 0), step('previous', 'Previous', () => Math.max(0, this.#query.offset - LIMIT)), this.#place,
      step('next', 'Next', () => this.#query.offset + LIMIT), step('last', 'Last', () => Math.floor((this.#shown.matched - 1) / LIMIT) * LIMIT));
    this.notes = h('div', { class: 'notes' }, note('loading', 'Loading…'));
    this.el = h('div', { class: 'listing' },
      h('div', { class: 'tools', role: 'search' },
        h('label', { class: 'field grow', for: `${id}-q` }, h('span', {}, `Search ${options.what[1]}`), this.#search),
        h('label', { class: 'field', for: `${id}-state` }, h('span', {}, 'State'), this.#states), options.filters ?? []),
      this.#count, this.notes, this.#wrap, this.#pager);
    this.#wrap.hidden = this.#pager.hidden = true;
  }

  #head(column) {
    const kind = [column.numeric && 'numeric', column.wide && 'wide'].filter(Boolean).join(' ') || null;
    if (column.sortable === false) return h('th', { scope: 'col', class: kind }, column.title);
    const th = h('th', { scope: 'col', class: kind }, h('button', { type: 'button', class: 'sort', onclick: () => this.#sort(column.name) }, column.title, h('span', { class: 'arrow', 'aria-hidden': 'true' })));
    this.#heads.set(column.name, th);
    return th;
  }

  #sort(name) {
    const again = this.#query.sort === name;
    this.#ask({ sort: name, order: again && this.#query.order === 'asc' ? 'desc' : 'asc', offset: 0 });
  }

  #typing = null;
  #typed() {
    clearTimeout(this.#typing);
    this.#typing = setTimeout(() => this.#ask({ q: this.#search.value.trim(), offset: 0 }), 120);
  }

  // set changes what is asked for, by one who is not the user: a link with a search.
  set(query) {
    Object.assign(this.#query, query);
    this.#search.value = this.#query.q;
  }

  #ask(change) {
    Object.assign(this.#query, change);
    return this.refresh();
  }

  // refresh asks again; its error is shown, and kept out of the way of old rows.
  async refresh() {
    this.#abort?.abort();
    const abort = (this.#abort = new AbortController());
    const params = new URLSearchParams({ ...this.#query, ...(this.#o.params?.() ?? {}), limit: LIMIT });
    for (const [k, v] of [...params]) if (v === '') params.delete(k);
    try {
      const { data, changed } = await ask(`${this.#o.url}?${params}`, abort.signal);
      if (abort.signal.aborted) return;
      if (changed || data !== this.#shown) this.#show(data);
    } catch (e) {
      if (abort.signal.aborted) return;
      if (e.code === 'gone' && this.#shown) return; // the banner says so; what was known stays
      this.#wrap.hidden = this.#pager.hidden = true;
      this.#shown = null;
      this.#count.textContent = '';
      this.notes.replaceChildren(failure(e, () => this.refresh()));
    }
  }

  leave() {
    clearTimeout(this.#typing);
    this.#abort?.abort();
  }

  #show(data) {
    this.#shown = data;
    this.#query.offset = data.offset;
    const searched = this.#query.q || this.#query.state || data.matched !== data.total;
    this.#count.textContent = searched ? `${number(data.matched)} of ${plural(data.total, ...this.#o.what)}` : plural(data.total, ...this.#o.what);
    this.#showStates(data.states);
    const none = data.matched === 0;
    this.#wrap.hidden = none;
    this.#pager.hidden = data.matched <= LIMIT;
    if (none && data.total === 0) this.notes.replaceChildren(this.#o.empty());
    else if (none) this.notes.replaceChildren(note('empty', 'Nothing matches', '', h('button', { type: 'button', onclick: () => this.#clear() }, 'Show all')));
    else this.notes.replaceChildren();
    for (const [name, th] of this.#heads) {
      const sorted = name === (this.#query.sort || this.#o.columns[0].name);
      if (sorted) th.setAttribute('aria-sort', this.#query.order === 'desc' ? 'descending' : 'ascending');
      else th.removeAttribute('aria-sort');
    }
    this.#place.textContent = `${number(data.offset + 1)}–${number(data.offset + data.items.length)} of ${number(data.matched)}`;
    const back = data.offset > 0, on = data.offset + data.items.length < data.matched;
    for (const [name, able] of [['first', back], ['previous', back], ['next', on], ['last', on]]) this.#able(this.#buttons[name], able);
    this.#fill(data.items);
    this.#o.shown?.(data);
  }

  // #able keeps a button that has just been used focusable: its focus would be lost.
  #able(button, able) {
    button.disabled = !able && document.activeElement !== button;
    button.setAttribute('aria-disabled', String(!able));
  }

  #clear() {
    this.set({ q: '', state: '', offset: 0 });
    this.#o.cleared?.();
    this.#search.focus();
    this.refresh();
  }

  #showStates(states) {
    const all = Object.values(states).reduce((a, b) => a + b, 0);
    const options = [['', `all (${number(all)})`], ...Object.keys(states).sort().map((s) => [s, `${s} (${number(states[s])})`])];
    if (this.#query.state && !(this.#query.state in states)) options.push([this.#query.state, `${this.#query.state} (0)`]);
    this.#states.replaceChildren(...options.map(([value, title]) => h('option', { value }, title)));
    this.#states.value = this.#query.state;
  }

  #fill(items) {
    const focused = this.#rows.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const keys = new Set(items.map(this.#o.key));
    for (const key of this.#open.keys()) if (!keys.has(key)) this.#open.delete(key);
    this.#rows.replaceChildren(...items.flatMap((row) => this.#row(row)));
    if (focused) [...this.#rows.querySelectorAll('[data-key]')].find((e) => e.dataset.key === focused)?.focus();
  }

  #row(row) {
    const key = this.#o.key(row);
    const cells = this.#o.columns.map((c, i) => {
      const kind = [c.numeric && 'numeric', c.wide && 'wide', i === 0 && 'first'].filter(Boolean).join(' ') || null;
      let content = c.cell(row);
      if (typeof content === 'string') content = text(content);
      if (i === 0 && this.#o.details) content = this.#opener(row, key, content);
      return h(i === 0 ? 'th' : 'td', { class: kind, scope: i === 0 ? 'row' : null, 'data-title': c.title }, h('div', { class: 'cell' }, content));
    });
    const tr = h('tr', {}, cells);
    const opened = this.#open.get(key);
    return opened ? [tr, opened] : [tr];
  }

  #opener(row, key, content) {
    const button = h('button', { type: 'button', class: 'open', 'data-key': key, 'aria-expanded': String(this.#open.has(key)) }, h('span', { class: 'arrow', 'aria-hidden': 'true' }), h('span', {}, content));
    button.addEventListener('click', async () => {
      const was = this.#open.get(key);
      button.setAttribute('aria-expanded', String(!was));
      if (was) {
        was.remove();
        this.#open.delete(key);
        return;
      }
      const box = h('td', { colspan: this.#o.columns.length }, note('loading', 'Loading…'));
      const tr = h('tr', { class: 'details' }, box);
      this.#open.set(key, tr);
      button.closest('tr').after(tr);
      try {
        box.replaceChildren(await this.#o.details(row));
      } catch (e) {
        box.replaceChildren(failure(e));
      }
    });
    return button;
  }
}
