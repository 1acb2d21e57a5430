//! When to ask again.

use std::time::Duration;

use crate::error::Error;

/// How often a request is made before its error is final.
pub const MAX_ATTEMPTS: u32 = 5;

/// How long to wait before attempt `attempt + 1` (attempts count from 1), or `None` when `error` is
/// final. Doubles from half a second.
pub fn retry_delay(error: &Error, attempt: u32) -> Option<Duration> {
    if attempt >= MAX_ATTEMPTS || !error.is_retryable() {
        return None;
    }
    Some(Duration::from_millis(500 << (attempt - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_errors_are_retried_a_few_times() {
        let status = |status| Error::HttpStatus { url: "u".into(), status };
        assert_eq!(retry_delay(&status(503), 1), Some(Duration::from_millis(500)));
        assert_eq!(retry_delay(&status(503), 4), Some(Duration::from_secs(4)));
        assert_eq!(retry_delay(&status(503), 5), None);
        assert_eq!(retry_delay(&status(403), 1), None);
        assert_eq!(retry_delay(&Error::NotFound { url: "u".into() }, 1), None);
    }
}
