// The result: stages as they form, evolution, comparison by a slider, four seeds, history.
import { doc, forget, keys, load, save, update } from './state.js';
import { redraw, show, surface } from './canvas.js';
import * as why from './why.js';
import { restoreSettings } from './recipe.js';
import { $, $$, decoded, h, icon, picture, press, say } from './dom.js';

const MOST = 50; // finished pictures in the history
export const view = { current: null, tab: 'result', frame: null, four: [] };
export let history = [];
let number = 0, other = null, playing = null;
const area = $('#view'), range = $('#frame');

export function describe(result) {
  const texts = result.doc.regions.map((region, i) => (result.colours?.[i] ? `region ${region.id} is ${result.colours[i]}` : region.prompt && `region ${region.id}: ${region.prompt}`));
  return [result.doc.caption, ...texts].filter(Boolean).join('; ') || 'no text';
}

export function tab(name) {
  view.tab = name;
  press($$('#tabs button'), $(`#tabs [data-tab=${name}]`));
  paint();
}

export function paint() {
  const { current, frame, tab: name } = view;
  $('#against').hidden = name !== 'compare' || history.length < 2;
  if (name === 'four') return four();
  if (!current) return;
  if (name === 'compare') return compare();
  const step = frame === null ? null : current.frames[frame];
  const source = name === 'first' ? current.first ?? last(1) : step?.image ?? current.image ?? current.last ?? current.frames.at(-1)?.image;
  const alt = `${name === 'first' ? 'Stage 1' : 'Picture'} of: ${describe(current)}`;
  area.replaceChildren(source ? picture(source, alt) : h('p', { textContent: name === 'first' ? 'Stage 1 does not run where the rest of a picture stays.' : 'No picture yet.' }));
  const tag = step ? `Stage ${step.stage}, step ${step.n}` : current.seconds ? `Seed ${current.seed}` : '';
  if (tag && name !== 'first') area.append(h('span', { className: 'tag l', textContent: tag }));
}
const last = stage => view.current.frames.findLast(frame => frame.stage === stage)?.image;

// ---- evolution
export function film() {
  const frames = view.current?.frames ?? [];
  $('#scrub').hidden = frames.length < 2;
  range.max = Math.max(0, frames.length - 1);
  range.value = view.frame ?? range.max;
  const frame = frames[range.value];
  $('#when').textContent = frame ? `stage ${frame.stage}, t = ${frame.t}` : '';
  range.setAttribute('aria-valuetext', frame ? `stage ${frame.stage}, step ${frame.n} of ${frame.of}, timestep ${frame.t}` : '');
}

function seek(value) {
  const { current } = view;
  view.frame = value >= current.frames.length - 1 ? null : value;
  if (view.tab !== 'result') tab('result');
  paint();
  film();
}

export function play(on = !playing) {
  clearInterval(playing);
  playing = null;
  if (on && view.current?.frames.length) {
    let at = view.frame ?? 0;
    playing = setInterval(() => (at < view.current.frames.length ? seek(at++) : play(false)), 160);
  }
  $('#play').replaceChildren(icon(playing ? 'pause' : 'play'));
  $('#play').setAttribute('aria-label', playing ? 'Pause the evolution' : 'Play the evolution');
}
range.oninput = () => (play(false), seek(+range.value));
$('#play').onclick = () => play();

// ---- comparison
function compare() {
  const { current } = view, with_ = history.find(item => item.number === other) ?? history.find(item => item !== current);
  if (!with_ || !current.image) return area.replaceChildren(h('p', { textContent: 'Comparison needs two finished pictures.' }));
  const select = $('#other');
  select.replaceChildren(...history.filter(item => item !== current).map(item => new Option(`#${item.number}: ${describe(item)}`.slice(0, 60), item.number, false, item === with_)));
  const over = picture(with_.image, `Picture ${with_.number}: ${describe(with_)}`), bar = h('div', { className: 'cut' });
  area.replaceChildren(picture(current.image, `Picture ${current.number}: ${describe(current)}`), over, bar, h('span', { className: 'tag l', textContent: '#' + with_.number }), h('span', { className: 'tag r', textContent: '#' + current.number }));
  const move = () => {
    over.style.clipPath = `inset(0 ${100 - $('#cut').value}% 0 0)`;
    bar.style.left = $('#cut').value + '%';
  };
  $('#cut').oninput = move;
  area.onpointermove = event => {
    if (view.tab !== 'compare' || !event.buttons && event.pointerType === 'mouse') return;
    const box = area.getBoundingClientRect();
    $('#cut').value = 100 * (event.clientX - box.left) / box.width;
    move();
  };
  move();
}
$('#other').onchange = event => {
  other = +event.target.value;
  paint();
};

// ---- four seeds
function four() {
  if (!view.four.length) return area.replaceChildren(h('p', { textContent: '\u201C4 seeds\u201D samples the drawing four times; a click then chooses one.' }));
  area.replaceChildren(h('div', { className: 'four' }, ...view.four.map(result => h('button', { title: `Seed ${result.seed}: choose`, onclick: () => (choose(result), tab('result')) },
    picture(result.image, `Seed ${result.seed}: ${describe(result)}`), h('span', { className: 'tag l', textContent: result.seed })))));
}

// ---- history
export function remember(result) {
  result.number = ++number;
  history = [result, ...history].slice(0, MOST);
  for (const old of history.slice(10)) old.frames = []; // steps of older pictures would fill the memory
  save('picture/' + String(result.number).padStart(6, '0'), result);
  keys('picture/').then(all => all.slice(0, -MOST).forEach(forget));
  thumbnails();
}

function thumbnails() {
  if (!history.length) return;
  $('#history').replaceChildren(...history.map(item => {
    const button = h('button', { title: `#${item.number}, seed ${item.seed}: ${describe(item)}`, onclick: () => choose(item) }, picture(item.image, `Picture ${item.number}: ${describe(item)}`));
    button.setAttribute('aria-current', String(item === view.current));
    return button;
  }));
}

// Restores a finished picture with its drawing; undo brings the drawing before it back.
export function choose(result, restore = true) {
  play(false);
  Object.assign(view, { current: result, frame: null });
  if (restore && result.doc !== doc) {
    update(result.doc);
    restoreSettings(result.recipe);
    say(`Picture ${result.number} restored`);
  }
  finished(result);
}

export async function finished(result) {
  const shown = await decoded(result.image);
  if (view.current !== result) return;
  surface.picture = shown;
  $('#show [data-show=image]').disabled = false;
  paint();
  film();
  thumbnails();
  why.render(result, map => {
    surface.map = map;
    show(map ? 'word' : 'regions');
  });
  redraw();
}

export async function restoreHistory() {
  const names = (await keys('picture/')).sort().slice(-MOST);
  history = (await Promise.all(names.map(load))).filter(Boolean).reverse();
  number = history[0]?.number ?? 0;
  for (const old of history.slice(10)) old.frames = [];
  if (history.length) choose(history[0], false);
}
for (const button of $$('#tabs button')) button.onclick = () => tab(button.dataset.tab);
