/** A picture from an address. */

import { $ } from './dom.js';
import { chooseFrom, fetchPicture } from './picture.js';

export function initAddress() {
  $('address').addEventListener('click', () => $('address-dialog').showModal());
  $('address-close').addEventListener('click', () => $('address-dialog').close());
  $('address-form').addEventListener('submit', (event) => {
    event.preventDefault();
    $('address-dialog').close();
    chooseFrom(() => fetchPicture($('address-url').value));
  });
}
