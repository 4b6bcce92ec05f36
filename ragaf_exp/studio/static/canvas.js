// The drawing surface: three canvases (areas or picture, ink, marks) and the tools that work on them.
import { about } from './api.js';
import { doc, inked, onchange, select, selected, update } from './state.js';
import { indexAt, outlines, regionAt, tinted } from './labels.js';
import { drawAll, drawStroke, point, shape } from './strokes.js';
import { paint, size, split } from './finding.js';
import { $, $$, decoded, press } from './dom.js';

const layers = Object.fromEntries(['under', 'ink', 'over'].map(id => [id, $('#' + id)]));
const { ink, over } = layers, stage = $('#stage'), sheet = $('#sheet');
const MASK = '#e0245e';
export const surface = { tool: 'pen', width: 0.016, colour: '#e02020', show: 'regions', picture: null, map: null, hover: null };
let stroke = null, corner = null, decodedPhoto = [null, null], decodedMask = [null, null], scheduled = 0;

const css = element => getComputedStyle(document.documentElement).getPropertyValue(element).trim();
const ratio = () => about.width / about.height;

export function fit() {
  const side = Math.min(1536, Math.round(640 * Math.min(2, devicePixelRatio || 1)));
  stage.style.aspectRatio = ratio();
  for (const canvas of Object.values(layers)) [canvas.width, canvas.height] = size(side);
  redraw();
}

export function redraw() {
  cancelAnimationFrame(scheduled);
  scheduled = requestAnimationFrame(async () => {
    const source = doc.mode === 'edit' ? doc.image : doc.photo;
    if (decodedPhoto[0] !== source) decodedPhoto = [source, source && (await decoded(source))];
    if (decodedMask[0] !== doc.maskBase) decodedMask = [doc.maskBase, doc.maskBase && tintedMask(await decoded(doc.maskBase))];
    drawUnder();
    drawInk();
    drawOver();
  });
}

function drawUnder() {
  const context = layers.under.getContext('2d'), { width, height } = layers.under;
  context.clearRect(0, 0, width, height);
  if (doc.mode === 'edit') return inked() !== 'painting' && decodedPhoto[1] && contain(context, decodedPhoto[1]);
  const { show, picture, map } = surface;
  const shown = show === 'image' ? picture : show === 'word' ? map : doc.labels && doc.regions.length ? tinted() : null;
  if (!shown) return;
  context.imageSmoothingEnabled = show === 'word';
  context.drawImage(shown, 0, 0, width, height);
}

function contain(context, image) {
  const { width, height } = context.canvas, scale = Math.min(width / image.width, height / image.height);
  const [w, h] = [image.width * scale, image.height * scale];
  context.imageSmoothingEnabled = image.width > 256;
  context.drawImage(image, (width - w) / 2, (height - h) / 2, w, h);
}

function drawInk() {
  const context = ink.getContext('2d'), kind = inked(), mask = kind === 'mask';
  ink.style.opacity = mask ? 0.55 : kind !== 'strokes' ? 1 : surface.show === 'image' ? 0 : surface.show === 'word' ? 0.55 : 1;
  const strokes = kind ? doc[kind] : [], all = stroke && !stroke.line ? [...strokes, stroke] : strokes;
  drawAll(context, all, mask ? decodedMask[1] : kind && decodedPhoto[1], mask ? MASK : undefined);
}

// A mask that came with a recipe, as areas of the brush's colour where it is white, laid out as the photo is.
function tintedMask(image) {
  const { width, height } = image, own = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  own.drawImage(image, 0, 0);
  const pixels = own.getImageData(0, 0, width, height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set([224, 36, 94, pixels.data[i] > 127 ? 255 : 0], i);
  own.putImageData(pixels, 0, 0);
  const laid = new OffscreenCanvas(ink.width, ink.height).getContext('2d');
  contain(laid, own.canvas);
  return laid.canvas;
}

function drawOver() {
  const context = over.getContext('2d'), { width, height } = over;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  if (doc.mode === 'sketch' && doc.labels) marks(context, width / (ink.clientWidth || 640));
  if (stroke?.line) line(context, stroke.points);
}

function marks(context, unit) {
  const { width, height } = over, paths = outlines(doc.labels), accent = css('--accent');
  const trace = (index, style, thick, dash) => {
    const scaled = new Path2D();
    scaled.addPath(paths[index], new DOMMatrix([width / about.width, 0, 0, height / about.height, 0, 0]));
    Object.assign(context, { strokeStyle: style, lineWidth: thick * unit });
    context.setLineDash(dash.map(n => n * unit));
    context.stroke(scaled);
  };
  doc.regions.forEach((region, index) => {
    if (region.id === surface.hover) trace(index, '#0008', 2, []);
    if (!selected.has(region.id)) return;
    trace(index, '#fff', 4, []);
    trace(index, '#1546b0', 2.5, [7, 5]);
  });
  context.setLineDash([]);
  if (surface.show === 'regions') doc.regions.forEach(region => badge(context, region, unit));
  for (const leak of doc.leaks) ring(context, leak, unit);
}

function badge(context, region, unit) {
  const [x, y] = [region.at[0] * over.width, region.at[1] * over.height], text = (region.locked ? '\u{1F512}' : '') + region.id;
  context.font = `600 ${14 * unit}px system-ui, sans-serif`;
  Object.assign(context, { textAlign: 'center', textBaseline: 'middle', fillStyle: selected.has(region.id) ? '#1546b0' : '#ffffffe6' });
  const half = Math.max(11 * unit, context.measureText(text).width / 2 + 6 * unit);
  context.beginPath();
  context.roundRect(x - half, y - 11 * unit, 2 * half, 22 * unit, 11 * unit);
  context.fill();
  context.fillStyle = selected.has(region.id) ? '#fff' : '#15171a';
  context.fillText(text, x, y + unit);
}

function ring(context, leak, unit) {
  context.beginPath();
  context.arc(leak.at[0] * over.width, leak.at[1] * over.height, Math.max(12 * unit, leak.width * over.width), 0, 7);
  Object.assign(context, { strokeStyle: '#fff', lineWidth: 6 * unit });
  context.stroke();
  Object.assign(context, { strokeStyle: '#b45309', lineWidth: 3 * unit });
  context.stroke();
}

function line(context, points) {
  Object.assign(context, { strokeStyle: '#b3261e', lineWidth: over.width / 300 });
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x * over.width, y * over.height);
  context.stroke();
}

