// A session as one zip archive: pictures, recipes and drawings. Nothing is compressed, as pictures are already.
import { sketchPicture } from './recipe.js';
import { dataBlob } from './dom.js';

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function checksum(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

// A record of little-endian numbers of 2 or 4 bytes: [value, bytes].
function record(...numbers) {
  const view = new DataView(new ArrayBuffer(numbers.reduce((sum, [, bytes]) => sum + bytes, 0)));
  let at = 0;
  for (const [value, bytes] of numbers) {
    bytes === 2 ? view.setUint16(at, value, true) : view.setUint32(at, value, true);
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}

export function zip(files) {
  const parts = [], index = [], now = new Date();
  const time = [(now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1), 2], day = [((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate(), 2];
  let at = 0;
  for (const [name, bytes] of files) {
    const label = new TextEncoder().encode(name), size = [bytes.length, 4];
    const common = [[20, 2], [0x800, 2], [0, 2], time, day, [checksum(bytes), 4], size, size, [label.length, 2], [0, 2]]; // names are UTF-8
    const head = record([0x04034b50, 4], ...common);
    index.push(record([0x02014b50, 4], [20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [at, 4]), label);
    parts.push(head, label, bytes);
    at += head.length + label.length + bytes.length;
  }
  const size = index.reduce((sum, part) => sum + part.length, 0), count = [files.length, 2];
  return new Blob([...parts, ...index, record([0x06054b50, 4], [0, 2], [0, 2], count, count, [size, 4], [at, 4], [0, 2])], { type: 'application/zip' });
}

const bytesOf = async url => new Uint8Array(await dataBlob(url).arrayBuffer());

// The files of a finished picture: itself, its recipe, and what it was made from.
async function filesOf({ number, image, used, doc }) {
  const name = String(number).padStart(3, '0'), { given, sketch } = doc;
  const pictures = doc.mode === 'edit' ? { given: given.image, mask: given.mask, object: given.object } : { drawing: sketchPicture({ ...used, sketch }) };
  const recipe = doc.mode === 'edit' ? { ...used, ...given } : used;
  const listed = Object.entries(pictures).filter(([, url]) => url).map(async ([kind, url]) => [`${name}-${kind}.${url.startsWith('data:image/jpeg') ? 'jpg' : url.startsWith('data:image/webp') ? 'webp' : 'png'}`, await bytesOf(url)]);
  return [[`${name}.png`, await bytesOf(image)], [`${name}-recipe.json`, new TextEncoder().encode(JSON.stringify(recipe, null, 1))], ...(await Promise.all(listed))];
}

export const session = async history => zip((await Promise.all([...history].reverse().map(filesOf))).flat());
