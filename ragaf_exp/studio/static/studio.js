// The page: brings the parts together. No build step, no dependency.
import { about, get, linked, poll, blob } from './api.js';
import { EMPTY, doc, load, onchange, replace, selected, update } from './state.js';
import { given, tasks, wanted } from './edits.js';
import { fit, show, surface, useTool } from './canvas.js';
import * as jobs from './jobs.js';
import * as result from './result.js';
import * as why from './why.js';
import { keyboard, toolbar } from './tools.js';
import { chooseExtractor, openFile, openPicture } from './opening.js';
import { render } from './regions.js';
import { openDrawing, openRecipe, pack, recipeOf, unpack } from './recipe.js';
import { drawAll } from './strokes.js';
import { session } from './zip.js';
import { openGallery, closeGallery } from './gallery.js';
import { $, $$, dataBlob, download, h, picture, roving, say } from './dom.js';

const fields = ['caption', 'seed', 'steps', 'guidance'].map(id => $('#' + id));
const [caption, seed] = fields;

// ---- generate
async function generate(redo = false, seeds = [doc.seed]) {
  if ($('#go').disabled || (redo && $('#redo').disabled)) return;
  const keep = result.view.current?.doc.mode === doc.mode ? (result.view.current?.image ?? null) : null;
  if (doc.mode === 'edit') update({ given: await given(doc) }, { undo: false });
  result.play(false);
  result.view.four = [];
  result.tab(seeds.length > 1 ? 'four' : 'result');
  if ($('#view').getBoundingClientRect().top > innerHeight) $('#view').scrollIntoView({ block: 'center' }); // on a phone
  await jobs.run({ redo, seeds, keep, onstep, ondone: done => (done ? finish(done, seeds.length > 1) : refresh()) });
}

function onstep(growing, name) {
  if (name !== 'step' && !/^stage\d/.test(name)) return;
  Object.assign(result.view, { current: growing, frame: null });
  if (result.view.tab !== 'four') result.paint();
  result.film();
}

function finish(done, several) {
  result.remember(done);
  if (several) result.view.four.push(done);
  result.choose(done, false);
  nextHint();
}

function refresh() {
  if (document.activeElement !== caption) caption.value = doc.caption;
  seed.value = doc.seed;
  const leaks = doc.mode === 'sketch' ? doc.leaks.length : 0;
  $('#leak').hidden = !leaks;
  $('#leak').textContent = `${leaks === 1 ? 'This outline leaks' : `Outlines leak at ${leaks} places`}: close the gap in the ring, or the area runs into its neighbour.`;
  $('[data-show=image]').disabled = !surface.picture || doc.mode === 'edit';
  document.body.dataset.mode = doc.mode;
  for (const button of $$('#modes button')) button.setAttribute('aria-pressed', String(button.dataset.mode === doc.mode));
  jobs.refresh(!!result.view.current?.image);
}

// ---- hints, each shown until it was followed or hidden for good
const HINTS = ['Click a region, type a colour such as \u201Cred\u201D, and press Enter.', 'Change one word, then Redo selected: only that part changes, at half the time.', 'Share: the link and the PNG hold everything that made this picture.'];
function nextHint(step = +(localStorage.hint ?? -1) + 1) {
  localStorage.hint = step;
  $('#hint').hidden = step >= HINTS.length;
  $('#hint span').textContent = HINTS[step] ?? '';
}
$('#hint button').onclick = () => {
  localStorage.hint = HINTS.length;
  $('#hint').hidden = true;
};

// ---- examples
async function examples() {
  const list = (await get('examples')).examples;
  $('#examples').replaceChildren(...list.map(example => h('button', { className: 'thumb', title: example.teaches, onclick: () => openExample(example).catch(error => say(error.message, true)) },
    thumbnail(example), h('span', { textContent: example.title }))));
  return list;
}

function thumbnail(example) {
  if (example.image ?? example.photo) return picture(example.image ?? example.photo, '', 'pixel');
  const canvas = h('canvas', { width: 88, height: 88, 'aria-hidden': 'true' });
  drawAll(canvas.getContext('2d'), example.strokes.map(stroke => ({ ...stroke, width: stroke.width * 1.6 })));
  return canvas;
}

async function openExample(example) {
  if (example.photo) await openPicture(dataBlob(example.photo), { ...example, extract: example.extract ?? '' });
  else await openDrawing(example);
  $('#extractor').hidden = !example.photo;
  say(example.teaches);
  useTool('select');
  show('regions');
  render();
}

$('#ink').addEventListener('click', () => {
  const text = selected.size === 1 && why.explain(result.view.current, [...selected][0]);
  if (text && doc.mode === 'sketch' && surface.tool === 'select' && !jobs.job.busy) say(text);
});

// ---- share
async function share(what) {
  $('#share').open = false;
  const { current } = result.view, name = `ragaf-${current?.number ?? 0}`;
  const recipe = current?.used ?? (doc.labels && recipeOf(doc));
  if (what === 'link') {
    if (!recipe) throw new Error('There is nothing to share yet; draw something first.');
    if (recipe.kind === 'edit') throw new Error('A link cannot hold a photo; save the picture (PNG) instead.');
    await navigator.clipboard.writeText(`${location.origin}${location.pathname}#r=${await pack(recipe)}`);
    return say('Link copied. It holds the drawing, the texts and the settings.');
  }
  if (!current?.image) throw new Error('There is no picture yet; press Generate first.');
  if (what === 'zip') return download('ragaf-session.zip', await session(result.history));
  if (what === 'png') return download(name + '.png', dataBlob(current.image));
  if (what === 'labels') return download(name + '-labels.png', await blob(`jobs/${current.job}/labels.png`));
  if (what === 'recipe' && current.doc.mode === 'edit') return download(name + '.json', await blob(`jobs/${current.job}/recipe.json`));
  if (what === 'recipe') return download(name + '.json', new Blob([JSON.stringify(current.used, null, 1)], { type: 'application/json' }));
  download(`${name}.${what}`, await blob(`jobs/${current.job}/evolution.${what}`));
}

