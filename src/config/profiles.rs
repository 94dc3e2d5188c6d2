//! Holds the files of `tuning/` against the code: they parse, they are complete, and they agree with one another.

use std::collections::BTreeMap;

use super::schema::{self, keys};
use super::{CoreLayout, CoreList, NodeConfig, parse};

const NODE: &str = include_str!("../../tuning/node.toml");
const SERVICE: &str = include_str!("../../tuning/wiresocket.service");
const SYSCTL: &str = include_str!("../../tuning/sysctl.conf");

/// Name, text, and the cores of the host it is meant for.
const PROFILES: [(&str, &str, &str); 3] = [
    ("small-vm.toml", include_str!("../../tuning/small-vm.toml"), "0-1"),
    ("16-core.toml", include_str!("../../tuning/16-core.toml"), "0-15"),
    ("64-core.toml", include_str!("../../tuning/64-core.toml"), "0-63"),
];

/// Required keys have no default: the file shows an example.
const REQUIRED: [&str; 2] = ["auth.issuer", "auth.key_dir"];

fn parsed(name: &str, text: &str) -> NodeConfig {
    parse(text, name, []).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Every `key = value` line, commented out or not, as `section.key`, with the line before it.
fn documented() -> Vec<(String, bool, &'static str)> {
    let (mut section, mut before, mut found) = ("", "", Vec::new());
    for line in NODE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let (is_set, rest) = match line.strip_prefix('#') {
            Some(rest) => (false, rest),
            None => (true, line),
        };
        let name = rest.split_once(" = ").map(|(name, _)| name);
        if let Some(name) = name.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')) {
            found.push((format!("{section}.{name}"), is_set, before));
        }
        before = line;
    }
    found
}

/// The number after `name` and an equals sign in a unit file or sysctl.conf.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.split('=').next().is_some_and(|key| key.trim() == name));
    let value = line.and_then(|line| line.split_once('=')).map(|(_, value)| value.trim());
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} is not a number in:\n{text}"))
}

#[test]
fn node_toml_sets_every_key_to_its_default() {
    let (config, built_in) = (parsed("node.toml", NODE), NodeConfig::built_in());
    for key in keys().iter().filter(|key| !REQUIRED.contains(&key.name.to_string().as_str())) {
        assert_eq!(key.write(&config), key.write(&built_in), "{}", key.name);
    }
}

#[test]
fn node_toml_documents_exactly_the_keys_there_are() {
    let written: Vec<_> = documented().into_iter().map(|(name, ..)| name).collect();
    let known: Vec<_> = keys().iter().map(|key| key.name.to_string()).collect();
    assert_eq!(written, known, "in the order of the schema");
    for (name, _, before) in documented() {
        assert!(before.starts_with("# "), "{name} has no comment above it");
    }
}

#[test]
fn node_toml_leaves_out_only_what_has_no_default() {
    let built_in = NodeConfig::built_in();
    for (name, is_set, _) in documented().iter().filter(|(name, ..)| !REQUIRED.contains(&name.as_str())) {
        let (section, key) = name.split_once('.').unwrap();
        let default = schema::key(section, key).unwrap().write(&built_in);
        assert_eq!(*is_set, default.is_some(), "{name}");
    }
}

#[test]
fn the_examples_that_node_toml_comments_out_are_valid() {
    let unset: BTreeMap<_, _> = documented().into_iter().map(|(name, is_set, _)| (name, is_set)).collect();
    let is_example = |line: &str| {
        let name = line.strip_prefix('#').and_then(|rest| rest.split_once(" = ")).map(|(name, _)| name);
        name.is_some_and(|name| {
            unset.iter().any(|(key, is_set)| !is_set && key.ends_with(&format!(".{name}")))
        })
    };
    let lines: Vec<_> = NODE.lines().map(|line| if is_example(line) { &line[1..] } else { line }).collect();
    let config = parsed("node.toml", &lines.join("\n"));
    for key in keys() {
        assert!(key.write(&config).is_some(), "{} is still not set", key.name);
    }
}

#[test]
fn profiles_are_valid_and_fit_their_hosts() {
    let shard_counts = PROFILES.map(|(name, text, cpus)| {
        let config = parsed(name, text);
        assert!(config.warnings().is_empty(), "{name}: {:?}", config.warnings());
        let allowed: CoreList = cpus.parse().unwrap();
        let layout = CoreLayout::new(&config.node, &allowed, allowed.as_slice().len()).unwrap();
        assert!(layout.control.is_some_and(|core| !layout.shards.contains(&core)), "{name}");
        assert!(!layout.shards.contains(&0), "{name}: core 0 is for interrupts");
        layout.shards.len()
    });
    assert_eq!(shard_counts, [1, 14, 60]);
}

#[test]
fn the_unit_gives_every_profile_the_files_and_the_time_it_needs() {
    let (files, stop_s) = (number(SERVICE, "LimitNOFILE"), number(SERVICE, "TimeoutStopSec"));
    for (name, text, _) in PROFILES.into_iter().chain([("node.toml", NODE, "")]) {
        let config = parsed(name, text);
        assert!(config.overload.connections_max.unwrap_or(0) < files, "{name}");
        assert!(config.drain_spread.as_secs() + 30 <= stop_s, "{name}");
    }
    assert!(number(SYSCTL, "fs.nr_open") >= files && number(SYSCTL, "fs.file-max") >= files);
}
