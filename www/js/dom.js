/** Short words for what every part of the page does with the document. */

/** @param {string} id @returns {any} */
export const $ = (id) => document.getElementById(id);

/**
 * @param {string} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function option(value, text) {
  return element('option', { value }, text);
}

/**
 * Shows a picture, and waits until it can be seen, so that nothing is laid out for a picture that is not there.
 *
 * @param {HTMLImageElement} image
 * @param {Blob} blob
 * @param {string} alt
 */
export async function showImage(image, blob, alt) {
  const old = image.src;
  image.src = URL.createObjectURL(blob);
  image.alt = alt;
  image.hidden = false;
  if (old) URL.revokeObjectURL(old);
  // Decoded elsewhere, so that the main thread need not do it when it paints.
  await image.decode().catch(() => {});
}

const fitted = new Map();
const observer = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    for (const child of target.children) if (fitted.has(child)) place(child);
  }
});

function place(child) {
  const { ratio, then } = fitted.get(child);
  const { paddingLeft, paddingTop } = getComputedStyle(child.parentElement);
  const width = child.parentElement.clientWidth - 2 * parseFloat(paddingLeft);
  const height = child.parentElement.clientHeight - 2 * parseFloat(paddingTop);
  child.style.width = `${Math.min(width, height * ratio)}px`;
  child.style.height = `${Math.min(height, width / ratio)}px`;
  then?.();
}

/**
 * Makes an element as large as its frame allows in a ratio, now and when the frame changes.
 *
 * @param {HTMLElement} child
 * @param {number} ratio width to height
 * @param {() => void} [then] called when the size has been set
 */
export function fitInto(child, ratio, then) {
  fitted.set(child, { ratio, then });
  observer.observe(child.parentElement);
  place(child);
}

/** What was chosen in a file input, which is emptied: the same file may be chosen again. @param {string} id */
export function takeFiles(id) {
  const files = [...$(id).files];
  $(id).value = '';
  return files;
}

/** Offers a file to keep. */
export function save(blob, name) {
  const link = element('a', { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60e3);
}

/** Values that outlive a reload; nothing is lost but them where there is no storage. */
export const memory = {
  get(name) {
    try {
      return JSON.parse(localStorage.getItem(name));
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(name, JSON.stringify(value));
    } catch {
      // Private windows, or no room.
    }
  },
};