// ---- wiring
const guarded = action => event => Promise.resolve(action(event)).catch(error => say(error.message, true));
caption.oninput = () => update({ caption: caption.value }, { merge: 'caption' });
seed.oninput = () => update({ seed: Math.max(0, Math.floor(+seed.value || 0)) }, { merge: 'seed' });
$('#dice').onclick = () => update({ seed: Math.floor(Math.random() * 1e6) });
$('#go').onclick = guarded(() => generate());
$('#redo').onclick = guarded(() => generate(true));
$('#four').onclick = guarded(() => generate(false, [0, 1, 2, 3].map(i => doc.seed + i)));
$('#stop').onclick = jobs.stop;
$('#surprise').onclick = () => {
  const words = about.colours?.length ? about.colours : ['red', 'green', 'blue', 'yellow'];
  update({ regions: doc.regions.map(region => (region.prompt || region.background ? region : { ...region, prompt: words[Math.floor(Math.random() * words.length)] })) });
};
for (const button of $$('[data-save]')) button.onclick = guarded(() => share(button.dataset.save));
for (const button of $$('#show button')) button.onclick = () => (button.dataset.show === 'word' ? surface.firstWord() : show(button.dataset.show));
$('#file').onchange = guarded(async event => {
  const [file] = event.target.files;
  event.target.value = '';
  if (file) await openFile(file);
});
$('#extractor').onchange = guarded(event => chooseExtractor(event.target.value));
addEventListener('dragover', event => (event.preventDefault(), $('#stage').classList.add('drop')));
addEventListener('dragleave', () => $('#stage').classList.remove('drop'));
addEventListener('drop', guarded(async event => {
  event.preventDefault();
  $('#stage').classList.remove('drop');
  if (event.dataTransfer.files[0]) await openFile(event.dataTransfer.files[0]);
}));
$('#skip').onclick = event => {
  event.preventDefault();
  ($('#regions input[tabindex="0"]') ?? caption).focus();
};
for (const link of $$('[data-page]')) link.onclick = guarded(event => {
  event.preventDefault();
  const gallery = link.dataset.page === 'gallery';
  for (const other of $$('[data-page]')) other.toggleAttribute('aria-current', false);
  link.setAttribute('aria-current', 'page');
  $('[data-view=studio]').hidden = gallery;
  $('[data-view=gallery]').hidden = !gallery;
  return gallery ? openGallery() : closeGallery();
});
addEventListener('click', event => event.target.closest('#share') || ($('#share').open = false));

for (const button of $$('#modes button')) button.onclick = () => switchMode(button.dataset.mode);
function switchMode(mode) {
  const image = mode === 'edit' ? (doc.image ?? result.view.current?.image ?? null) : doc.image;
  update({ mode, image });
  if (mode === 'edit') say(wanted());
}

// ---- start
function aboutChanged() {
  const { state, message, progress, width, height, run } = about;
  if (state === 'failed') throw new Error(about.error);
  if (state === 'loading' && !run) {
    say(message);
    $('#progress').value = progress;
  }
  $('[data-page=gallery]').hidden = !about.gallery;
  if (!run || aboutChanged.done) return;
  aboutChanged.done = true;
  document.title = `RAGAF studio: ${run.name}, ${width} \u00D7 ${height}`;
  Object.assign($('#steps'), { value: about.defaults.steps, min: about.limits.steps[0], max: about.limits.steps[1] });
  $('#scheduler').replaceChildren(...about.schedulers.map(name => new Option(name, name, false, name === about.defaults.scheduler)));
  for (const id of ['strength', 'redo_strength']) Object.assign($('#' + id), { value: about.defaults[id], min: about.limits.strength[0], max: about.limits.strength[1] });
  Object.assign($('#guidance'), { value: about.defaults.guidance, min: about.limits.guidance[0], max: about.limits.guidance[1] });
  $('#extractor').replaceChildren(new Option('Lines as drawn', ''), ...about.extractors.map(name => new Option(`Lines by ${name}`, name)));
  for (const key of ['context', 'feather', 'resamplings']) [$('#' + key).min, $('#' + key).max] = about.limits[key];
  Object.assign($('#resamplings'), { value: about.defaults.resamplings });
  $('#modes').hidden = about.task.jobs.length < 2;
  tasks();
  document.body.classList.toggle('plain', !about.region_edits);
  fit();
  first().catch(error => say(error.message, true));
}

// Opens a link's drawing, or the work of last time, or paints the first example.
async function first() {
  await result.restoreHistory();
  const work = await load('doc'), list = await examples();
  if (linked) await openRecipe(await unpack(linked));
  else if (about.task.jobs[0] === 'edit') replace({ ...(work?.mode === 'edit' ? work : EMPTY), mode: 'edit' });
  else if (work?.strokes.length || work?.photo || work?.image) replace(work);
  else if (list.length) {
    await openExample(list[0]);
    await generate();
  }
}

toolbar();
keyboard(redo => generate(redo).catch(error => say(error.message, true)));
roving($('#examples'));
roving($('#history'));
onchange(refresh);
fit();
render();
refresh();
poll(aboutChanged).then(() => {
  $('#progress').value = 0;
  if (about.notice) say(about.notice, true);
  else if (about.lacks.length && !jobs.job.busy) say(about.lacks.join(' '));
}).catch(error => say(error.message, true));
