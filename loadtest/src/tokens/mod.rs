//! Access tokens of the connections: a fixed one, or some that are made or fetched, and renewed in time.
//!
//! Connection `n` has token `n` modulo their number. Renewal happens on a thread of its own, because
//! signing takes milliseconds and fetching takes longer; the event loop only sees that a newer issue is there.

pub mod endpoint;
pub mod mint;
pub mod rate;

use crate::redaction::redacted;
use endpoint::{Endpoint, EndpointError};
use mint::{Mint, MintError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thiserror::Error;

/// A token is renewed when this share of its life is over.
const RENEWED_AT: f64 = 2.0 / 3.0;
/// Renewing all connections is spread over this share of a token's life, and over no more than this.
const SPREAD_SHARE: f64 = 1.0 / 12.0;
const SPREAD_MAX: Duration = Duration::from_secs(10);
/// After a failed renewal.
const RETRY: Duration = Duration::from_secs(5);
/// Renewals are never closer than this, whatever the tokens say.
const RENEWAL_MIN: Duration = Duration::from_millis(250);

#[derive(Debug, Error)]
pub enum TokenError {
    #[error(transparent)]
    Mint(#[from] MintError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

/// Where tokens come from.
#[derive(Debug)]
pub enum Source {
    Mint(Mint),
    Endpoint(Endpoint),
}

/// A token, how long it lives from now on, and what its successor may be had for.
#[derive(Clone)]
pub struct Issued {
    pub token: Arc<str>,
    pub life: Duration,
    pub refresh_token: Option<String>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Source {
    fn issue(&self, count: usize, former: &[Issued]) -> Result<Vec<Issued>, TokenError> {
        (0..count)
            .map(|place| match self {
                Self::Mint(mint) => Ok(mint.issue()?),
                Self::Endpoint(endpoint) => {
                    let refresh_token = former.get(place).and_then(|former| former.refresh_token.as_deref());
                    Ok(endpoint.issue(refresh_token)?)
                }
            })
            .collect()
    }
}

/// What was done to have tokens, and with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCounts {
    /// Made or fetched, the first ones included.
    pub issued: u64,
    /// Times that all of them were replaced by newer ones.
    pub renewals: u64,
    /// Renewals that failed; they were tried again.
    pub renewals_failed: u64,
    /// Newer tokens handed over on living connections.
    pub handed_over_in_band: u64,
    /// How many of those the server said yes to, if it says anything.
    pub accepted_in_band: u64,
}

impl AddAssign for TokenCounts {
    fn add_assign(&mut self, other: Self) {
        let Self { issued, renewals, renewals_failed, handed_over_in_band, accepted_in_band } = other;
        self.issued += issued;
        self.renewals += renewals;
        self.renewals_failed += renewals_failed;
        self.handed_over_in_band += handed_over_in_band;
        self.accepted_in_band += accepted_in_band;
    }
}

#[derive(Debug)]
struct Shared {
    is_renewed: bool,
    issued: AtomicU64,
    renewals_failed: AtomicU64,
    handed_over: AtomicU64,
    accepted: AtomicU64,
    generation: AtomicU64,
    current: Mutex<Vec<Issued>>,
}

impl Shared {
    fn current(&self) -> MutexGuard<'_, Vec<Issued>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tokens at hand; copies share them.
#[derive(Debug, Clone)]
pub struct Tokens {
    shared: Arc<Shared>,
}

impl Tokens {
    /// One token, or none, for ever.
    pub fn fixed(token: Option<&str>) -> Self {
        let forever = |token: &str| Issued { token: token.into(), life: Duration::MAX, refresh_token: None };
        Self::holding(token.map(forever).into_iter().collect(), false)
    }

    /// `count` different tokens, renewed as long as a copy of this lives.
    pub fn renewed(source: Source, count: usize) -> Result<Self, TokenError> {
        let tokens = Self::holding(source.issue(count.max(1), &[])?, true);
        let mut wait = renewal_wait(&tokens.shared.current());
        let shared = Arc::downgrade(&tokens.shared);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(wait);
                let Some(shared) = shared.upgrade() else { return };
                let former = shared.current().clone();
                match source.issue(former.len(), &former) {
                    Ok(issued) => {
                        wait = renewal_wait(&issued);
                        shared.issued.fetch_add(issued.len() as u64, Ordering::Relaxed);
                        *shared.current() = issued;
                        shared.generation.fetch_add(1, Ordering::Release);
                    }
                    Err(error) => {
                        shared.renewals_failed.fetch_add(1, Ordering::Relaxed);
                        let reason = error.to_string();
                        eprintln!(
                            "wiresocket-loadtest: the tokens were not renewed: {}; trying again",
                            redacted(&reason)
                        );
                        wait = RETRY;
                    }
                }
            }
        });
        Ok(tokens)
    }

    fn holding(issued: Vec<Issued>, is_renewed: bool) -> Self {
        Self {
            shared: Arc::new(Shared {
                is_renewed,
                issued: AtomicU64::new(issued.len() as u64),
                renewals_failed: AtomicU64::new(0),
                handed_over: AtomicU64::new(0),
                accepted: AtomicU64::new(0),
                generation: AtomicU64::new(0),
                current: Mutex::new(issued),
            }),
        }
    }

    /// A newer token went to a living connection.
    pub fn note_handed_over(&self) {
        self.shared.handed_over.fetch_add(1, Ordering::Relaxed);
    }

    /// The server took it.
    pub fn note_accepted(&self) {
        self.shared.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// So far; `None` of a token that was given and stays as it is.
    pub fn counts(&self) -> Option<TokenCounts> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        shared.is_renewed.then(|| TokenCounts {
            issued: count(&shared.issued),
            renewals: count(&shared.generation),
            renewals_failed: count(&shared.renewals_failed),
            handed_over_in_band: count(&shared.handed_over),
            accepted_in_band: count(&shared.accepted),
        })
    }

    /// The token of a connection, if there are any.
    pub fn of(&self, connection: u32) -> Option<Arc<str>> {
        let current = self.shared.current();
        let place = (connection as usize).checked_rem(current.len())?;
        Some(current[place].token.clone())
    }

    /// Rises with every renewal.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// How long handing new tokens to all connections should take.
    pub fn spread(&self) -> Duration {
        shortest_life(&self.shared.current()).mul_f64(SPREAD_SHARE).min(SPREAD_MAX)
    }
}

fn shortest_life(issued: &[Issued]) -> Duration {
    const DAY: Duration = Duration::from_secs(86_400);
    issued.iter().map(|issued| issued.life).min().unwrap_or(DAY).min(DAY)
}

fn renewal_wait(issued: &[Issued]) -> Duration {
    shortest_life(issued).mul_f64(RENEWED_AT).max(RENEWAL_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_turns_with_the_tokens() {
        assert_eq!(Tokens::fixed(None).of(7), None);
        assert_eq!(Tokens::fixed(Some("T")).of(7).as_deref(), Some("T"));
        let issued = |token: &str| Issued { token: token.into(), life: RETRY, refresh_token: None };
        let tokens = Tokens::holding(vec![issued("a"), issued("b")], true);
        let names: Vec<_> = (0..4).flat_map(|connection| tokens.of(connection)).collect();
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b", "a", "b"]);
        assert!(tokens.spread() < RETRY / 10);
        assert_eq!(Tokens::fixed(Some("T")).counts(), None);
        tokens.note_handed_over();
        let mut counts = tokens.counts().expect("they can be renewed");
        counts += counts;
        assert_eq!((counts.issued, counts.handed_over_in_band, counts.accepted_in_band), (4, 2, 0));
    }
}
