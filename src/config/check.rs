//! What keys need of one another, and what must not be missing.

use std::collections::BTreeSet;

use super::problem::{Place, Problem};
use super::schema::{self, Key, KeyName};
use super::{NodeConfig, ProxyProtocol};

/// A condition on several keys.
struct Rule {
    /// Section and name of each key involved; the first that was set is blamed.
    keys: &'static [(&'static str, &'static str)],
    holds: fn(&NodeConfig) -> bool,
    /// Completes the sentence that begins with the keys and their values.
    demand: &'static str,
}

const RULES: [Rule; 20] = [
    Rule {
        keys: &[("sessions", "idle_timeout_s"), ("sessions", "ping_interval_s")],
        holds: |c| c.shard.engine.idle_timeout > c.shard.engine.ping_interval,
        demand: "the idle timeout must be longer than the ping interval, or silent clients are closed unasked",
    },
    Rule {
        keys: &[("sessions", "keep_alive_interval_s")],
        holds: |c| c.shard.engine.keep_alive_interval.as_secs_f64() < 30.0,
        demand: "it must be below 30 seconds: y-websocket leaves a connection that brings no data for that long",
    },
    Rule {
        keys: &[("sessions", "awareness_timeout_s")],
        holds: |c| c.shard.engine.awareness_timeout.as_secs_f64() > 15.0,
        demand: "it must be above 15 seconds, which is how often clients renew their awareness",
    },
    Rule {
        keys: &[("overload", "accept_below_percent"), ("overload", "shed_above_percent")],
        holds: |c| c.overload.accept_below_percent < c.overload.shed_above_percent,
        demand: "accepting must begin below where shedding begins, or the node flickers between the two",
    },
    Rule {
        keys: &[("auth", "token_bytes_max"), ("limits", "request_head_bytes_max")],
        holds: |c| c.shard.token_bytes_max <= c.shard.request_head_bytes_max,
        demand: "a request head must have room for the largest token",
    },
    Rule {
        keys: &[("auth", "token_bytes_max"), ("limits", "unauthenticated_bytes_max")],
        holds: |c| c.shard.token_bytes_max <= c.shard.engine.unauthenticated_bytes_max,
        demand: "what a client may send before it is authenticated must have room for the largest token",
    },
    Rule {
        keys: &[("limits", "message_bytes_max"), ("limits", "document_bytes_max")],
        holds: |c| c.shard.engine.message_bytes_max <= c.shard.engine.document_bytes_max,
        demand: "a message larger than any document could only be refused",
    },
    Rule {
        keys: &[("limits", "message_bytes_max"), ("auth", "token_bytes_max")],
        holds: |c| c.shard.token_bytes_max <= c.shard.engine.message_bytes_max,
        demand: "a message must have room for the largest token",
    },
    Rule {
        keys: &[("limits", "parked_bytes_max"), ("limits", "document_bytes_max")],
        holds: |c| c.shard.engine.parked_bytes_max <= c.shard.engine.document_bytes_max,
        demand: "more must not be parked for a document than it may hold",
    },
    Rule {
        keys: &[("limits", "awareness_bytes_max"), ("limits", "message_bytes_max")],
        holds: |c| c.shard.engine.awareness_bytes_max <= c.shard.engine.message_bytes_max,
        demand: "an awareness state must fit into a message",
    },
    Rule {
        keys: &[("auth", "jwks_poll_s"), ("auth", "key_set_stale_after_s")],
        holds: |c| c.keys.jwks_poll < c.keys.key_set_stale_after,
        demand: "keys must be polled more often than they go stale",
    },
    Rule {
        keys: &[("auth", "tenants"), ("auth", "jwks_url")],
        holds: |c| c.keys.tenants.is_empty() || c.keys.jwks_url.is_some(),
        demand: "tenants are preloaded from auth.jwks_url, which is not set",
    },
    Rule {
        keys: &[("dashboard", "url"), ("auth", "jwks_url")],
        holds: |c| c.dashboard.url.is_none() || c.keys.jwks_url.is_some(),
        demand: "auth.jwks_url must be set too: keys are polled there while the dashboard's key feed is lost",
    },
    Rule {
        keys: &[("node", "shards"), ("node", "cpus")],
        holds: |c| {
            c.node.cpus.is_empty()
                || c.node.shards.is_none_or(|n| usize::from(n) <= c.node.cpus.as_slice().len())
        },
        demand: "there must be a core for each shard; list more cores or leave shards at 0",
    },
    Rule {
        keys: &[("node", "control_cpu"), ("node", "cpus")],
        holds: |c| {
            let cpus = c.node.cpus.as_slice();
            cpus.len() < 3 || c.node.control_cpu.is_none_or(|core| !cpus.contains(&core))
        },
        demand: "with three cores or more, the control shard must not share one with a shard",
    },
    Rule {
        keys: &[("limits", "handshake_timeout_s"), ("sessions", "idle_timeout_s")],
        holds: |c| c.shard.handshake_timeout <= c.shard.engine.idle_timeout,
        demand: "a handshake must not take longer than a session may be silent",
    },
    Rule {
        keys: &[("limits", "authentication_timeout_s"), ("sessions", "idle_timeout_s")],
        holds: |c| c.shard.engine.authentication_timeout <= c.shard.engine.idle_timeout,
        demand: "authenticating must not take longer than a session may be silent",
    },
    Rule {
        keys: &[("tls", "certificate"), ("tls", "private_key")],
        holds: |c| c.tls.certificate.is_some() == c.tls.private_key.is_some(),
        demand: "a certificate is of no use without its private key, nor a key without its certificate: set both",
    },
    Rule {
        keys: &[("node", "plaintext_listen"), ("tls", "certificate")],
        holds: |c| c.node.plaintext_listen.is_none() || c.tls.certificate.is_some(),
        demand: "node.listen is plain HTTP already without [tls]: set that, or leave plaintext_listen out",
    },
    Rule {
        keys: &[("node", "proxy_protocol"), ("node", "plaintext_listen")],
        holds: |c| {
            c.shard.proxy_protocol != ProxyProtocol::PlaintextListen || c.node.plaintext_listen.is_some()
        },
        demand: "there is no node.plaintext_listen on which PROXY headers could come",
    },
];

