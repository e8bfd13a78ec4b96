// The routes of this node, as they should be and as the kernel has them.
import { h, text, number, plural, printable, chip, note } from './dom.js';
import { Table } from './table.js';

export function routesView() {
  const only = h('input', { type: 'checkbox', id: 'only-drift', onchange: () => { table.set({ offset: 0 }); table.refresh(); } });
  const verdict = h('div', { class: 'verdict', role: 'status' });
  const table = new Table({
    url: '/api/routes', what: ['route', 'routes'], hint: 'destination, next hop, node, state', key: (r) => `${r.destination} ${r.dev} ${r.via} ${r.node}`,
    params: () => (only.checked ? { drift: 'true' } : {}), cleared: () => { only.checked = false; },
    filters: h('label', { class: 'check', for: 'only-drift' }, only, h('span', {}, 'Only drift')),
    empty: () => (only.checked ? note('empty', 'No drift', 'Every route is as it should be.') : note('empty', 'No routes yet', 'A node has one for each other node’s subnet.')),
    shown: (data) => show(data),
    columns: [
      { name: 'destination', title: 'Destination', cell: (r) => r.destination },
      { name: 'via', title: 'Via', cell: (r) => r.via },
      { name: 'dev', title: 'Device', cell: (r) => r.dev },
      { name: 'node', title: 'Node', cell: (r) => r.node },
      { name: 'state', title: 'State', cell: (r) => h('span', {}, chip(r.state), r.drift ? h('span', { class: 'tag warn' }, 'drift') : null, r.reason ? h('span', { class: 'reason' }, printable(r.reason)) : null) },
    ],
  });
  function show(data) {
    const problem = data.problem ? h('p', { class: 'reason' }, `The kernel was not asked: ${printable(data.problem.message)}`) : null;
    if (data.drift === 0) verdict.replaceChildren(h('p', {}, chip('ok', 'no drift'), ' The kernel has what it should have.'), problem ?? '');
    else verdict.replaceChildren(h('p', {}, chip('WARN', plural(data.drift, 'route has', 'routes have') + ' drifted'), ' The agent puts right what is its own within seconds; ', h('code', {}, 'stellar route sync'), ' does it now.'), problem ?? '');
  }
  const el = h('section', { class: 'card', 'aria-labelledby': 'routes-title' }, h('div', { class: 'card-head' }, h('h2', { id: 'routes-title' }, 'Routes of this node')), verdict, table.el);
  return { title: 'Routes', el, refresh: () => table.refresh(), leave: () => table.leave() };
}
