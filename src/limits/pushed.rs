//! Limits that an app got after its tokens were issued: they hold in place of the tokens' until no such token is left.
//!
//! Not here: users per document, which the document's shard counts by the token alone.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::auth::Limits;
use crate::protocol::document::AppId;

/// The newer limits, by app.
#[derive(Debug, Default)]
pub struct PushedLimits {
    /// With the monotonic time at which tokens bear them.
    apps: BTreeMap<AppId, (Limits, Duration)>,
}

impl PushedLimits {
    /// From now on these hold for the app, until `until`.
    pub fn set(&mut self, app: AppId, limits: Limits, until: Duration) {
        self.apps.insert(app, (limits, until));
    }

    /// The limits that hold for a session whose token bears `token`.
    #[must_use]
    pub fn over(&self, now: Duration, app: AppId, token: Limits) -> Limits {
        match self.apps.get(&app) {
            Some((pushed, until)) if now < *until => {
                Limits { users_per_document_max: token.users_per_document_max, ..*pushed }
            }
            _ => token,
        }
    }

    /// The ops per minute that hold where the token's are `token`.
    #[must_use]
    pub fn ops_over(&self, now: Duration, app: AppId, token: u32) -> u32 {
        match self.apps.get(&app) {
            Some((pushed, until)) if now < *until => pushed.ops_per_minute,
            _ => token,
        }
    }

    /// Forgets what tokens bear by now.
    pub fn forget_ended(&mut self, now: Duration) {
        self.apps.retain(|_, (_, until)| now < *until);
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
        pushed.set(app(1), limits(5), 10 * S);
        let held = Limits { users_per_document_max: 2, ..limits(5) };
        assert_eq!(pushed.over(9 * S, app(1), limits(2)), held);
        assert_eq!(pushed.over(9 * S, app(2), limits(2)), limits(2));
        assert_eq!((pushed.ops_over(9 * S, app(1), 2), pushed.ops_over(10 * S, app(1), 2)), (5, 2));
        assert_eq!(pushed.over(10 * S, app(1), limits(2)), limits(2));
        pushed.set(app(1), limits(3), 20 * S);
        pushed.forget_ended(11 * S);
        assert_eq!(pushed.over(11 * S, app(1), limits(2)).connections_max, 3);
        pushed.forget_ended(20 * S);
        assert!(pushed.apps.is_empty());
    }
}
