// From the drawing to its regions, and edits of regions. Edits are repeated after later strokes, so that none is lost.
import { about, post, postJson } from './api.js';
import { came, carried, doc, onchange, select, selected, update } from './state.js';
import { decode, encode, indexAt } from './labels.js';
import { decoded, say, toBase64 } from './dom.js';
import { canvasOf, png } from './strokes.js';

const SIDE = 512; // px of the picture that is sent
let timer, request = 0;

// The canvas size with the sides' ratio of what is sampled.
export function size(side) {
  const longest = Math.max(about.width, about.height);
  return [Math.round(side * about.width / longest), Math.round(side * about.height / longest)];
}

export async function drawing(strokes, photo) {
  return png(canvasOf(...size(SIDE), strokes, photo && (await decoded(photo)), '#fff'));
}

onchange(() => {
  if (doc.mode !== 'sketch' || !about.run || doc.of === doc.strokes) return;
  clearTimeout(timer);
  timer = setTimeout(() => find().catch(error => say(error.message, true)), 120);
});

async function find() {
  const mine = ++request, { strokes, photo } = doc;
  const answer = await post('regions', await drawing(strokes, photo));
  if (mine !== request || doc.strokes !== strokes) return;
  const labels = decode(answer.labels), before = doc;
  update({ labels, regions: carried(answer, labels), sketch: answer.sketch, leaks: answer.leaks, of: strokes, edits: [] }, { undo: false });
  const lost = await repeat(before.edits);
  if (before.edits.length) keepSettings(before);
  report(answer, lost);
}

export function report(answer, lost = 0) {
  say(answer.warning ?? (lost ? `${lost} earlier edits of regions no longer fit the drawing` : `${counted()}, ${Math.round(answer.ms)} ms`));
}

const counted = () => `${doc.regions.length} region${doc.regions.length === 1 ? '' : 's'}`;

// After edits are repeated, ids follow the overlap with the regions before the stroke.
function keepSettings(before) {
  const fresh = { regions: doc.regions, background: doc.regions.findIndex(region => region.background) };
  update({ regions: carried(fresh, doc.labels, before) }, { undo: false });
}

async function repeat(edits) {
  let lost = 0;
  for (const edit of edits) {
    try {
      await apply(edit, { undo: false });
    } catch {
      lost++; // reported by the caller
    }
  }
  return lost;
}

// An edit by points, which survive another numbering: {op, at: [[x, y]], line, along, mask, into}.
async function apply(edit, options) {
  const indices = edit.at.map(([x, y]) => indexAt(x, y)).filter(index => index >= 0);
  const { op, line, along, mask } = edit, labels = encode(doc.labels), start = doc;
  if (op !== 'paint' && !indices.length) throw new Error('There is no region there.');
  const body = { op, width: about.width, height: about.height, labels };
  if (op === 'merge' || op === 'delete') body.regions = [...new Set(indices)];
  else if (op === 'paint') Object.assign(body, { mask, into: indices[0] ?? null });
  else Object.assign(body, { region: indices[0] }, line ? { line } : { along });
  const answer = await postJson('edit', body);
  if (doc.labels !== start.labels) throw new Error('The drawing changed meanwhile; try again.');
  const from = op === 'split' || op === 'halve' ? doc.regions[indices[0]] : null;
  update({ labels: decode(answer.labels), regions: came(answer, from), edits: [...doc.edits, edit] }, options);
}

export async function edit(value) {
  try {
    await apply(value);
    say(counted());
  } catch (error) {
    say(error.message, true);
  }
}

const points = () => doc.regions.filter(region => selected.has(region.id)).map(region => region.at);
export const merge = () => selected.size > 1 && edit({ op: 'merge', at: points() });
export const remove = (at = points()) => at.length && edit({ op: 'delete', at });
export const halve = (region, along) => edit({ op: 'halve', at: [region.at], along });

// The line cuts the region that has most of it, selected or not.
export function split(line) {
  const counts = new Map();
  for (const [x, y] of line) {
    const index = indexAt(x, y);
    if (index >= 0 && !doc.regions[index].background) counts.set(index, (counts.get(index) ?? 0) + 1);
  }
  const under = [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? indexAt(...line[line.length >> 1]);
  if (doc.regions[under]) edit({ op: 'split', at: [doc.regions[under].at], line: line.map(at => at.slice(0, 2)) });
}

export async function paint(stroke) {
  const context = canvasOf(about.width, about.height, [stroke], null, '#fff').getContext('2d');
  const { data } = context.getImageData(0, 0, about.width, about.height);
  const mask = new Uint8Array(about.width * about.height).map((_, i) => (data[4 * i] < 128 ? 255 : 0));
  const at = points().slice(0, 1);
  await edit({ op: 'paint', mask: toBase64(mask), at });
  const painted = indexAt(...stroke.points[0]);
  if (!at.length && painted >= 0) select([doc.regions[painted].id]);
}
