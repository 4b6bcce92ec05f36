// Runs and studies: pictures, figures and curves, live while a run trains.
import { about, blob, get, postJson } from './api.js';
import { $, $$, h, picture, say, svg } from './dom.js';

const root = $('[data-view=gallery]'), urls = new Map(); // of pictures by path: [when the run was updated, URL]
const EVERY = 3000; // ms between two looks at runs that train
let timer, open = null;

// A picture of a run; of a run that trains, the newest.
async function image({ id, updated }, name, alt) {
  const path = `gallery/${id}/${name.split('/').map(encodeURIComponent).join('/')}`, before = urls.get(path);
  if (before?.[0] !== updated) {
    urls.set(path, [updated, URL.createObjectURL(await blob(path))]);
    if (before) URL.revokeObjectURL(before[1]);
  }
  const shown = picture(urls.get(path)[1], alt);
  shown.onload = () => shown.closest('figure')?.classList.toggle('wide', shown.naturalWidth > 1.8 * shown.naturalHeight);
  return shown;
}

export function closeGallery() {
  clearTimeout(timer);
  open = null;
}

export async function openGallery(id = 'list') {
  closeGallery();
  open = id;
  const shown = open, content = id === 'list' ? await list() : await one(id);
  if (open !== shown) return;
  const buttons = () => $$('button', root), focused = buttons().indexOf(document.activeElement), { scrollY } = window;
  root.replaceChildren(...content.elements);
  if (id === root.dataset.shown) {
    buttons()[focused]?.focus({ preventScroll: true });
    scrollTo({ top: scrollY });
  }
  root.dataset.shown = id;
  if (content.running) wait(id);
}

function wait(id) {
  timer = setTimeout(async () => {
    if (document.hidden) return wait(id);
    await openGallery(id).catch(error => (say(error.message, true), open === id && wait(id)));
  }, EVERY);
}

const figure = value => (Number.isInteger(value) ? String(value) : value.toPrecision(3));
const badge = state => h('span', { className: 'badge ' + state, textContent: state });
const when = seconds => new Date(1000 * seconds).toLocaleString();

async function list() {
  const { runs, studies } = await get('gallery');
  const cards = await Promise.all(runs.map(async item => h('article', { className: 'card' },
    h('div', { className: 'row' }, h('h2', { textContent: item.name }), badge(item.state)),
    item.picture && (await image(item, item.picture, `Pictures of ${item.name}`)),
    figures(item.headline.map(({ name, value }) => [name, figure(value)])),
    item.error && h('p', { className: 'warn', textContent: item.error }),
    h('p', { className: 'note', textContent: `${steps(item.steps)} \u00B7 ${when(item.updated)}` }),
    opener(item))));
  const heading = h('h2', { textContent: runs.length ? `Runs (${runs.length})` : 'There are no runs in this folder yet.' });
  const compared = studies.map(item => h('article', { className: 'card' }, h('h2', { textContent: item.name }), h('p', { className: 'note', textContent: `${item.runs.length} runs` }), opener(item)));
  return { running: runs.some(item => item.state === 'running'), elements: [used(),
    ...(compared.length ? [h('h2', { textContent: 'Studies' }), h('div', { className: 'runs' }, ...compared)] : []), heading, h('div', { className: 'runs' }, ...cards)] };
}

const opener = item => h('button', { textContent: 'Open', 'aria-label': `Open ${item.name}`, onclick: () => openGallery(item.id) });
const steps = all => Object.entries(all).map(([stage, [done, planned]]) => `${stage} ${done} of ${planned} steps`).join(', ');
const figures = pairs => h('dl', { className: 'figures' }, ...pairs.flatMap(([name, value]) => [h('dt', { textContent: name }), h('dd', { textContent: value })]));
const head = (item, note, ...more) => h('div', { className: 'row wrap' }, h('button', { textContent: '\u2190 All runs', onclick: () => openGallery() }), h('h2', { textContent: item.name }), ...more, h('span', { className: 'note', textContent: note }));

// Another run for the studio, of every open page; the page starts again with it.
const chooser = (id, name) => h('button', { textContent: `Use ${name} in the studio`, onclick: () => postJson('run', { run: id }).then(() => location.reload(), error => say(error.message, true)) });
const used = () => h('div', { className: 'row wrap' }, h('p', { className: 'note', textContent: `The studio uses ${about.run?.name}.` }), about.first ? null : chooser(null, 'the run of the command line'));

