// Raft: who leads, who votes, how far each is.
import { h, text, number, plural, bytes, milliseconds, chip, note, failure, printable } from './dom.js';
import { ask } from './link.js';

const answers = (p) => p.state === 'leader' || p.state === 'follower' || p.state === 'candidate';

// quorum is the picture: a mark for each voter, filled while it answers.
function quorum(stats, peers) {
  const voters = peers.filter((p) => p.voter);
  const alive = voters.filter(answers).length;
  const needed = Math.floor(voters.length / 2) + 1;
  const known = voters.some((p) => p.state);
  const left = alive - needed;
  const verdict = !known ? `${plural(voters.length, 'voter')}; ${number(needed)} must agree.`
    : left < 0 ? `Only ${number(alive)} of ${plural(voters.length, 'voter')} answer; ${number(needed)} must. Nothing can be decided; containers run on.`
    : left === 0 && voters.length > 1 ? `${number(alive)} of ${plural(voters.length, 'voter')} answer, just enough: one more failure stops decisions.`
    : voters.length === 1 ? 'One voter: decisions stop when it does. Three tolerate one failure.'
    : `${number(alive)} of ${plural(voters.length, 'voter')} answer; ${plural(left, 'more may', 'more may')} fail.`;
  return h('div', { class: 'quorum' },
    h('ul', { class: 'voters', 'aria-label': 'Voters' }, voters.map((p) =>
      h('li', { class: p.state === 'leader' ? 'leader' : answers(p) ? 'alive' : p.state ? 'dead' : 'unknown' },
        h('span', { class: 'pip', 'aria-hidden': 'true' }, p.state === 'leader' ? '★' : answers(p) ? '✓' : p.state ? '✕' : '?'),
        h('span', { class: 'voter-name' }, text(p.node || p.id.slice(0, 8))), h('span', { class: 'voter-state' }, text(p.state || 'not known'))))),
    h('p', { class: left < 0 && known ? 'reason' : null }, verdict));
}

const figure = (title, value, more) => h('div', { class: 'figure' }, h('dt', {}, title), h('dd', {}, value), more ? h('dd', { class: 'more' }, more) : null);

function draw({ stats, peers }) {
  const behind = stats.lastIndex - stats.appliedIndex;
  return [
    stats.error ? note('error', 'Raft was stopped on this node', printable(stats.error)) : null,
    h('section', { class: 'card', 'aria-labelledby': 'raft-title' }, h('div', { class: 'card-head' }, h('h2', { id: 'raft-title' }, 'Quorum')), quorum(stats, peers),
      h('dl', { class: 'figures' },
        figure('Leader', text(stats.leader || 'none'), stats.state === 'leader' ? 'this node' : `heard ${milliseconds(stats.lastContactMs)} ago`),
        figure('Term', number(stats.term), `generation ${number(stats.generation)}`),
        figure('Applied', number(stats.appliedIndex), behind > 0 ? `${number(behind)} behind its log` : 'all of its log'),
        figure('Committed', number(stats.commitIndex)),
        figure('Snapshot', stats.snapshotIndex ? number(stats.snapshotIndex) : 'none yet', `log ${bytes(stats.logBytes)}`),
        figure('Servers', number(stats.servers), `${plural(stats.voters, 'voter')}, tolerates ${plural(stats.tolerates, 'failure')}`))),
    h('section', { class: 'card', 'aria-labelledby': 'peers-title' }, h('div', { class: 'card-head' }, h('h2', { id: 'peers-title' }, 'Peers'), h('p', { class: 'count' }, `as ${printable(stats.node)} knows them`)),
      h('div', { class: 'rows' }, h('table', { 'aria-label': 'Peers' },
        h('thead', {}, h('tr', {}, ['Node', 'State', 'Vote', 'Commit index', 'Behind the leader', 'Address', 'Id'].map((t, i) => h('th', { scope: 'col', class: i === 3 || i === 4 ? 'numeric' : i === 6 ? 'wide' : null }, t)))),
        h('tbody', {}, peers.map((p) => h('tr', {},
          h('th', { scope: 'row', class: 'first', 'data-title': 'Node' }, h('div', { class: 'cell' }, text(p.node))),
          h('td', { 'data-title': 'State' }, h('div', { class: 'cell' }, p.state ? chip(p.state) : 'not known')),
          h('td', { 'data-title': 'Vote' }, h('div', { class: 'cell' }, p.voter ? 'voter' : 'no vote')),
          h('td', { class: 'numeric', 'data-title': 'Commit index' }, h('div', { class: 'cell' }, p.commitIndex ? number(p.commitIndex) : '–')),
          h('td', { class: 'numeric', 'data-title': 'Behind the leader' }, h('div', { class: 'cell' }, p.trailsLeaderBy < 0 ? '–' : plural(p.trailsLeaderBy, 'entry', 'entries'))),
          h('td', { 'data-title': 'Address' }, h('div', { class: 'cell' }, text(p.address))),
          h('td', { class: 'wide', 'data-title': 'Id' }, h('div', { class: 'cell' }, text(p.id)))))))))
  ].filter(Boolean);
}

export function raftView() {
  const el = h('div', {}, note('loading', 'Loading…'));
  let shown = false;
  async function refresh() {
    try {
      const { data, changed } = await ask('/api/raft');
      if (!changed && shown) return;
      shown = true;
      el.replaceChildren(...draw(data));
    } catch (e) {
      if (e.code === 'gone' && shown) return;
      shown = false;
      el.replaceChildren(failure(e, refresh));
    }
  }
  return { title: 'Raft', el, refresh, leave() {} };
}