// ---- pointers
function at(event) {
  const box = ink.getBoundingClientRect();
  return point((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, event.pointerType === 'pen' ? event.pressure : 0.5);
}

const fingers = new Map();
let penSeen = false, zoom = { k: 1, x: 0, y: 0 };

ink.addEventListener('pointerdown', event => {
  if (event.button) return;
  ink.setPointerCapture(event.pointerId);
  penSeen ||= event.pointerType === 'pen';
  if (event.pointerType === 'touch') {
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size > 1 || penSeen) return cancel();
  }
  if (surface.tool === 'select' || !inked()) return; // on click: focus set in a press would return to the canvas
  corner = at(event);
  const { tool } = surface, wide = inked() === 'mask' || tool === 'paint' || tool === 'hint', width = surface.width * (wide ? 4 : tool === 'eraser' ? 3 : 1);
  stroke = { points: [corner], width, erase: tool === 'eraser' };
  if (tool === 'hint') stroke.colour = surface.colour;
  if (tool === 'split' || tool === 'paint') stroke.line = true;
  redraw();
});

ink.addEventListener('pointermove', event => {
  if (fingers.size > 1 || (penSeen && fingers.has(event.pointerId))) return pinch(event);
  if (!stroke) return hover(at(event));
  const now = at(event);
  if (surface.tool === 'rect' || surface.tool === 'ellipse') {
    stroke = { ...stroke, points: shape(surface.tool, corner, now) };
  } else if (event.shiftKey) stroke = { ...stroke, points: [corner, now] };
  else {
    const events = event.getCoalescedEvents?.() ?? [];
    const first = stroke.points.length;
    stroke.points.push(...(events.length ? events : [event]).map(at));
    if (!stroke.line) return drawStroke(ink.getContext('2d'), stroke, first, inked() === 'mask' ? MASK : undefined);
  }
  redraw();
});

const cancel = () => {
  stroke = null;
  redraw();
};
function release(event) {
  fingers.delete(event.pointerId);
  if (!stroke || event.type === 'pointercancel') return cancel();
  const { line: free, ...done } = stroke, { tool } = surface;
  stroke = null;
  if (tool === 'split') split(done.points);
  else if (tool === 'paint') paint(done);
  else draw(done);
  redraw();
}
ink.addEventListener('pointerup', release);
ink.addEventListener('pointercancel', release);
ink.addEventListener('pointerleave', () => hover(null));
ink.addEventListener('click', event => {
  const region = surface.tool === 'select' && doc.mode === 'sketch' && regionAt(...at(event));
  if (!region) return;
  const add = event.shiftKey || event.ctrlKey || event.metaKey;
  select([region.id], add);
  if (!add) $(`#prompt-${region.id}`)?.focus();
});

export function draw(done) {
  const kind = inked();
  if (kind) update({ [kind]: [...doc[kind], done] });
}

function hover(position) {
  const id = position && surface.tool !== 'pen' ? (doc.regions[indexAt(...position)]?.id ?? null) : null;
  if (id === surface.hover) return;
  surface.hover = id;
  redraw();
}

// ---- zoom: two fingers, or Ctrl and the wheel
function pinch(event) {
  const before = [...fingers.values()];
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  const after = [...fingers.values()], middle = p => [p.reduce((s, q) => s + q[0], 0) / p.length, p.reduce((s, q) => s + q[1], 0) / p.length];
  const spread = p => (p.length > 1 ? Math.hypot(p[0][0] - p[1][0], p[0][1] - p[1][1]) : 1);
  const [m0, m1] = [middle(before), middle(after)];
  magnify(spread(after) / spread(before), ...m1, m1[0] - m0[0], m1[1] - m0[1]);
}

export function magnify(factor, clientX, clientY, dx = 0, dy = 0) {
  const box = stage.getBoundingClientRect(), k = Math.min(8, Math.max(1, zoom.k * factor));
  const [px, py] = [clientX - box.left, clientY - box.top];
  const keep = (value, side) => Math.min(0, Math.max(side * (1 - k), value));
  zoom = { k, x: keep(px - (px - zoom.x) * k / zoom.k + dx, box.width), y: keep(py - (py - zoom.y) * k / zoom.k + dy, box.height) };
  sheet.style.transform = `translate(${zoom.x}px, ${zoom.y}px) scale(${k})`;
}
stage.addEventListener('wheel', event => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  magnify(Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
}, { passive: false });

// ---- tools and layers
export function useTool(name) {
  const button = $(`#tools [data-tool=${name}]`);
  if (button.hidden) return;
  surface.tool = ink.dataset.cursor = name;
  press($$('#tools [data-tool]'), button);
}

export function show(name) {
  surface.show = name;
  press($$('#show button'), $(`#show [data-show=${name}]`));
  redraw();
}

onchange(redraw);
