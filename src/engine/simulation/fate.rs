//! What befalls the node in a run: tokens of all kinds, keys that come and go, and everything that goes wrong with it, its
//! disk, its clock and its control shard.

use std::sync::Arc;

use serde_json::json;

use super::crash::Crash;
use super::schedule::Schedule;
use super::world::{OTHER_TENANT, TENANT, UNIX_S, app, keys, token_of_with};

impl Schedule {
    /// One of a few tokens, so that most are in the verifiers' caches.
    pub(super) fn token(&mut self, app_of: u128) -> String {
        let mut key = self.world.random.pick(&self.keys).clone();
        if !self.past_keys.is_empty() && self.world.random.one_in(16) {
            key = self.world.random.pick(&self.past_keys).clone();
        }
        let elapsed_s = self.world.now.unix_s.saturating_sub(UNIX_S);
        let lives_s = (elapsed_s / 100 + 1) * 100 + [0, 100, 86_400][self.random(3)];
        let kind = self.world.random.below(24) as u8;
        let kind = if kind < 5 { kind } else { 0 };
        let signed_with = (key, app_of, lives_s, kind);
        if let Some(token) = self.tokens.get(&signed_with) {
            return token.clone();
        }
        let more = match kind {
            1 | 2 => json!({ "scope": "WireSocket.API WireSocket.ReadOnly" }),
            3 => json!({ "documents": ["a", "b"] }),
            4 => json!({ "scope": "WireSocket.API WireSocket.ReadOnly", "documents": ["a*"] }),
            _ => json!({}),
        };
        let token = token_of_with(&signed_with.0, app(app_of), self.limits, lives_s, &more);
        if matches!(kind, 1 | 2 | 4) {
            self.read_only.insert(token.clone());
        }
        if kind > 2 {
            self.narrow.insert(token.clone());
        }
        self.tokens.insert(signed_with, token.clone());
        token
    }

    /// What may go wrong with the node, its disk, its clock and its control shard.
    pub(super) fn fault(&mut self) {
        match self.world.random.below(8) {
            0 | 1 => self.crash(),
            2 | 3 if self.world.journal.is_some() => self.world.fail_disk(),
            4 if self.world.journal.is_some() => {
                self.world.holds_commits = true;
                self.world.count("slow disk");
            }
            5 => {
                self.world.mute = true;
                (self.was_mute, self.unanswered) = (true, true);
                self.world.count("mute control shard");
            }
            6 => {
                let by_s = self.world.random.below(4000) as i64;
                let by_s = if self.world.random.one_in(2) { -by_s / 10 } else { by_s };
                self.world.set_wall_clock(by_s);
                self.clock_set_at = self.world.now.monotonic;
            }
            _ => {
                (self.world.mute, self.world.holds_commits) = (false, false);
            }
        }
    }

    pub fn crash(&mut self) {
        let shards = 1 + self.random(4) as u16;
        let cut = self.world.level.syncs && self.world.random.one_in(2);
        self.world.crash(if cut { Crash::PowerCut } else { Crash::Kill }, shards);
        self.half_open.clear();
        (self.was_mute, self.unanswered) = (false, false);
        for _ in 0..self.random(6) {
            self.come_back();
        }
        self.note_clients();
    }

    /// Keys come and go, and some are taken back.
    pub(super) fn turn_keys(&mut self) {
        match self.world.random.below(4) {
            0 | 1 => {
                let id = format!("k{}", 1 + self.keys.len() + self.past_keys.len());
                self.keys.push(id);
                self.replace_keys();
                self.world.count("key rotation");
            }
            2 if self.keys.len() > 1 => {
                let id = self.keys.remove(0);
                self.past_keys.push(id);
                self.replace_keys();
            }
            3 if self.keys.len() > 1 => {
                let at = self.random(self.keys.len());
                let id = self.keys.remove(at);
                self.world.revoke(&id);
                self.past_keys.push(id);
                self.world.count("key revocation");
            }
            _ => {}
        }
    }

    /// The shards are told, or find out when they meet a key they don't know.
    fn replace_keys(&mut self) {
        let ids: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        let signing = keys(&ids);
        for tenant in [TENANT, OTHER_TENANT] {
            let newest = self.world.newest_keys.with_tenant(tenant, signing.keys(tenant).to_vec());
            self.world.newest_keys = Arc::new(newest);
        }
        if self.world.random.one_in(2) {
            let newest = Arc::clone(&self.world.newest_keys);
            self.world.set_keys(newest);
        }
    }
}
