// The label map in the browser: hit test, outlines and colours without asking the server.
import { about } from './api.js';
import { doc } from './state.js';
import { toBase64, toBytes } from './dom.js';

export const decode = text => new Int16Array(toBytes(text).buffer);
export const encode = labels => toBase64(new Uint8Array(labels.buffer, labels.byteOffset, labels.byteLength));

export function colour(region, light = 74) {
  return region.background ? '#dcdde0' : `hsl(${Math.round((region.id * 137.508 + 150) % 360)} 72% ${light}%)`;
}

export function indexAt(x, y) {
  if (!doc.labels || x < 0 || y < 0 || x >= 1 || y >= 1) return -1;
  return doc.labels[Math.floor(y * about.height) * about.width + Math.floor(x * about.width)];
}
export const regionAt = (x, y) => doc.regions[indexAt(x, y)];

const cache = new WeakMap();
// One path per region along its pixels' borders, in pixels of the label map.
export function outlines(labels) {
  if (cache.has(labels)) return cache.get(labels);
  const { width: w, height: h } = about, paths = doc.regions.map(() => new Path2D());
  const edge = (index, x0, y0, x1, y1) => {
    if (!paths[index]) return;
    paths[index].moveTo(x0, y0);
    paths[index].lineTo(x1, y1);
  };
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const now = labels[y * w + x], left = x ? labels[y * w + x - 1] : -1, above = y ? labels[(y - 1) * w + x] : -1;
      if (now !== left) for (const i of [now, left]) edge(i, x, y, x, y + 1);
      if (now !== above) for (const i of [now, above]) edge(i, x, y, x + 1, y);
      if (x === w - 1) edge(now, w, y, w, y + 1);
      if (y === h - 1) edge(now, x, h, x + 1, h);
    }
  }
  cache.set(labels, paths);
  return paths;
}

// The tinted areas as a picture of the label map's size.
export function tinted() {
  const { width, height } = about, context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  const rgb = doc.regions.map(region => {
    context.fillStyle = colour(region, 82);
    context.fillRect(0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data;
  });
  const image = context.createImageData(width, height);
  doc.labels.forEach((index, i) => index >= 0 && rgb[index] && image.data.set(rgb[index], 4 * i));
  context.putImageData(image, 0, 0);
  return context.canvas;
}
