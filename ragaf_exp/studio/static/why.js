// Why a picture looks as it does: attention of regions to words, and the fusion of sketch and text over timesteps.
import { surface } from './canvas.js';
import { colour } from './labels.js';
import { $, decoded, h, svg } from './dom.js';

const SMALL = new Set(['a', 'an', 'the', ',', '.', 'of', 'and', 'with', 'on']);
let map = null;

export function render(result, onmap) {
  attention(result, onmap);
  fusion(result);
  $('#reasons').hidden = $('#why').hidden && $('#blend').hidden;
}

// One sentence on a region: what it reads, and how much of the sketch is in it.
export function explain(result, id) {
  const r = result?.regions.findIndex(region => region.id === id) ?? -1, shares = result?.attention?.regions[r];
  if (!shares) return '';
  const words = result.attention.words.map((word, i) => [word.word, shares[i]]).filter(([, share]) => share >= 0.05).sort((a, b) => b[1] - a[1]).slice(0, 3);
  const sketch = result.fusion?.sketch.map(row => row[r]) ?? [], mean = sketch.reduce((a, b) => a + b, 0) / sketch.length;
  return `Region ${id} reads ${words.map(([word, share]) => `${word} ${share.toFixed(2)}`).join(', ') || 'no word'}` + (sketch.length ? `; share of the sketch ${mean.toFixed(2)}` : '');
}

function table(head, rows) {
  const top = h('tr', {}, h('td'), ...head);
  return h('table', {}, h('thead', {}, top), h('tbody', {}, ...rows));
}

function header(region) {
  const cell = h('th', { scope: 'row', textContent: region.id });
  Object.assign(cell.style, { background: colour(region), color: '#16181c' });
  cell.setAttribute('aria-label', `Region ${region.id}`);
  return cell;
}

function attention({ attention: data, regions }, onmap) {
  $('#why').hidden = !data?.words.length;
  $('#show [data-show=word]').disabled = !data?.words.length;
  map = null;
  if (surface.map) onmap(null);
  if (!data?.words.length) return;
  const columns = data.words.map((word, i) => ({ ...word, i })).filter(({ word }) => !SMALL.has(word.toLowerCase()));
  const buttons = columns.map(({ word, region, i }) => {
    const from = region === null || region === undefined ? 'of the caption' : `of region ${regions[region]?.id}`;
    const button = h('button', { textContent: word, title: `${word}, ${from}: show where`, 'aria-pressed': 'false' });
    button.onclick = () => lay(button, buttons, data.maps[i], onmap);
    return button;
  });
  surface.firstWord = () => lay(buttons[0], buttons, data.maps[columns[0].i], onmap);
  const head = buttons.map(button => h('th', { scope: 'col' }, button));
  const rows = regions.map((region, r) => h('tr', {}, header(region), ...columns.map(({ i }) => {
    const share = data.regions[r]?.[i] ?? 0, cell = h('td', { textContent: share < 0.005 ? '\u00B7' : share.toFixed(2) });
    cell.style.background = `color-mix(in srgb, var(--accent) ${Math.round(45 * share)}%, transparent)`;
    return cell;
  })));
  $('#attention').replaceChildren(table(head, rows));
}

// The map of a word over the drawing: a second click takes it away.
async function lay(button, buttons, source, onmap) {
  const same = map === source;
  map = same ? null : source;
  for (const each of buttons) each.setAttribute('aria-pressed', String(each === button && !same));
  onmap(same ? null : heat(await decoded(source)));
}

// Grey values as a scale from white over orange to deep red, which reads without hue as well.
function heat(image) {
  const context = new OffscreenCanvas(image.width, image.height).getContext('2d', { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const share = pixels.data[i] / 255;
    pixels.data.set([255 - 115 * share ** 2, 250 - 205 * share, 240 - 225 * share], i);
  }
  context.putImageData(pixels, 0, 0);
  return context.canvas;
}

function fusion({ fusion: data, regions }) {
  $('#blend').hidden = !data?.t.length;
  if (!data?.t.length) return;
  const chart = $('#fusion'), last = Math.max(1, data.t.length - 1);
  const x = i => 34 + 376 * i / last, y = share => 122 - 110 * share;
  chart.replaceChildren();
  chart.setAttribute('aria-label', `Share of the sketch at ${data.t.length} timesteps for ${regions.length} regions; the table below has the numbers`);
  for (const share of [0, 0.5, 1]) {
    chart.append(svg('line', { class: 'axis', x1: 34, x2: 410, y1: y(share), y2: y(share) }), svg('text', { x: 28, y: y(share) + 3, 'text-anchor': 'end' }, share));
  }
  chart.append(svg('text', { x: 34, y: 140 }, `noise, t = ${data.t[0]}`), svg('text', { x: 410, y: 140, 'text-anchor': 'end' }, `image, t = ${data.t[last] ?? data.t[0]}`));
  regions.forEach((region, r) => {
    const points = data.sketch.map((row, i) => `${x(i)},${y(row[r] ?? 0)}`).join(' ');
    chart.append(svg('polyline', { class: 'halo', points }), svg('polyline', { points, stroke: colour(region, 60) }));
  });
  $('#legend').replaceChildren(...regions.map(region => {
    const mark = h('i');
    mark.style.background = colour(region, 60);
    return h('span', {}, mark, `${region.id}${region.background ? ' background' : region.prompt && ' ' + region.prompt}`);
  }));
  const head = regions.map(region => h('th', { scope: 'col', textContent: region.id }));
  $('#shares').replaceChildren(table(head, data.t.map((t, i) => h('tr', {}, h('th', { scope: 'row', textContent: 't = ' + t }), ...regions.map((_, r) => h('td', { textContent: data.sketch[i][r]?.toFixed(2) ?? '' }))))));
}
