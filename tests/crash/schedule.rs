//! What a seed decides.

use std::time::{Duration, SystemTime};

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Schedule(u64);

impl Schedule {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    pub fn micros(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.between(from, to))
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Another one, which is as random and independent of how this one goes on.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

/// `CRASH_SEED`, or another one each time.
pub fn seed() -> u64 {
    let now =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("past 1970").as_micros() as u64;
    number("CRASH_SEED").unwrap_or_else(|| now() % 1_000_000_000)
}

/// How often, as a variable says.
pub fn count(variable: &str, slice: u64) -> u64 {
    number(variable).unwrap_or(slice)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}
