// The toolbar and the keyboard.
import { about } from './api.js';
import { canRedo, canUndo, doc, inked, onchange, redo, select, selected, undo, update } from './state.js';
import { draw, fit, magnify, surface, useTool } from './canvas.js';
import { merge, remove } from './finding.js';
import { stop } from './jobs.js';
import { play } from './result.js';
import { shape } from './strokes.js';
import { $, $$, h, icon, roving } from './dom.js';

const TOOLS = [['pen', 'Pen', 'b'], ['eraser', 'Eraser', 'e'], ['rect', 'Rectangle', 'r'], ['ellipse', 'Ellipse', 'o'],
  ['select', 'Select a region', 'v'], ['split', 'Split a region by a line', 'k'], ['paint', 'Paint a region', 'p'], ['hint', 'Colour hint', 'c']];
const REGIONS = ['select', 'split', 'paint'];
let clear;

export function toolbar() {
  const buttons = TOOLS.map(([name, label, key]) => h('button', { className: 'icon', 'data-tool': name, 'aria-label': label, 'aria-pressed': String(name === 'pen'), title: `${label} (${key.toUpperCase()})`, onclick: () => useTool(name) }, icon(name)));
  const act = (name, label, onclick) => h('button', { className: 'icon quiet', 'data-act': name, 'aria-label': label, title: label, onclick }, icon(name));
  clear = act('trash', 'Clear', () => update({ mask: { mask: [], maskBase: null }, painting: { painting: [], image: null }, strokes: { strokes: [], photo: null, edits: [] } }[inked()] ?? {}));
  const width = h('input', { type: 'range', id: 'width', min: 4, max: 60, value: 16, 'aria-label': 'Width of the pen', oninput: () => (surface.width = width.value / 1000) });
  const line = () => h('span', { className: 'sep' });
  $('#tools').append(...buttons.slice(0, 4), line(), ...buttons.slice(4), line(), act('back', 'Undo (Ctrl+Z)', undo), act('forth', 'Redo (Ctrl+Shift+Z)', redo), clear, h('span', { className: 'width', title: 'Width of the pen ( [ and ] )' }, width));
  roving($('#tools'));
  onchange(refresh);
  refresh();
}

function refresh() {
  $('[data-act=back]').disabled = !canUndo();
  $('[data-act=forth]').disabled = !canRedo();
  const kind = inked();
  clear.disabled = !kind || !doc[kind].length && !{ strokes: doc.photo, mask: doc.maskBase, painting: doc.image }[kind];
  for (const name of REGIONS) $(`[data-tool=${name}]`).hidden = doc.mode === 'edit' || !about.region_edits && name !== 'select';
  $('[data-tool=hint]').hidden = kind !== 'painting';
  for (const name of ['pen', 'eraser', 'rect', 'ellipse']) $(`[data-tool=${name}]`).disabled = !kind;
  if ($(`[data-tool=${surface.tool}]`).hidden) useTool('pen');
}

// Shapes without dragging: by numbers, in percent.
$('#numbers').onsubmit = event => {
  event.preventDefault();
  const value = name => event.target.elements[name].value / 100, [x, y, w, tall] = ['x', 'y', 'w', 'h'].map(value);
  const kind = event.target.elements.kind.value;
  draw({ points: shape(kind, [x - w / 2, y - tall / 2], [x + w / 2, y + tall / 2]), width: surface.width });
};

function widen(step) {
  $('#width').value = +$('#width').value + step;
  $('#width').oninput();
}
function lock() {
  if (selected.size) update({ regions: doc.regions.map(region => (selected.has(region.id) ? { ...region, locked: !region.locked } : region)) });
}
const zoom = factor => {
  const box = $('#stage').getBoundingClientRect();
  magnify(factor, box.left + box.width / 2, box.top + box.height / 2);
};

const SINGLE = { ...Object.fromEntries(TOOLS.map(([name, , key]) => [key, () => useTool(name)])), m: merge, l: lock, Delete: () => remove(), '[': () => widen(-4), ']': () => widen(4), '+': () => zoom(1.25), '-': () => zoom(0.8), ' ': () => play(), '?': () => $('#help').click(), Enter: () => $(`#prompt-${[...selected].at(-1)}`)?.focus() };
const HELP = [...TOOLS.map(([, label, key]) => [key.toUpperCase(), label]), ['M', 'Merge'], ['L', 'Lock'], ['Del', 'Delete the selected regions'], ['0 to 9', 'Select a region'], ['Enter', 'To its text'], ['\u2191 \u2193', 'Next region in the list'], ['[ ]', 'Width of the pen'], ['+ \u2212', 'Zoom'], ['Space', 'Play the evolution'], ['Shift', 'A straight line; add to the selection'],
  ['Ctrl+Enter', 'Generate'], ['Ctrl+Shift+Enter', 'Redo selected'], ['Esc', 'Stop'], ['Ctrl+Z', 'Undo'], ['Ctrl+Shift+Z', 'Redo']];

export function keyboard(generate) {
  addEventListener('keydown', event => {
    const { target, key } = event, typing = target.matches('input:not([type=range], [type=checkbox]), select'), command = event.ctrlKey || event.metaKey;
    if ($('dialog[open]')) return;
    if (key === 'Escape') {
      $('#share').open = false;
      return stop();
    }
    if (key === 'Enter' && (command || target.id?.startsWith('prompt-'))) {
      event.preventDefault();
      return generate(command && event.shiftKey);
    }
    if (command && key.toLowerCase() === 'z' && !(typing && target.type === 'number')) {
      event.preventDefault();
      return event.shiftKey ? redo() : undo();
    }
    if (typing || command || event.altKey || !$('#single').checked || $('[data-view=studio]').hidden) return;
    if (['Enter', ' '].includes(key) && target.matches('button, summary, a, input')) return;
    const number = /^[0-9]$/.test(key) && doc.regions.find(region => region.id === +key);
    if (number) select([number.id], event.shiftKey);
    else if (SINGLE[key]) {
      event.preventDefault();
      SINGLE[key]();
    }
  });
  $('#keys dl').append(...HELP.map(([key, label]) => h('div', {}, h('dt', {}, h('kbd', { textContent: key })), h('dd', { textContent: label }))));
  $('#help').onclick = () => $('#keys').showModal();
  $('#single').checked = localStorage.single !== 'off';
  $('#single').onchange = () => (localStorage.single = $('#single').checked ? 'on' : 'off');
  addEventListener('resize', fit);
}
