//! How fast bytes arrive.

use std::collections::VecDeque;
use std::time::Duration;

use web_time::Instant;

/// The time over which speed is taken.
const WINDOW: Duration = Duration::from_secs(5);

/// Before this much time has passed there is no speed: the first bytes come in bursts.
const WARM_UP: Duration = Duration::from_millis(500);

/// Bytes in a second over the last few seconds.
pub struct Speed {
    samples: VecDeque<(Instant, u64)>,
}

impl Speed {
    /// Starts with `bytes` that have arrived already.
    pub fn new(now: Instant, bytes: u64) -> Self {
        Self { samples: VecDeque::from([(now, bytes)]) }
    }

    /// The speed, now that `bytes` have arrived in all; 0 where that cannot be told yet.
    pub fn update(&mut self, now: Instant, bytes: u64) -> f64 {
        self.samples.push_back((now, bytes));
        // One older than the window stays, so that the window is full.
        while self.samples.len() > 2 && now - self.samples[1].0 >= WINDOW {
            self.samples.pop_front();
        }
        let (start, before) = self.samples[0];
        let time = now - start;
        if time < WARM_UP { 0.0 } else { (bytes - before) as f64 / time.as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut speed = Speed::new(start, 100);
        let mut at =
            |milliseconds, bytes| speed.update(start + Duration::from_millis(milliseconds), bytes);
        assert_eq!(at(100, 1100), 0.0);
        assert_eq!(at(1000, 2100), 2000.0);
        for second in 2..=20 {
            at(second * 1000, 2100);
        }
        assert_eq!(at(21_000, 2100), 0.0);
        assert_eq!(at(25_000, 52_100), 10_000.0);
    }
}
