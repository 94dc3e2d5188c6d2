//! What a changed file means for a node that runs.

use super::NodeConfig;
use super::schema::{self, Applies, KeyName};

/// The outcome of a reload.
#[derive(Debug, Clone)]
pub struct Reload {
    /// What the node runs with from now on: the new values, and the old ones of keys that need a restart.
    pub config: NodeConfig,
    /// Keys whose new values take effect.
    pub changed: Vec<KeyName>,
    /// Keys whose new values wait for a restart.
    pub needs_restart: Vec<KeyName>,
}

/// Compares the configuration that runs with the one just read.
#[must_use]
pub fn reload(old: &NodeConfig, new: NodeConfig) -> Reload {
    let mut reload = Reload { config: new, changed: Vec::new(), needs_restart: Vec::new() };
    for key in schema::keys().iter().filter(|key| key.write(old) != key.write(&reload.config)) {
        match key.applies {
            Applies::Live => reload.changed.push(key.name),
            Applies::Restart => reload.needs_restart.push(key.name),
        }
    }
    for key in schema::keys().iter().filter(|key| reload.needs_restart.contains(&key.name)) {
        key.copy(old, &mut reload.config);
        match old.origins.get(&key.name) {
            Some(origin) => reload.config.origins.insert(key.name, origin.clone()),
            None => reload.config.origins.remove(&key.name),
        };
    }
    reload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn config(text: &str) -> NodeConfig {
        let text = format!("{text}\n[auth]\nissuer = \"https://a\"\nkey_dir = \"k\"\n");
        parse(&text, "f", []).unwrap()
    }

    fn names(keys: &[KeyName]) -> Vec<String> {
        keys.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn live_keys_change_and_fixed_keys_keep_running_values() {
        let old = config("[node]\nlisten = \"127.0.0.1:1\"\n");
        let new = config("[node]\nlisten = \"127.0.0.1:2\"\ncpus = [1]\n[log]\nlevel = \"debug\"\n");
        let reload = reload(&old, new);
        assert_eq!(names(&reload.changed), ["log.level"]);
        assert_eq!(names(&reload.needs_restart), ["node.listen", "node.cpus"]);
        assert_eq!(reload.config.node.listen, old.node.listen);
        assert_eq!(reload.config.node.cpus, old.node.cpus);
        assert_eq!(reload.config.log.level, crate::config::LogLevel::Debug);
    }

    #[test]
    fn the_same_value_in_other_words_is_no_change() {
        let reload = reload(
            &config("[limits]\nmessage_bytes_max = 1048576\n"),
            config("[limits]\nmessage_bytes_max = \"1 MiB\"\n[drain]\nspread_s = 10.0\n"),
        );
        assert!(reload.changed.is_empty() && reload.needs_restart.is_empty(), "{reload:?}");
    }

    #[test]
    fn a_restart_that_is_due_stays_due_on_the_next_reload() {
        let old = config("");
        let new = || config("[node]\nshards = 7\n");
        let first = reload(&old, new());
        assert_eq!(names(&reload(&first.config, new()).needs_restart), ["node.shards"]);
    }
}