async function one(id) {
  const item = await get('gallery/' + id);
  return item.members ? study(item) : run(item);
}

async function study(item) {
  const names = [...new Set(item.members.rows.flatMap(row => row.headline.map(({ name }) => name)))];
  const rows = item.members.rows.map(row => h('tr', {}, h('th', { scope: 'row' }, h('button', { textContent: row.name, onclick: () => openGallery(row.id) })), ...names.map(name => {
    const value = row.headline.find(entry => entry.name === name)?.value;
    return h('td', { textContent: value == null ? '' : figure(value) });
  }), h('td', {}, badge(row.state))));
  const table = h('table', {}, h('thead', {}, h('tr', {}, h('td'), ...names.map(name => h('th', { scope: 'col', textContent: name })), h('th', { scope: 'col', textContent: 'State' }))), h('tbody', {}, ...rows));
  const grids = await Promise.all(item.members.rows.filter(row => row.picture).map(async row => h('figure', {}, await image(row, row.picture, `Pictures of ${row.name}`), h('figcaption', { textContent: row.name }))));
  return { running: item.members.rows.some(row => row.state === 'running'), elements: [head(item, `${item.runs.length} runs`), h('section', { className: 'card scroll' }, table), h('div', { className: 'runs' }, ...item.members.curves.map(curve)), h('div', { className: 'pictures' }, ...grids)] };
}

async function run(item) {
  const pictures = await Promise.all(item.pictures.map(async ({ name, title }) => h('figure', {}, await image(item, name, title), h('figcaption', { textContent: title }))));
  const interval = ({ value, low, high, n }) => figure(value) + (low == null ? '' : ` [${figure(low)}, ${figure(high)}]`) + (n ? `, n = ${n}` : '');
  const metrics = item.metrics.map(metric => [metric.name + (metric.of && ` (${metric.of})`), interval(metric)]);
  return { running: item.state === 'running', elements: [
    head(item, `${item.overrides.join(' ')} \u00B7 ${when(item.updated)}`, badge(item.state), item.trained ? chooser(item.id, 'this run') : null),
    ...item.notes.map(note => h('p', { className: 'note', textContent: note })),
    h('div', { className: 'columns' }, metrics.length ? h('section', { className: 'card' }, h('h2', { textContent: 'Figures' }), figures(metrics)) : null, ...item.curves.map(curve)),
    h('div', { className: 'pictures' }, ...pictures),
  ] };
}

function curve({ title, series }) {
  const all = series.flatMap(each => each.points), xs = all.map(p => p[0]), ys = all.map(p => p[1]).filter(Number.isFinite);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const x = value => 44 + 366 * (value - x0) / (x1 - x0 || 1), y = value => 130 - 118 * (value - y0) / (y1 - y0 || 1);
  const chart = svg('svg', { class: 'chart', viewBox: '0 0 420 150', role: 'img', 'aria-label': `${title}: ${series.map(each => `${each.name} ends at ${figure(each.points.at(-1)?.[1] ?? 0)}`).join(', ')}` });
  for (const value of [y0, y1]) chart.append(svg('line', { class: 'axis', x1: 44, x2: 410, y1: y(value), y2: y(value) }), svg('text', { x: 38, y: y(value) + 3, 'text-anchor': 'end' }, figure(value)));
  chart.append(svg('text', { x: 410, y: 146, 'text-anchor': 'end' }, `step ${x1}`));
  const shade = i => `hsl(${(215 + 137.508 * i) % 360} 65% 52%)`;
  series.forEach((each, i) => chart.append(svg('polyline', { stroke: shade(i), points: each.points.filter(p => Number.isFinite(p[1])).map(p => `${x(p[0])},${y(p[1])}`).join(' ') })));
  const legend = h('div', { className: 'legend' }, ...series.map((each, i) => {
    const mark = h('i');
    mark.style.background = shade(i);
    return h('span', {}, mark, each.name);
  }));
  return h('section', { className: 'card' }, h('h2', { textContent: title }), chart, legend);
}
