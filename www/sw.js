/**
 * Keeps the page and the package, so that it opens offline. Models are none of its business: the package
 * keeps them itself, piece by piece.
 */

const CACHE = 'instruct-pix2pix-page-1';

/** What a first visit may have loaded before this is in charge, and what only an edit loads. */
const PAGE = [
  './',
  './app.js',
  './css/base.css',
  './css/page.css',
  './icon.svg',
  './icons/icon-192.png',
  './manifest.webmanifest',
  './samples/chelsea.jpg',
  './samples/cow.jpg',
  './samples/machu-picchu.jpg',
  './samples/macaw.jpg',
  ...[
    'activity',
    'address',
    'advice',
    'camera',
    'catalogue',
    'crop',
    'dom',
    'edit',
    'examples',
    'fit',
    'history',
    'install',
    'lanczos',
    'loras',
    'machine',
    'models',
    'pace',
    'parameters',
    'picture',
    'picture-worker',
    'png',
    'preview',
    'result',
    'settings',
    'store',
    'timeline',
    'units',
    'variants',
  ].map((name) => `./js/${name}.js`),
  './pkg/index.js',
  './pkg/shared.js',
  './pkg/single-file.js',
  './pkg/support.js',
  './pkg/worker.js',
  './pkg/instruct_pix2pix.js',
  './pkg/instruct_pix2pix_bg.wasm',
];

addEventListener('install', (event) => {
  skipWaiting();
  event.waitUntil(keepPage());
});

async function keepPage() {
  const cache = await caches.open(CACHE);
  // What is missing from a changed package must not keep the rest from being kept.
  await Promise.allSettled(PAGE.map((path) => cache.add(path)));
}

addEventListener('activate', (event) => {
  event.waitUntil(
    (async () => {
      const names = await caches.keys();
      const old = names.filter(
        (name) => name.startsWith('instruct-pix2pix-page') && name !== CACHE,
      );
      await Promise.all(old.map((name) => caches.delete(name)));
      await clients.claim();
    })(),
  );
});

addEventListener('fetch', (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  const isModel = request.headers.has('range') || pathname.includes('/models/');
  if (request.method !== 'GET' || origin !== location.origin || isModel) return;
  event.respondWith(answer(request));
});

/** From the network while there is one, so that the page is never an old one. */
async function answer(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.status === 200) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}
