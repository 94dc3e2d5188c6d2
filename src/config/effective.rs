//! The configuration in effect, printed as a file that would give it again.

use std::fmt::Write;

use super::NodeConfig;
use super::problem::Place;
use super::schema::{SECTIONS, keys_of};

/// Every key with its value, and a comment where that is the default or comes from the environment. Values from the
/// file stand without a comment.
#[must_use]
pub fn effective_toml(config: &NodeConfig) -> String {
    let mut out = String::new();
    for (index, section) in SECTIONS.iter().enumerate() {
        let gap = if index == 0 { "" } else { "\n" };
        let _ = writeln!(out, "{gap}[{section}]");
        for key in keys_of(section) {
            let name = key.name.name;
            let origin = match config.origins.get(&key.name) {
                None => " # default".to_owned(),
                Some(Place::Environment { variable }) => format!(" # from {variable}"),
                Some(_) => String::new(),
            };
            let _ = match key.write(config) {
                Some(value) => writeln!(out, "{name} = {value}{origin}"),
                None => writeln!(out, "# {name} is not set{}", origin.replace(" #", ":")),
            };
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{parse, schema};

    #[test]
    fn what_is_printed_gives_the_same_configuration_again() {
        let text = "[auth]\nissuer = \"https://a.example/\"\njwks_url = \"https://a.example/{tenantId}\"\n\
                    [node]\ncpus = [3, \"5-7\"]\n[limits]\nhandshake_timeout_s = 2.5\noutbox_bytes_max = 99999\n\
                    [http]\nusage_per_minute = 0\nexempt_networks = [\"10.0.0.0/8\", \"::1\"]\n";
        let environment = [("WIRESOCKET_NODE__NAME".to_owned(), "n-1".to_owned())];
        let config = parse(text, "f", environment).unwrap();
        let printed = effective_toml(&config);
        let again = parse(&printed, "printed", []).unwrap();
        for key in schema::keys() {
            assert_eq!(key.write(&config), key.write(&again), "{}", key.name);
        }
        for line in [
            "cpus = [3, \"5-7\"]",
            "handshake_timeout_s = 2.5",
            "outbox_bytes_max = \"99999 B\"",
            "usage_per_minute = 0",
            "exempt_networks = [\"10.0.0.0/8\", \"::1/128\"]",
            "name = \"n-1\" # from WIRESOCKET_NODE__NAME",
            "listen = \"0.0.0.0:8080\" # default",
            "# control_cpu is not set: default",
            "message_bytes_max = \"16 MiB\" # default",
        ] {
            assert!(printed.lines().any(|printed| printed == line), "{line} not in:\n{printed}");
        }
    }
}
