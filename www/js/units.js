/** Numbers as people read them. */

/** @param {number} count */
export function bytes(count) {
  if (count < 1e3) return `${count} bytes`;
  if (count < 1e6) return `${Math.round(count / 1e3)} kB`;
  return count < 1e9 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e9).toFixed(2)} GB`;
}

/** @param {number} milliseconds */
export function duration(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}

/**
 * How fast a download is, behind what has come of it.
 *
 * @param {{ loaded: number, cached: number, bytesPerSecond?: number, secondsLeft?: number }} event
 */
export function speed({ loaded, cached, bytesPerSecond, secondsLeft }) {
  if (cached === loaded) return ', from this browser’s cache';
  if (!bytesPerSecond) return '';
  const left = secondsLeft === undefined ? '' : `, about ${duration(secondsLeft * 1000)} left`;
  return `, ${bytes(bytesPerSecond)} a second${left}`;
}

/** How long ago, in days at most. */
export function ago(time, now = Date.now()) {
  const minutes = Math.round((now - time) / 60e3);
  if (minutes < 2) return 'just now';
  if (minutes < 120) return `${minutes} minutes ago`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} hours ago` : `${Math.round(hours / 24)} days ago`;
}
