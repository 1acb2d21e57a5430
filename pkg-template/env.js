import { check, ENV, oneOf } from './options.js';

/** From the quietest to the most talkative. */
export const LOG_LEVELS = ['silent', 'error', 'warn', 'info', 'debug'];

/** Defaults for what is called later. */
export const env = { logLevel: 'warn' };

/**
 * Options with the defaults of `env` in place of those that are left out.
 *
 * @param {Record<string, unknown>} options
 * @param {import('./options.js').Options} known the names of the options that the call takes
 */
export function withDefaults(options, known) {
  check(env, ENV);
  oneOf('env.logLevel', env.logLevel, LOG_LEVELS);
  const all = { ...options };
  for (const [name, value] of Object.entries(env)) {
    // A cache that is turned off is no default for calls that are about one.
    if (known[name]?.includes(typeof value)) all[name] ??= value;
  }
  return all;
}

/** How talkative the console is to be, from 0. */
export function logLevel() {
  return LOG_LEVELS.indexOf(env.logLevel ?? 'warn');
}

/**
 * Writes to the console, where the level allows it.
 *
 * @param {'error' | 'warn' | 'info' | 'debug'} level
 * @param {string} message
 */
export function log(level, message) {
  if (LOG_LEVELS.indexOf(level) <= logLevel()) console[level](`instruct-pix2pix-web: ${message}`);
}
