/** The page as an app: offline, and installed. */

import { $ } from './dom.js';

export function initInstall() {
  const showOffline = () => ($('offline').hidden = navigator.onLine);
  addEventListener('online', showOffline);
  addEventListener('offline', showOffline);
  showOffline();
  // Browsers that install otherwise, or not at all, send no such event.
  addEventListener('beforeinstallprompt', (event) => {
    event.preventDefault();
    $('install').hidden = false;
    $('install').onclick = () => {
      $('install').hidden = true;
      event.prompt();
    };
  });
  // Later than what the user sees.
  if (document.readyState === 'complete') register();
  else addEventListener('load', register);
}

/** Without a service worker, the page just needs a network. */
function register() {
  navigator.serviceWorker?.register('./sw.js').catch((error) => {
    console.warn('The page will not work offline:', error);
  });
}
