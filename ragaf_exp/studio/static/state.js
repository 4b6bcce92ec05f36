// The document: everything that a person made. Values are replaced, never changed in place, so that undo keeps
// references alone and costs little, however long it gets.
import { about } from './api.js';

export const EMPTY = {
  mode: 'sketch', strokes: [], photo: null, caption: '', seed: 0,
  regions: [], labels: null, sketch: null, edits: [], leaks: [], of: null, // of: the strokes that the labels are of
  image: null, mask: [], maskBase: null, painting: [], // of edits: the photo or paper, and what is drawn on it
  task: '', object: null, objectStrokes: [],
};
const REGION = { prompt: '', importance: 1, outline: 1, locked: false, start: 0, end: 1 };

export let doc = EMPTY;
// The kind of edit that is chosen, as the server describes it.
export const editKind = () => about.task?.edits.find(kind => kind.name === doc.task) ?? about.task?.edit;
// The strokes that the tools work on; null where there is nothing to draw on.
export const inked = () => (doc.mode === 'sketch' ? 'strokes' : editKind()?.picture === 'painting' ? 'painting' : editKind()?.mask === 'required' ? 'mask' : null);
export const selected = new Set(); // ids of regions
const past = [], future = [], listeners = [];
let merging = null;

export const onchange = listener => listeners.push(listener);
const changed = () => listeners.forEach(listener => listener());
export const canUndo = () => past.length > 0, canRedo = () => future.length > 0;

// Changes the document. `merge` names a run of changes, such as typing in one field, that is undone as one.
export function update(changes, { undo = true, merge = null } = {}) {
  if (undo && (merge === null || merge !== merging)) {
    past.push(doc);
    future.length = 0;
  }
  if (undo) merging = merge;
  doc = { ...doc, ...changes };
  for (const id of selected) if (!doc.regions.some(region => region.id === id)) selected.delete(id);
  changed();
}

export function updateRegion(id, changes, merge = null) {
  update({ regions: doc.regions.map(region => (region.id === id ? { ...region, ...changes } : region)) }, { merge: merge && merge + id });
}

function travel(from, to) {
  if (!from.length) return;
  to.push(doc);
  doc = from.pop();
  merging = null;
  for (const id of selected) if (!doc.regions.some(region => region.id === id)) selected.delete(id);
  changed();
}
export const undo = () => travel(past, future);
export const redo = () => travel(future, past);
export const replace = value => update({ ...EMPTY, ...value });

export function select(ids, add = false) {
  if (!add) selected.clear();
  for (const id of ids) selected.has(id) && add ? selected.delete(id) : selected.add(id);
  changed();
}

// ---- regions keep their ids: by overlap after a stroke, by `came` after an edit
export function carried(fresh, labels, before = doc) {
  const counts = new Map();
  if (before.labels && before.labels.length === labels.length) {
    labels.forEach((now, i) => {
      const old = before.labels[i];
      if (now >= 0 && old >= 0) counts.set(now * 4096 + old, (counts.get(now * 4096 + old) ?? 0) + 1);
    });
  }
  const parent = new Map(), owner = new Map();
  for (const [key] of [...counts].sort((a, b) => b[1] - a[1])) {
    const now = key >> 12, old = key & 4095;
    if (!parent.has(now)) parent.set(now, old);
    if (![...owner.values()].includes(old) && !owner.has(now) && parent.get(now) === old) owner.set(now, old);
  }
  const origin = now => before.regions[parent.get(now)];
  return numbered(fresh, now => {
    if (owner.has(now)) return { keep: before.regions[owner.get(now)] };
    const old = origin(now), around = owner.get(fresh.regions[now].parent) === parent.get(now);
    return { copy: old && !old.background && !around ? old : null };
  });
}

export const came = (fresh, from) => numbered(fresh, now => (fresh.came[now] >= 0 ? { keep: doc.regions[fresh.came[now]] } : { copy: from }));

function numbered(fresh, origin) {
  const origins = fresh.regions.map((_, index) => origin(index));
  const used = new Set(origins.map(from => from.keep?.id));
  let next = 0;
  return fresh.regions.map((region, index) => {
    const { keep, copy } = origins[index];
    while (!keep && used.has(next)) next++;
    if (!keep) used.add(next);
    const { prompt, importance, outline, locked, start, end } = { ...REGION, ...(keep ?? copy) };
    return {
      id: keep ? keep.id : next, prompt, importance, outline, start, end, locked: keep ? locked : false,
      at: region.at, area: region.area, parent: region.parent, background: index === fresh.background,
    };
  });
}

// ---- autosave: one database, the document under one key, each finished picture under its number
// one database for each size, since label maps have the run's
let database = null;
const opened = () => (database ??= new Promise((resolve, reject) => {
  const request = indexedDB.open(`ragaf-studio-${about.width}x${about.height}`, 1);
  request.onupgradeneeded = () => request.result.createObjectStore('studio');
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
}).catch(() => null)); // private windows may refuse; the page then works without autosave

async function stored(mode, call) {
  const base = about.run && (await opened());
  if (!base) return null;
  const request = call(base.transaction('studio', mode).objectStore('studio'));
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
export const save = (key, value) => stored('readwrite', store => store.put(value, key));
export const forget = key => stored('readwrite', store => store.delete(key));
export const load = key => stored('readonly', store => store.get(key));
export const keys = async prefix => ((await stored('readonly', store => store.getAllKeys())) ?? []).filter(key => key.startsWith(prefix));

let timer;
onchange(() => {
  clearTimeout(timer);
  timer = setTimeout(() => save('doc', doc), 400);
});
