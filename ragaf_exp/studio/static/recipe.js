// Recipes: all that makes a picture, as JSON, in a PNG, and in a link's fragment.
import { about, post, postJson } from './api.js';
import { came, doc, editKind, replace, selected, update } from './state.js';
import { decode, encode, indexAt } from './labels.js';
import { drawing, report } from './finding.js';
import { $, dataBlob, toBase64, toBytes } from './dom.js';
import { canvasOf, png } from './strokes.js';

const settings = () => ({ steps: +$('#steps').value, guidance: +$('#guidance').value, scheduler: $('#scheduler').value });
const plain = strokes => strokes.map(({ points, width, erase }) => ({ points, width, erase: !!erase }));

export function recipeOf(now, { seed = now.seed, redo = false, keep = null } = {}) {
  const recipe = { schema: 1, kind: now.mode, width: about.width, height: about.height, caption: now.caption, seed, ...settings() };
  if (now.mode === 'edit') {
    const { width, height, ...rest } = recipe, keys = ['context', 'feather', ...(editKind().method === 'repaint' ? ['resamplings'] : [])];
    return { ...rest, ...Object.fromEntries(keys.map(key => [key, +$('#' + key).value])), ...now.given, task: editKind().name };
  }
  Object.assign(recipe, {
    strokes: now.photo ? null : plain(now.strokes), sketch: now.sketch, labels: encode(now.labels),
    strength: +$('#strength').value, redo_strength: +$('#redo_strength').value,
    regions: now.regions.map(({ at, prompt, importance, outline, locked, start, end }) => ({ at, prompt, importance, outline, locked, start, end })),
  });
  const chosen = now.regions.flatMap((region, index) => ((redo ? selected.has(region.id) : true) && !region.locked ? [index] : []));
  if (keep && (redo || chosen.length < now.regions.length)) Object.assign(recipe, { keep, redo: chosen });
  return recipe;
}

let opening = 0;
// A drawing as strokes with texts at points: links and examples.
export async function openDrawing({ strokes = [], photo = null, extract = '', caption = '', regions = [], seed = 0 }) {
  const all = strokes.map(stroke => ({ ...stroke })), mine = ++opening;
  const answer = extract ? await post(`regions?extract=${encodeURIComponent(extract)}`, dataBlob(photo)) : await post('regions', await drawing(all, photo));
  if (mine !== opening) return; // another was opened meanwhile
  if (extract) photo = sketchPicture(answer);
  replace({
    strokes: all, photo, caption, seed, sketch: answer.sketch, labels: decode(answer.labels), leaks: answer.leaks, of: all,
    regions: came({ ...answer, came: answer.regions.map(() => -1) }, null),
  });
  texts(regions);
  report(answer);
}

function texts(regions) {
  const settings = new Map(regions.flatMap(({ at, ...rest }) => (at ? [[indexAt(...at), rest]] : [])));
  update({ regions: doc.regions.map((region, index) => ({ ...region, ...settings.get(index) })) }, { undo: false });
}

export function restoreSettings(recipe) {
  for (const key of ['steps', 'guidance', 'scheduler', 'strength', 'redo_strength', 'context', 'feather', 'resamplings']) $('#' + key).value = recipe[key] ?? about.defaults[key];
}

const asURL = text => (!text || text.startsWith('data:') ? (text ?? null) : 'data:image/png;base64,' + text); // browsers look at the content for the format

export async function openRecipe(recipe) {
  restoreSettings(recipe);
  if (recipe.kind === 'edit') return replace({ mode: 'edit', image: asURL(recipe.image), maskBase: asURL(recipe.mask), object: asURL(recipe.object), task: recipe.task ?? '', caption: recipe.caption ?? '', seed: recipe.seed ?? 0 });
  if (!recipe.labels || recipe.width !== about.width || recipe.height !== about.height) return openDrawing(recipe);
  const { width, height, labels } = recipe, answer = await postJson('edit', { op: 'rebuild', width, height, labels });
  const strokes = recipe.strokes ?? [];
  replace({
    strokes, photo: recipe.strokes ? null : sketchPicture(recipe), caption: recipe.caption ?? '', seed: recipe.seed ?? 0,
    sketch: recipe.sketch, labels: decode(answer.labels), of: strokes,
    regions: came({ ...answer, came: answer.regions.map(() => -1) }, null),
  });
  texts(recipe.regions ?? []);
}

// Regions from a label map, for the drawing as it is.
export async function openLabels(file) {
  const answer = await post('labels', file);
  update({ labels: decode(answer.labels), regions: came({ ...answer, came: answer.regions.map(() => -1) }, null), edits: [] });
}

// A sketch (255 = stroke) as a picture of black lines on white.
export function sketchPicture({ sketch, width, height }) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height }), context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  toBytes(sketch).forEach((value, i) => image.data.set([0, 0, 0, value], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}

// ---- links: the recipe in the fragment, which no server log has
async function squeeze(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

export async function pack(recipe) {
  const { keep, redo, run, ...linked } = recipe;
  if (recipe.strokes && !doc.edits.length) delete linked.labels, delete linked.sketch; // regions follow from the strokes
  const bytes = await squeeze(new TextEncoder().encode(JSON.stringify(linked)), new CompressionStream('deflate-raw'));
  return toBase64(bytes).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

export async function unpack(text) {
  const bytes = await squeeze(toBytes(text.replaceAll('-', '+').replaceAll('_', '/')), new DecompressionStream('deflate-raw'));
  const recipe = JSON.parse(new TextDecoder().decode(bytes));
  return recipe.labels ? (await postJson('recipe', recipe)).recipe : recipe;
}

// The recipe in a JSON file or a PNG; null if the picture has none.
export async function recipeIn(file) {
  if (file.type !== 'application/json' && !(new TextDecoder('latin1').decode(await file.arrayBuffer())).includes('iTXtragaf')) return null;
  return (await post('recipe', file)).recipe;
}
