// Small helpers for the document. Data only ever becomes text or properties, never markup.
export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key.includes('-') || key === 'role' || key === 'list' || key === 'scope') element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.filter(child => child != null));
  return element;
}

const NS = 'http://www.w3.org/2000/svg';
export function svg(tag, attributes = {}, text = '') {
  const element = document.createElementNS(NS, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

export function icon(name) {
  const element = svg('svg', { class: 'i', 'aria-hidden': 'true' });
  element.append(svg('use', { href: '#i-' + name }));
  return element;
}

export function iconButton(name, label, onclick, props = {}) {
  return h('button', { className: 'icon quiet', 'aria-label': label, title: label, onclick, ...props }, icon(name));
}

export function picture(src, alt, className = '') {
  return h('img', { src, alt, className, draggable: false });
}

export function say(text, error = false) {
  const status = $('#status');
  status.textContent = text;
  status.className = error ? 'error' : '';
}

// Marks one of a group of buttons as chosen.
export function press(buttons, chosen) {
  for (const button of buttons) button.setAttribute('aria-pressed', String(button === chosen));
}

// One tab stop for a group; arrow keys move within it (ARIA toolbar pattern).
export function roving(root) {
  const items = () => $$('button:not(:disabled, [hidden]), input', root);
  const settle = focused => items().forEach(item => (item.tabIndex = item === focused ? 0 : -1));
  root.addEventListener('focusin', event => settle(event.target));
  root.addEventListener('keydown', event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || event.target.matches('input')) return;
    const all = items(), next = all[(all.indexOf(event.target) + step + all.length) % all.length];
    event.preventDefault();
    next.focus();
  });
  const refresh = () => settle(items().find(item => item.tabIndex === 0 && item === document.activeElement) ?? items()[0]);
  new MutationObserver(refresh).observe(root, { childList: true });
  refresh();
}

export function download(name, blob) {
  const url = URL.createObjectURL(blob);
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export const toBytes = text => Uint8Array.from(atob(text), char => char.charCodeAt(0));
export function toBase64(bytes) {
  let text = '';
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}
export const dataBlob = url => new Blob([toBytes(url.slice(url.indexOf(',') + 1))], { type: url.slice(5, url.indexOf(';')) });
export function toDataURL(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
export async function decoded(url) {
  const image = h('img', { src: url });
  await image.decode();
  return image;
}
