// Opening a file: a recipe, a drawing, or a photo whose lines an extractor finds.
import { about } from './api.js';
import { doc, editKind, replace } from './state.js';
import { wanted } from './edits.js';
import { size } from './finding.js';
import { openDrawing, openLabels, openRecipe, recipeIn } from './recipe.js';
import { $, dataBlob, say, toDataURL } from './dom.js';

let original = null; // the photo as it was opened, for another extractor

export async function openFile(file) {
  const recipe = await recipeIn(file);
  if (doc.mode === 'edit' && recipe?.kind !== 'edit' && file.type !== 'application/json') {
    const paper = editKind().picture === 'painting', { caption, task, seed, object, objectStrokes } = doc;
    replace({ mode: 'edit', image: paper ? await fitted(file) : await toDataURL(file), caption, task, seed, object, objectStrokes });
    return say(wanted());
  }
  if (/labels\.png$/i.test(file.name)) {
    await openLabels(file);
    return say('Regions of the label map opened');
  }
  if (recipe) {
    await openRecipe(recipe);
    return say('Recipe opened');
  }
  await openPicture(file);
}

// Opens a drawing on paper, or a photo whose lines are extracted; texts are given to the regions at their points.
export async function openPicture(file, { extract = '', caption = doc.caption, seed = doc.seed, regions = [] } = {}) {
  original = await fitted(file);
  const select = $('#extractor');
  select.hidden = !about.extractors.length;
  select.value = extract;
  await openDrawing({ photo: original, extract, caption, seed, regions });
}
export const chooseExtractor = extract => original && openPicture(dataBlob(original), { extract });

// The picture on paper with the sides' ratio of what is sampled, so that nothing is stretched.
async function fitted(file) {
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    throw new Error('This file is no picture that the browser can read; open a PNG, JPEG or WebP, or a recipe.');
  }
  const [width, height] = size(768), canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d'), scale = Math.min(width / image.width, height / image.height);
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  context.drawImage(image, (width - image.width * scale) / 2, (height - image.height * scale) / 2, image.width * scale, image.height * scale);
  return canvas.toDataURL();
}
