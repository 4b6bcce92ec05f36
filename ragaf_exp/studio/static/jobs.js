// A job: the recipe goes to the server, its events come back as a result.
import { about, events, postJson, remove } from './api.js';
import { doc, selected } from './state.js';
import { recipeOf } from './recipe.js';
import { ready as canEdit } from './edits.js';
import { $, say } from './dom.js';

export const job = { id: null, stopped: false };
const buttons = ['go', 'redo', 'four'];

export function refresh(hasResult) {
  const ready = !!about.run && !job.busy && (doc.mode === 'edit' ? canEdit() : !!doc.labels && doc.regions.length > 0);
  for (const id of buttons) $('#' + id).disabled = !ready;
  if (!hasResult || !selected.size || doc.mode === 'edit') $('#redo').disabled = true;
  $('#stop').disabled = !job.busy;
}

// Samples once; `onstep` gets the result as it grows. Returns null if it was stopped.
export async function sample(recipe, onstep, details = true) {
  const result = { recipe, doc, seed: recipe.seed, frames: [], regions: doc.regions };
  const answer = await postJson('jobs', { recipe, details });
  job.id = answer.job;
  if (job.stopped) await remove('jobs/' + job.id);
  result.job = answer.job;
  let total = 1;
  for await (const { name, data } of events(answer.job)) {
    if (name === 'queued' && data.ahead) say(`${data.ahead} before this one`);
    else if (name === 'started') total = data.steps;
    else if (name === 'step') step(result, data, total);
    else if (/^stage\d/.test(name)) {
      result.last = data.image; // of the stages so far
      if (name.endsWith('1')) result.first = data.image;
    } else if (name === 'attention' || name === 'fusion') result[name] = data;
    else if (name === 'done') return Object.assign(result, { image: data.image, used: data.recipe, seconds: data.seconds, files: data.files, colours: data.colours });
    else if (name === 'stopped') return null;
    else if (name === 'error') throw new Error(data.error);
    onstep(result, name);
  }
}

let done = 0;
function step(result, data, total) {
  if (!result.frames.length) done = 0;
  done = Math.min(total, done + 1);
  if (data.image) result.frames.push(data);
  const text = `stage ${data.stage}, step ${data.n} of ${data.of}`;
  $('#progress').value = total ? done / total : data.n / data.of; // an edit's windows are not known at the start
  $('#progress').textContent = text;
  say(text[0].toUpperCase() + text.slice(1));
}

// One or several pictures in turn, with Stop for all of them.
export async function run({ redo = false, seeds = [doc.seed], keep = null, onstep, ondone }) {
  if (job.busy) return;
  Object.assign(job, { busy: true, stopped: false, id: null });
  refresh(false);
  $('#progress').value = 0;
  try {
    for (const seed of seeds) {
      const result = await sample(recipeOf(doc, { seed, redo, keep }), onstep, seeds.length === 1);
      if (!result || job.stopped) return say('Stopped');
      ondone(result);
      say(`Done in ${result.seconds.toFixed(1)} s`);
    }
  } catch (error) {
    say(error.message, true);
  } finally {
    Object.assign(job, { busy: false, id: null });
    $('#progress').value = 0;
    ondone(null);
  }
}

export async function stop() {
  if (!job.busy) return;
  job.stopped = true;
  if (job.id) await remove('jobs/' + job.id).catch(error => say(error.message, true));
}
