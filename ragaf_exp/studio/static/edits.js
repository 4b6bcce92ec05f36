// Edits of pictures: the task, the object that is inserted, and the pictures that go to the server.
import { about } from './api.js';
import { doc, editKind, inked, onchange, update } from './state.js';
import { surface } from './canvas.js';
import { drawAll, drawStroke, point, canvasOf, png } from './strokes.js';
import { size } from './finding.js';
import { $, dataBlob, decoded, say, toDataURL } from './dom.js';

const SIDE = 512, OBJECT_SIDE = 256; // px of a painting, of an object that is drawn
const canvas = $('#object'), readable = name => name.replaceAll('_', ' ');
let stroke = null, shown = [null, null];

// ---- the task
export function tasks() {
  $('#task').replaceChildren(...about.task.edits.map(({ name }) => new Option(readable(name) || about.task.name, name)));
  $('#task').disabled = about.task.edits.length < 2;
}
$('#task').onchange = event => {
  update({ task: event.target.value });
  say(wanted());
};

// What the chosen task needs next, in one sentence.
export function wanted() {
  const { picture, mask, object } = editKind();
  if (picture === 'painting') return 'Draw lines with the pen and colours with the hint brush.';
  if (!doc.image) return 'Open a picture.';
  if (object) return 'Paint over the area for the object, and open or draw the object.';
  return mask === 'required' ? 'Paint over what is to change.' : 'Press Generate: this task changes the whole picture.';
}

export function ready() {
  return editKind()?.picture === 'painting' ? !!doc.painting.length || !!doc.image : !!doc.image;
}

// ---- the object, on a canvas of its own
const hasObject = now => !!now.object || now.objectStrokes.length > 0;

function pointed(event) {
  const box = canvas.getBoundingClientRect();
  return point((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, event.pointerType === 'pen' ? event.pressure : 0.5);
}
canvas.addEventListener('pointerdown', event => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  stroke = { points: [pointed(event)], width: 4 * surface.width, colour: surface.colour };
  paint();
});
canvas.addEventListener('pointermove', event => {
  if (!stroke) return;
  stroke.points.push(pointed(event));
  drawStroke(canvas.getContext('2d'), stroke, stroke.points.length - 1);
});
canvas.addEventListener('pointercancel', () => {
  stroke = null;
  paint();
});
canvas.addEventListener('pointerup', () => {
  if (!stroke) return;
  const done = stroke;
  stroke = null;
  update({ objectStrokes: [...doc.objectStrokes, done] });
});
$('#object-clear').onclick = () => update({ object: null, objectStrokes: [] });
$('#object-file').onchange = async event => {
  const [file] = event.target.files;
  event.target.value = '';
  if (!file) return;
  const object = await toDataURL(file);
  decoded(object).then(() => update({ object, objectStrokes: [] }), () => say('This file is no picture that the browser can read; open a PNG, JPEG or WebP.', true));
};
$('#colour').oninput = event => (surface.colour = event.target.value);

async function paint() {
  if (shown[0] !== doc.object) shown = [doc.object, doc.object && (await decoded(doc.object))];
  const [, picture] = shown;
  [canvas.width, canvas.height] = picture ? [picture.naturalWidth, picture.naturalHeight] : [OBJECT_SIDE, OBJECT_SIDE];
  drawAll(canvas.getContext('2d'), stroke ? [...doc.objectStrokes, stroke] : doc.objectStrokes, picture);
}

async function objectOf(now) {
  if (!now.objectStrokes.length) return now.object;
  const picture = now.object && (await decoded(now.object));
  const [width, height] = picture ? [picture.naturalWidth, picture.naturalHeight] : [OBJECT_SIDE, OBJECT_SIDE];
  return toDataURL(await png(canvasOf(width, height, now.objectStrokes, picture, '#fff')));
}

// ---- what goes to the server
// The mask of the whole picture, of the picture's own size: white is painted.
async function maskOf(now) {
  const image = await createImageBitmap(dataBlob(now.image)), base = now.maskBase && (await decoded(now.maskBase));
  const box = about.width / about.height, own = image.width / image.height;
  const [sx, sy] = own > box ? [1, own / box] : [box / own, 1]; // strokes are in shares of the stage, the picture is inside
  const inside = now.mask.map(stroke => ({ ...stroke, width: stroke.width * Math.max(sx, sy), points: stroke.points.map(([x, y, p]) => [(x - 0.5) * sx + 0.5, (y - 0.5) * sy + 0.5, p]) }));
  return toDataURL(await png(canvasOf(image.width, image.height, inside, base, '#000', '#fff')));
}

async function paintingOf(now) {
  const paper = now.image && (await decoded(now.image));
  return toDataURL(await png(canvasOf(...size(SIDE), now.painting, paper, '#fff')));
}

// The pictures of a job; throws where one is missing.
export async function given(now) {
  const kind = editKind();
  if (kind.picture === 'painting') return { image: await paintingOf(now), mask: null, object: null };
  if (kind.mask === 'required' && !now.mask.length && !now.maskBase) throw new Error('Paint with the brush over what is to change first.');
  if (kind.object && !hasObject(now)) throw new Error('Open or draw the object that is to be inserted first.');
  return { image: now.image, mask: kind.mask === 'required' ? await maskOf(now) : null, object: kind.object ? await objectOf(now) : null };
}

onchange(() => {
  const kind = editKind();
  if (!kind) return;
  $('#task').value = kind.name;
  $('#method').textContent = kind.method === 'repaint' ? 'By RePaint: this run was trained to make pictures from drawings.' : '';
  $('#inserted').hidden = !kind.object;
  $('#hue').hidden = !kind.object && inked() !== 'painting';
  $('#resamplings').parentElement.hidden = kind.method !== 'repaint';
  if (kind.object) paint();
});
