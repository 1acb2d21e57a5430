/** Several results of one instruction. Nothing in here knows a browser. */

/** The choices: how many, and of what. */
export const VARIANTS = {
  1: 'One result',
  'seeds-2': '2 seeds',
  'seeds-4': '4 seeds',
  'seeds-6': '6 seeds',
  'seeds-9': '9 seeds',
  'guidance-4': '4 guidance pairs',
  'guidance-9': '9 guidance pairs',
};

const MAX_SEED = 2n ** 64n - 1n;

const hundredths = (value) => Math.round(value * 100) / 100;

/** From `centre` by `share` of it down and up. */
function around(centre, count, share) {
  const at = (i) => 1 + share * ((2 * i) / (count - 1) - 1);
  return Array.from({ length: count }, (_, i) => hundredths(centre * at(i)));
}

/**
 * What each result is made with. A row of the guidance grid has one text guidance, a column one image
 * guidance, which is never below 1: there, models stop to look at the picture.
 *
 * @template {{ seed: string, text: number, image: number }} T
 * @param {T} parameters
 * @param {string} kind a key of `VARIANTS`
 * @returns {T[]}
 */
export function variantsOf(parameters, kind) {
  const [what, count] = kind.split('-');
  if (what === 'seeds') {
    const first = BigInt(parameters.seed);
    const seed = (i) => String((first + BigInt(i)) % (MAX_SEED + 1n));
    return Array.from({ length: Number(count) }, (_, i) => ({ ...parameters, seed: seed(i) }));
  }
  if (what === 'guidance') {
    const side = Math.sqrt(Number(count));
    const images = around(parameters.image, side, 0.2).map((image) => Math.max(1, image));
    return around(parameters.text, side, 0.25).flatMap((text) =>
      images.map((image) => ({ ...parameters, text, image })),
    );
  }
  return [parameters];
}

/** What tells a result from the others of its grid. */
export function labelOf({ seed, text, image }, kind) {
  return kind.startsWith('guidance') ? `text ${text}, image ${image}` : `seed ${seed}`;
}
