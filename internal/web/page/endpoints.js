// Endpoints of all nodes, with search; all about one of this node.
import { h, text, printable, chip, age, note, milliseconds } from './dom.js';
import { ask } from './link.js';
import { Table } from './table.js';

// short: the 64 digits that nerdctl and others give their containers.
const short = (id) => (/^[0-9a-f]{64}$/.test(id) ? id.slice(0, 12) : id);

function facts(pairs) {
  return h('dl', { class: 'facts wide-facts' }, pairs.filter(([, v]) => v !== '' && v !== undefined && v !== null && v !== 0)
    .flatMap(([k, v]) => [h('dt', {}, k), h('dd', {}, typeof v === 'object' ? v : text(v))]));
}

function phases(list) {
  const total = list.reduce((sum, p) => sum + p.ms, 0);
  return h('div', { class: 'phases' }, h('h4', {}, `The attach took ${milliseconds(total)}`),
    h('ol', {}, list.map((p) => {
      const li = h('li', {}, h('span', { class: 'phase-bar', 'aria-hidden': 'true' }), h('span', {}, `${printable(p.name)} ${milliseconds(p.ms)}`));
      li.style.setProperty('--share', total ? p.ms / total : 0);
      return li;
    })));
}

async function details(row, self) {
  const basic = [['Container', row.container], ['Namespace', row.namespace], ['Network', row.network], ['Address', row.address], ['Interface', row.ifname]];
  if (row.node !== self) {
    return h('div', { class: 'inside' }, facts([...basic, ['Node', row.node]]),
      h('p', { class: 'help' }, 'Its node knows more. There: ', h('code', {}, `stellar endpoint inspect ${printable(row.namespace)}/${printable(row.container)}`)));
  }
  const { data: d } = await ask(`/api/endpoint?${new URLSearchParams({ namespace: row.namespace, container: row.container, ifname: row.ifname })}`);
  return h('div', { class: 'inside' },
    d.reason ? h('p', { class: 'reason' }, printable(d.reason)) : null,
    facts([...basic, ['MAC', d.mac], ['On the host', d.hostIfname], ['Gateway', d.gateway], ['MTU', d.mtu], ['Ready', d.ready], ['Asked by', d.source],
      ['Hostname', d.hostname], ['Lease', d.leaseState], ['Static address', d.static ? 'yes' : ''], ['Strict', d.strict ? 'yes' : ''],
      ['Not replicated yet', d.provisional ? 'yes' : ''], ['PID', d.pid], ['Namespace inode', d.netns], ['Created', d.created ? age(d.created) : '']]),
    d.phases?.length ? phases(d.phases) : null);
}

export function endpointsView(app, params) {
  let node = params.get('node') ?? '';
  const only = h('p', { class: 'only' });
  const showOnly = () => only.replaceChildren(...(node ? [h('span', { class: 'tag' }, `on ${printable(node)}`), h('button', { type: 'button', onclick: () => { location.hash = '#/endpoints'; } }, 'Show all nodes')] : []));
  showOnly();
  const table = new Table({
    url: '/api/endpoints', what: ['endpoint', 'endpoints'], hint: 'container, address, node, reason',
    params: () => ({ node }), cleared: () => { node = ''; showOnly(); },
    key: (e) => JSON.stringify([e.node, e.namespace, e.container, e.ifname]), details: (row) => details(row, app.node()),
    empty: () => note('empty', 'No endpoints yet', 'A container with this label gets a network:', h('pre', {}, h('code', {}, 'ctr run --label stellar.io/network=true docker.io/library/busybox:latest web sleep 1d'))),
    columns: [
      { name: 'container', title: 'Container', cell: (e) => h('span', { title: e.container.length > 12 ? printable(e.container) : null }, text(short(e.container))) },
      { name: 'state', title: 'State', cell: (e) => h('span', {}, chip(e.state), e.reason ? h('span', { class: 'reason' }, printable(e.reason)) : null) },
      { name: 'address', title: 'Address', cell: (e) => e.address },
      { name: 'node', title: 'Node', cell: (e) => e.node },
      { name: 'namespace', title: 'Namespace', cell: (e) => e.namespace },
      { name: 'ifname', title: 'Interface', sortable: false, cell: (e) => e.ifname },
      { name: 'since', title: 'Age', numeric: true, cell: (e) => age(e.since) },
    ],
  });
  const el = h('section', { class: 'card', 'aria-labelledby': 'endpoints-title' }, h('div', { class: 'card-head' }, h('h2', { id: 'endpoints-title' }, 'Endpoints'), only), table.el);
  return { title: 'Endpoints', el, refresh: () => table.refresh(), leave: () => table.leave() };
}
