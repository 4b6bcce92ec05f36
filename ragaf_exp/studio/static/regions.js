// The list of regions: the drawing's twin for keyboard and screen reader. One row a region, one tab stop for the list.
import { about, postJson } from './api.js';
import { doc, onchange, select, selected, updateRegion } from './state.js';
import { redraw, surface } from './canvas.js';
import { colour } from './labels.js';
import { halve, merge, remove } from './finding.js';
import { $, $$, h, icon } from './dom.js';

const list = $('#regions');
const name = region => `region ${region.id}${region.background ? ', background' : ''}`;
const STEP = 0.1, round = value => Math.round(value * 10) / 10;
let active = null, rows = new Map(), order = '';

export function render() {
  const ids = doc.regions.map(region => region.id).sort((a, b) => a - b);
  if (ids.join() !== order) {
    order = ids.join();
    const focused = document.activeElement?.id;
    rows = new Map(ids.map(id => [id, rows.get(id) ?? row(id)]));
    list.replaceChildren(...[...rows.values()].map(parts => parts.item));
    if (focused?.startsWith('prompt-')) $('#' + focused)?.focus();
    if (!ids.length) list.append(h('li', { className: 'empty' }, 'Draw a closed shape, or take an example. Each area between lines becomes a region with its own text.'));
  }
  if (!rows.has(active)) active = ids[0];
  for (const region of doc.regions) refresh(region, rows.get(region.id));
  $('#merge').disabled = selected.size < 2;
}

const STRENGTH = { min: 0, max: 2, step: 0.1, title: 'from 0 to 2; 1 is as trained, and more is stronger, not better' };
const PERIOD = { step: STEP, title: 'share of the noise schedule, from 0 (pure noise) to 1 (finished image), in which the region reads its text' };
const DIALS = {
  importance: { text: 'Importance', ...STRENGTH }, outline: { text: 'Outline', ...STRENGTH },
  start: { text: 'Text from', min: 0, max: 1 - STEP, ...PERIOD }, end: { text: 'Text until', min: STEP, max: 1, ...PERIOD },
};

// The other end of a region's period, moved where the changed one would pass it.
function ordered(region, key, value) {
  if (key === 'start' && value >= region.end) return { end: round(value + STEP) };
  if (key === 'end' && value <= region.start) return { start: round(value - STEP) };
  return {};
}

function row(id) {
  const now = () => doc.regions.find(region => region.id === id);
  const act = (label, onclick) => h('button', { textContent: label, onclick });
  const chip = h('button', { className: 'chip', textContent: id, onclick: () => select([id], true) });
  const prompt = h('input', { id: 'prompt-' + id, list: 'suggestions', maxLength: about.limits?.prompt ?? 200, autocomplete: 'off', 'aria-describedby': 'words-' + id });
  prompt.oninput = () => {
    updateRegion(id, { prompt: prompt.value }, 'prompt');
    suggest(prompt.value);
  };
  const lock = h('button', { className: 'icon', title: 'Keep this region as it is (L)', onclick: () => updateRegion(id, { locked: !now().locked }) });
  const dials = h('div', { className: 'dials' });
  const inputs = Object.entries(DIALS).map(([key, { text, ...range }]) => {
    const value = h('output', {}), input = h('input', { type: 'range', ...range });
    input.oninput = () => updateRegion(id, { [key]: +input.value, ...ordered(now(), key, +input.value) }, key);
    dials.append(text, input, value);
    return { key, input, value };
  });
  const acts = h('div', { className: 'acts' }, act('Split left | right', () => halve(now(), 'left-right')), act('Split top | bottom', () => halve(now(), 'top-bottom')), act('Delete', () => remove([now().at])));
  const more = h('div', { className: 'field' }, dials, acts), words = h('p', { className: 'words', id: 'words-' + id });
  const toggle = h('button', { className: 'icon quiet', textContent: '\u22EF', onclick: () => (more.hidden = !more.hidden, refresh(now(), rows.get(id))) });
  more.hidden = true;
  const item = h('li', { className: 'region' }, h('div', { className: 'line' }, chip, prompt, lock, toggle), words, more);
  item.addEventListener('focusin', () => enter(id, document.activeElement === prompt));
  item.addEventListener('pointerenter', () => (surface.hover = id, redraw()));
  item.addEventListener('pointerleave', () => (surface.hover = null, redraw()));
  item.addEventListener('keydown', event => arrows(event, id));
  return { item, chip, prompt, lock, inputs, more, toggle, words };
}

function enter(id, typing) {
  active = id;
  if (typing && !selected.has(id)) select([id]);
  else render();
}

function arrows(event, id) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.target.type === 'range') return;
  const ids = [...rows.keys()], next = ids[ids.indexOf(id) + step];
  event.preventDefault();
  if (next !== undefined) $('#prompt-' + next).focus();
}

function refresh(region, { item, chip, prompt, lock, inputs, more, toggle, words }) {
  const on = selected.has(region.id), label = name(region);
  item.className = 'region' + (on ? ' on' : '');
  chip.style.background = colour(region);
  chip.setAttribute('aria-pressed', String(on));
  chip.setAttribute('aria-label', `Select ${label}`);
  if (prompt.value !== region.prompt) prompt.value = region.prompt;
  prompt.placeholder = region.background ? 'background, as captioned' : 'as the caption says';
  prompt.setAttribute('aria-label', `Text of ${label}`);
  lock.setAttribute('aria-pressed', String(region.locked));
  lock.setAttribute('aria-label', `Lock ${label}`);
  lock.replaceChildren(icon(region.locked ? 'lock' : 'open'));
  toggle.setAttribute('aria-expanded', String(!more.hidden));
  toggle.setAttribute('aria-label', `More of ${label}`);
  for (const { key, input, value } of inputs) {
    input.value = region[key];
    value.textContent = region[key].toFixed(1);
    input.setAttribute('aria-label', `${DIALS[key].text} of ${label}`);
  }
  words.textContent = note(region.prompt);
  words.hidden = !words.textContent;
  prompt.style.textDecoration = words.hidden ? '' : 'underline wavy';
  for (const control of $$('button, input', item)) control.tabIndex = region.id === active ? 0 : -1;
}

// ---- words that the run's captions never had
const read = new Map();
let timer;

function note(text) {
  const answer = read.get(text);
  if (!answer?.left_out.length) return '';
  const out = answer.left_out.map(word => `\u201C${word}\u201D`).join(', ');
  return answer.read ? `uses: ${answer.read} (${out}: never in this run's captions)` : `${out}: never in this run's captions, so the caption is used`;
}

function check() {
  const missing = [...new Set(doc.regions.map(region => region.prompt).filter(text => text.trim() && !read.has(text)))].slice(0, 65);
  if (!about.words || !missing.length) return;
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const { texts } = await postJson('words', { texts: missing }).catch(() => ({ texts: [] })); // only a hint: a job reports errors
    texts.forEach((answer, i) => read.set(missing[i], answer));
    if (texts.length) render();
  }, 250);
}

function suggest(text) {
  const start = text.slice(0, text.lastIndexOf(' ') + 1), last = text.slice(start.length).toLowerCase();
  const fitting = last ? (about.words ?? []).filter(word => word.startsWith(last) && word !== last).slice(0, 8) : [];
  $('#suggestions').replaceChildren(...fitting.map(word => h('option', { value: start + word })));
}

$('#merge').onclick = merge;
onchange(() => {
  render();
  check();
});
