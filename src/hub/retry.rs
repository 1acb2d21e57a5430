//! When to ask again.

use std::time::Duration;

use crate::error::Error;

/// How often a request is made in vain before its error is final.
pub const MAX_ATTEMPTS: u32 = 5;

/// The longest `Retry-After` that is heeded, seconds.
const MAX_RETRY_AFTER: f64 = 600.0;

/// How long to wait before attempt `attempt + 1` (attempts count from 1), or `None` when `error` is
/// final. Doubles from half a second; `jitter`, from 0 to 1, shortens it by up to a half, so that
/// many pages which failed together do not come back together. A server's `Retry-After` is heeded.
pub fn retry_delay(error: &Error, attempt: u32, jitter: f64) -> Option<Duration> {
    let transient = match error {
        Error::Network { .. } | Error::InvalidResponse { .. } => true,
        Error::HttpStatus { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
        _ => false,
    };
    if attempt >= MAX_ATTEMPTS || !transient {
        return None;
    }
    let own = 0.5 * f64::from(1 << (attempt - 1)) * (1.0 - 0.5 * jitter);
    let asked = match error {
        Error::HttpStatus { retry_after: Some(seconds), .. } if seconds.is_finite() => {
            seconds.clamp(0.0, MAX_RETRY_AFTER)
        }
        _ => 0.0,
    };
    Some(Duration::from_secs_f64(own.max(asked)))
}

/// A random number from 0 to 1; 0 where the platform has none.
pub(super) fn jitter() -> f64 {
    getrandom::u32().map_or(0.0, |bits| f64::from(bits) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, retry_after: Option<f64>) -> Error {
        Error::HttpStatus { url: "u".into(), status, retry_after }
    }

    #[test]
    fn transient_errors_are_retried_a_few_times() {
        let delay = |attempt, jitter| retry_delay(&status(503, None), attempt, jitter);
        assert_eq!(delay(1, 0.0), Some(Duration::from_millis(500)));
        assert_eq!(delay(1, 1.0), Some(Duration::from_millis(250)));
        assert_eq!(delay(4, 0.0), Some(Duration::from_secs(4)));
        assert_eq!(delay(5, 0.0), None);
        assert_eq!(retry_delay(&status(403, None), 1, 0.0), None);
        assert_eq!(retry_delay(&Error::NotFound { url: "u".into() }, 1, 0.0), None);
    }

    #[test]
    fn what_the_server_asks_for_is_heeded() {
        let delay = |seconds| retry_delay(&status(429, Some(seconds)), 1, 0.0);
        assert_eq!(delay(7.0), Some(Duration::from_secs(7)));
        assert_eq!(delay(0.0), Some(Duration::from_millis(500)));
        assert_eq!(delay(-1.0), Some(Duration::from_millis(500)));
        assert_eq!(delay(600.0), Some(Duration::from_secs(600)));
        assert_eq!(delay(1e9), Some(Duration::from_secs(600)));
        assert_eq!(delay(f64::NAN), Some(Duration::from_millis(500)));
    }
}
