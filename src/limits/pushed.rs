//! Limits that an app got after its tokens were issued: they hold in place of the tokens' until no such token is left.
//!
//! Of what was pushed and what a token says, the newer wins, by the clock of whoever issues both: a token that was issued
//! after the push bears these limits or newer ones (the push of which may be late, or lost), so it wins, and from then on
//! its limits are the app's. One that was issued before, or does not say when, does not. All of it concerns decisions that
//! are still to come: nobody who is in is asked to leave.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::auth::Limits;
use crate::protocol::document::AppId;

/// The newer limits, by app.
#[derive(Debug, Default)]
pub struct PushedLimits {
    apps: BTreeMap<AppId, Newest>,
}

/// The newest limits that are known of an app.
#[derive(Debug)]
struct Newest {
    limits: Limits,
    /// Tokens whose `iat` is later bear them, or newer ones.
    issued_until_unix_s: u64,
    /// The monotonic time at which all tokens do.
    holds_until: Duration,
}

impl PushedLimits {
    /// From now on these hold for the app in place of those in tokens that were issued up to `issued_until_unix_s`, until
    /// no such token is left.
    pub fn set(&mut self, app: AppId, limits: Limits, issued_until_unix_s: u64, holds_until: Duration) {
        self.apps.insert(app, Newest { limits, issued_until_unix_s, holds_until });
    }

    /// The limits that hold for a session whose token bears `token` and was issued at `issued_unix_s`.
    #[must_use]
    pub fn over(&mut self, now: Duration, app: AppId, token: Limits, issued_unix_s: u64) -> Limits {
        match self.apps.get_mut(&app) {
            Some(newest) if now < newest.holds_until => {
                if issued_unix_s > newest.issued_until_unix_s {
                    (newest.limits, newest.issued_until_unix_s) = (token, issued_unix_s);
                }
                newest.limits
            }
            _ => token,
        }
    }

    /// The ops per minute that hold where the token's are `token`.
    #[must_use]
    pub fn ops_over(&self, now: Duration, app: AppId, token: u32) -> u32 {
        match self.apps.get(&app) {
            Some(newest) if now < newest.holds_until => newest.limits.ops_per_minute,
            _ => token,
        }
    }

    /// Forgets what tokens bear by now.
    pub fn forget_ended(&mut self, now: Duration) {
        self.apps.retain(|_, newest| now < newest.holds_until);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn limits(n: u32) -> Limits {
        Limits { connections_max: n, documents_max: n, users_per_document_max: n, ops_per_minute: n }
    }

    #[test]
    fn newer_limits_hold_for_their_app_until_tokens_bear_them() {
        let app = |n| AppId { tenant: Uuid::nil(), app: Uuid::from_u128(n) };
        let mut pushed = PushedLimits::default();
        pushed.set(app(1), limits(5), 100, 10 * S);
        assert_eq!(pushed.over(9 * S, app(1), limits(2), 100), limits(5));
        assert_eq!(pushed.over(9 * S, app(2), limits(2), 100), limits(2));
        assert_eq!((pushed.ops_over(9 * S, app(1), 2), pushed.ops_over(10 * S, app(1), 2)), (5, 2));
        assert_eq!(pushed.over(10 * S, app(1), limits(2), 100), limits(2));
        pushed.set(app(1), limits(3), 100, 20 * S);
        pushed.forget_ended(11 * S);
        assert_eq!(
            pushed.over(11 * S, app(1), limits(2), 0),
            limits(3),
            "a token that does not say when is old"
        );
        pushed.forget_ended(20 * S);
        assert!(pushed.apps.is_empty());
    }

    #[test]
    fn a_token_that_was_issued_later_wins_for_the_whole_app() {
        let app = AppId { tenant: Uuid::nil(), app: Uuid::nil() };
        let mut pushed = PushedLimits::default();
        pushed.set(app, limits(5), 100, 10 * S);
        assert_eq!(pushed.over(S, app, limits(7), 101), limits(7), "its own push is late, or lost");
        assert_eq!((pushed.over(S, app, limits(2), 90), pushed.ops_over(S, app, 2)), (limits(7), 7));
        assert_eq!(pushed.over(S, app, limits(5), 101), limits(7), "not newer than what is known");
        pushed.set(app, limits(8), 105, 20 * S);
        assert_eq!(pushed.over(S, app, limits(7), 101), limits(8));
    }
}