/// Every rule that is broken by keys that could be read, and every required key that is missing.
pub(super) fn problems(config: &NodeConfig, failed: &BTreeSet<KeyName>, file: &str) -> Vec<Problem> {
    let mut problems = missing(config, failed, file);
    for rule in &RULES {
        let keys: Vec<&Key> =
            rule.keys.iter().filter_map(|(section, name)| schema::key(section, name)).collect();
        if keys.iter().any(|key| failed.contains(&key.name)) || (rule.holds)(config) {
            continue;
        }
        let values: Vec<_> = keys
            .iter()
            .filter_map(|key| key.write(config).map(|value| format!("{} = {value}", key.name)))
            .collect();
        let set = keys.iter().find_map(|key| config.origins.get(&key.name));
        let place = set.cloned().unwrap_or_else(|| Place::Whole { file: file.to_owned() });
        problems.push(Problem { place, message: format!("{}: {}", values.join(", "), rule.demand) });
    }
    problems
}

fn missing(config: &NodeConfig, failed: &BTreeSet<KeyName>, file: &str) -> Vec<Problem> {
    let refused =
        |names: &[&'static str]| names.iter().any(|name| failed.contains(&KeyName { section: "auth", name }));
    let mut messages = Vec::new();
    if config.shard.issuer.is_unset() && !refused(&["issuer"]) {
        messages.push(
            "auth.issuer is not set: name who signs the tokens, exactly as in their `iss` claim, such as \
             issuer = \"https://auth.example.com\" under [auth], or in WIRESOCKET_AUTH__ISSUER",
        );
    }
    let has_source = config.keys.key_dir.is_some() || config.keys.jwks_url.is_some();
    if !has_source && !refused(&["key_dir", "jwks_url"]) {
        messages.push(
            "there is no source of keys to verify tokens with: under [auth], set key_dir to a directory of \
             <tenantid>.json files, or jwks_url to a URL with {tenantId} in it, or both",
        );
    }
    let place = Place::Whole { file: file.to_owned() };
    messages
        .into_iter()
        .map(|message| Problem { place: place.clone(), message: message.to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const MINIMAL: &str = "[auth]\nissuer = \"https://auth.example.com\"\nkey_dir = \"/etc/keys\"\n";

    fn broken(text: &str) -> Vec<String> {
        let text = format!("{MINIMAL}{text}");
        parse(&text, "f", []).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_rule_names_keys_that_exist() {
        for (section, name) in RULES.iter().flat_map(|rule| rule.keys) {
            assert!(schema::key(section, name).is_some(), "{section}.{name}");
        }
    }

    #[test]
    fn every_rule_can_be_broken() {
        let breaking = [
            "[sessions]\nidle_timeout_s = 25",
            "[sessions]\nkeep_alive_interval_s = 30",
            "[sessions]\nawareness_timeout_s = 15",
            "[overload]\naccept_below_percent = 80",
            "token_bytes_max = 40000",
            "[limits]\nunauthenticated_bytes_max = 1024",
            "[limits]\nmessage_bytes_max = \"65 MiB\"",
            "[limits]\nmessage_bytes_max = 1024\nawareness_bytes_max = 1024",
            "[limits]\nparked_bytes_max = \"65 MiB\"",
            "[limits]\nawareness_bytes_max = \"16 MiB\"\nmessage_bytes_max = \"15 MiB\"",
            "jwks_poll_s = 86400",
            "tenants = [\"6a5b0c6e-6a1c-4f0e-9d35-6b7f0f5d8a01\"]",
            "[dashboard]\nurl = \"https://auth.example.com\"",
            "[node]\nshards = 3\ncpus = [1, 2]",
            "[node]\ncpus = [\"0-3\"]\ncontrol_cpu = 0",
            "[limits]\nhandshake_timeout_s = 61",
            "[limits]\nauthentication_timeout_s = 61",
            "[tls]\ncertificate = \"/etc/wiresocket/tls.pem\"",
            "[node]\nplaintext_listen = \"127.0.0.1:8081\"",
            "[node]\nproxy_protocol = \"plaintext_listen\"",
        ];
        assert_eq!(breaking.len(), RULES.len());
        for (rule, text) in RULES.iter().zip(breaking) {
            let found = broken(text);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(rule.demand), "{text}: {found:?}");
        }
    }

    #[test]
    fn the_key_that_was_set_is_blamed_and_both_values_are_shown() {
        assert_eq!(
            broken("[sessions]\nping_interval_s = 60\n"),
            [
                "f:5:1: sessions.idle_timeout_s = 60, sessions.ping_interval_s = 60: the idle timeout must be longer \
              than the ping interval, or silent clients are closed unasked"
            ]
        );
    }

    #[test]
    fn an_empty_file_is_told_what_it_needs() {
        let found = parse("", "f", []).unwrap_err().to_string();
        assert!(
            found.contains("auth.issuer is not set") && found.contains("WIRESOCKET_AUTH__ISSUER"),
            "{found}"
        );
        assert!(found.contains("key_dir") && found.contains("jwks_url"), "{found}");
    }
}
