//! From a file's text and the environment to a [`NodeConfig`], or to everything that is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::NodeConfig;
use super::check;
use super::domain::Wrong;
use super::literal::Literal;
use super::problem::{LoadError, Place, Problem, Problems};
use super::schema::{self, Key, KeyName, SECTIONS};

const VARIABLE_PREFIX: &str = "WIRESOCKET_";

/// Where the keys that don't have their default come from.
pub(super) type Origins = BTreeMap<KeyName, Place>;

/// Reads `path` and the environment of this process.
///
/// # Errors
/// If the file can't be read, or with every problem of it and of the environment.
pub fn load(path: &Path) -> Result<NodeConfig, LoadError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let environment = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    Ok(parse(&text, &path.display().to_string(), environment)?)
}

/// The configuration in `text`, overridden by `environment`; `file` is what problems call the text.
///
/// Of the environment, variables named `WIRESOCKET_<SECTION>__<KEY>` count; one without `__` is none of ours.
///
/// # Errors
/// With every problem of both.
pub fn parse(
    text: &str,
    file: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<NodeConfig, Problems> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader =
        Reader { text, file, config: NodeConfig::built_in(), problems: Vec::new(), failed: BTreeSet::new() };
    let syntax: Vec<Problem> = errors
        .iter()
        .map(|error| Problem {
            place: Place::of(file, text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })
        .collect();
    reader.document(document.get_ref());
    // what the parser made of a line that it could not read is nobody's mistake
    let unreadable =
        |problem: &Problem| syntax.iter().any(|error| error.place.line() == problem.place.line());
    reader.problems.retain(|problem| !unreadable(problem));
    reader.environment(environment);
    // what a syntax error swallowed is not missing, and can't be compared
    if syntax.is_empty() {
        reader.problems.extend(check::problems(&reader.config, &reader.failed, file));
    }
    reader.problems.extend(syntax);
    reader.problems.sort_by(|a, b| a.place.cmp(&b.place));
    if reader.problems.is_empty() { Ok(reader.config) } else { Err(Problems(reader.problems)) }
}

struct Reader<'a> {
    text: &'a str,
    file: &'a str,
    config: NodeConfig,
    problems: Vec<Problem>,
    /// Keys whose value was refused: what other keys need of them can't be checked.
    failed: BTreeSet<KeyName>,
}

impl Reader<'_> {
    fn problem(&mut self, offset: usize, message: String) {
        let place = Place::of(self.file, self.text, offset);
        self.problems.push(Problem { place, message });
    }

    fn document(&mut self, document: &DeTable<'_>) {
        for (name, value) in document {
            let (section, offset) = (name.get_ref().as_ref(), name.span().start);
            match value.get_ref() {
                DeValue::Table(table) if SECTIONS.contains(&section) => self.section(section, table),
                DeValue::Table(_) => {
                    let message = format!("unknown section [{section}]: {}", section_hint(section));
                    self.problem(offset, message);
                }
                _ if SECTIONS.contains(&section) => {
                    self.problem(
                        offset,
                        format!("`{section}` is a section: write [{section}], then its keys"),
                    );
                }
                _ => {
                    let hint =
                        elsewhere(section, "").unwrap_or_else(|| "put it under its section".to_owned());
                    self.problem(offset, format!("key `{section}` stands outside of any section: {hint}"));
                }
            }
        }
    }

    fn section(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            match schema::key(section, name.get_ref()) {
                Some(key) => self.value(key, name, value),
                None => {
                    let name_text = name.get_ref().as_ref();
                    let hint = key_hint(section, name_text);
                    self.problem(
                        name.span().start,
                        format!("unknown key `{name_text}` in [{section}]: {hint}"),
                    );
                }
            }
        }
    }

    fn value(&mut self, key: &'static Key, name: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) {
        match key.read(&mut self.config, &Literal::of(value.get_ref())) {
            Ok(()) => {
                let place = Place::of(self.file, self.text, name.span().start);
                self.config.origins.insert(key.name, place);
            }
            Err(wrong) => {
                self.failed.insert(key.name);
                for one in wrong {
                    self.problem(one.offset.unwrap_or(value.span().start), refusal(key, &one));
                }
            }
        }
    }

    fn environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        for (variable, text) in environment {
            let Some(rest) = variable.strip_prefix(VARIABLE_PREFIX) else { continue };
            if !rest.contains("__") {
                continue;
            }
            let place = Place::Environment { variable: variable.clone() };
            let Some(key) = schema::keys().iter().find(|key| key.variable() == variable) else {
                let variables: Vec<String> = schema::keys().iter().map(Key::variable).collect();
                let hint = match nearest(&variable, variables.iter().map(String::as_str)) {
                    Some(known) => format!("did you mean {known}?"),
                    None => {
                        format!(
                            "variables are named {VARIABLE_PREFIX}<SECTION>__<KEY>, after the keys of the file"
                        )
                    }
                };
                self.problems.push(Problem { place, message: format!("names no key: {hint}") });
                continue;
            };
            match key.read(&mut self.config, &Literal::Bare(text)) {
                Ok(()) => {
                    self.config.origins.insert(key.name, place);
                }
                Err(wrong) => {
                    self.failed.insert(key.name);
                    let messages = wrong.iter().map(|one| refusal(key, one));
                    self.problems.extend(messages.map(|message| Problem { place: place.clone(), message }));
                }
            }
        }
    }
}

/// "limits.stall_timeout_s = 0 must be a time from 0.1 to 3600 seconds"
fn refusal(key: &Key, wrong: &Wrong) -> String {
    let hint = wrong.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let relation = if wrong.offset.is_some() { "holds" } else { "=" };
    format!("{} {relation} {}, but it must be {}{hint}", key.name, wrong.shown, key.allowed)
}

fn section_hint(section: &str) -> String {
    match nearest(section, SECTIONS) {
        Some(known) => format!("did you mean [{known}]?"),
        None => format!("there are {}", SECTIONS.map(|name| format!("[{name}]")).join(", ")),
    }
}

fn key_hint(section: &str, name: &str) -> String {
    if schema::keys().iter().any(|key| key.name.name == name)
        && let Some(hint) = elsewhere(name, section)
    {
        return hint;
    }
    if let Some(known) = nearest(name, schema::keys_of(section).map(|key| key.name.name)) {
        return format!("did you mean `{known}`?");
    }
    elsewhere(name, section).unwrap_or_else(|| {
        let known: Vec<_> = schema::keys_of(section).map(|key| key.name.name).collect();
        format!("known are {}", known.join(", "))
    })
}

/// The key of another section that was probably meant.
fn elsewhere(name: &str, section: &str) -> Option<String> {
    let others = || schema::keys().iter().filter(|key| key.name.section != section);
    let known = nearest(name, others().map(|key| key.name.name))?;
    let key = others().find(|key| key.name.name == known)?;
    Some(if known == name {
        format!("it belongs in [{}]", key.name.section)
    } else {
        format!("did you mean `{known}` in [{}]?", key.name.section)
    })
}

/// The candidate that `word` was most probably meant to be, if any is near: of its letters, a third may differ.
fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let word = folded(word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &folded(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (word.len().min(candidate.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINIMAL: &str = "[auth]\nissuer = \"https://auth.example.com\"\nkey_dir = \"/etc/keys\"\n";

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn problems(text: &str) -> Vec<String> {
        let text = format!("{MINIMAL}{text}");
        parse(&text, "f", []).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    fn variable_problem(variable: &str, value: &str) -> String {
        let problems = parse(MINIMAL, "f", environment(&[(variable, value)])).unwrap_err().0;
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].to_string()
    }

    #[test]
    fn what_the_file_says_replaces_the_default() {
        let text =
            format!("{MINIMAL}leeway_s = 1.5\n[limits]\nmessage_bytes_max = \"1 MiB\"\n[node]\nshards = 4\n");
        let config = parse(&text, "f", []).unwrap();
        assert_eq!(config.shard.engine.leeway, Duration::from_millis(1500));
        assert_eq!(config.shard.engine.message_bytes_max, 1 << 20);
        assert_eq!(config.node.shards, Some(4));
        assert_eq!(config.shard.issuer.as_str(), "https://auth.example.com");
        assert_eq!(config.shard.engine.document_bytes_max, 64 << 20, "untouched keys keep their defaults");
    }

    #[test]
    fn unknown_keys_are_refused_with_place_and_nearest_key() {
        assert_eq!(
            problems("[node]\nlissen = \"0.0.0.0:80\"\n"),
            ["f:5:1: unknown key `lissen` in [node]: did you mean `listen`?"]
        );
        assert_eq!(
            problems("[limits]\nhandshake-timeout = 1\n"),
            ["f:5:1: unknown key `handshake-timeout` in [limits]: did you mean `handshake_timeout_s`?"]
        );
        assert_eq!(
            problems("[limits]\nissuer = \"x\"\n"),
            ["f:5:1: unknown key `issuer` in [limits]: it belongs in [auth]"]
        );
        let all = problems("[drain]\nzzzzzzzzzz = 1\n");
        assert_eq!(all, ["f:5:1: unknown key `zzzzzzzzzz` in [drain]: known are spread_s"]);
    }

    #[test]
    fn unknown_sections_and_strays_are_refused() {
        assert_eq!(problems("[nodes]\na = 1\n"), ["f:4:2: unknown section [nodes]: did you mean [node]?"]);
        let text = "shards = 1\nlog = 3\n[auth]\nissuer = \"https://a\"\nkey_dir = \"k\"\n";
        let found: Vec<_> = parse(text, "f", []).unwrap_err().0.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "f:1:1: key `shards` stands outside of any section: it belongs in [node]",
                "f:2:1: `log` is a section: write [log], then its keys"
            ]
        );
    }

    #[test]
    fn a_wrong_value_names_key_value_range_and_unit() {
        assert_eq!(
            problems("[limits]\nhandshake_timeout_s = 0\nfragments_max = \"many\"\n"),
            [
                "f:5:23: limits.handshake_timeout_s = 0, but it must be a time from 0.1 to 600 seconds",
                "f:6:17: limits.fragments_max = \"many\", but it must be a whole number from 1 to 1000000 frames \
                 per message"
            ]
        );
        assert_eq!(
            problems("[http]\ntrusted_proxies = [\n  \"10.0.0.0/8\",\n  \"10.0.0.1/8\",\n]\n"),
            [
                "f:7:3: http.trusted_proxies holds \"10.0.0.1/8\", but it must be a list of: a network such as \
              \"10.0.0.0/8\" or an IP address (it has bits set after its prefix; the network is 10.0.0.0/8)"
            ]
        );
    }

    #[test]
    fn all_problems_are_reported_in_the_order_of_their_places() {
        let found = parse(
            "[node]\nlissen = 1\nshards = -1\n[auth]\nissuer = 3\n[sessions]\nping_interval_s = 90\n",
            "f",
            environment(&[("WIRESOCKET_LOG__LEVEL", "loud")]),
        )
        .unwrap_err();
        let places: Vec<_> = found.0.iter().map(|problem| problem.place.to_string()).collect();
        assert_eq!(
            places,
            ["f:2:1", "f:3:10", "f:5:10", "f:7:1", "f", "environment variable WIRESOCKET_LOG__LEVEL"]
        );
        assert!(
            found.to_string().starts_with("the configuration has 6 problems\n  f:2:1: unknown key"),
            "{found}"
        );
    }

    #[test]
    fn syntax_errors_have_a_place_and_do_not_hide_other_problems() {
        let found = problems("[node]\nlisten = 0.0.0.0:80\nlissen = 3\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("f:5:13: invalid float"), "{found:?}");
        assert!(found[1].contains("did you mean `listen`?"), "{found:?}");
        let all = parse("[auth\nissuer = \"https://a\"\n", "f", []).unwrap_err().0;
        assert!(
            all.iter().all(|problem| problem.place.line().is_some()),
            "nothing is missing, it is unread: {all:?}"
        );
        let twice = problems("[node]\nregion = \"a\"\nregion = \"b\"\n");
        assert!(twice.iter().any(|problem| problem.contains("duplicate key")), "{twice:?}");
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let overrides = environment(&[
            ("WIRESOCKET_NODE__LISTEN", "127.0.0.1:9"),
            ("WIRESOCKET_AUTH__KEY_DIR", ""),
            ("WIRESOCKET_AUTH__JWKS_URL", "https://a/{tenantId}"),
            ("WIRESOCKET_LIMITS__OUTBOX_BYTES_MAX", "2 MiB"),
            ("WIRESOCKET_HTTP__EXEMPT_NETWORKS", "10.0.0.0/8, ::1"),
            ("WIRESOCKET_AUTH__REQUIRE_ORIGIN", "true"),
            ("WIRESOCKET_LOG", "debug"),
            ("PATH", "x"),
        ]);
        let config = parse(MINIMAL, "f", overrides).unwrap();
        assert_eq!(config.node.listen.to_string(), "127.0.0.1:9");
        assert_eq!(config.keys.key_dir, None, "an empty variable unsets an optional key");
        assert_eq!(config.shard.outbox_bytes_max, 2 << 20);
        assert_eq!(config.http.exempt_networks.len(), 2);
        assert!(config.shard.engine.require_origin);
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let refused = variable_problem("WIRESOCKET_NODE__SHARDS", "many");
        assert!(refused.starts_with("environment variable WIRESOCKET_NODE__SHARDS: node.shards = many, but"));
        assert_eq!(
            variable_problem("WIRESOCKET_NODE__LISSEN", "x"),
            "environment variable WIRESOCKET_NODE__LISSEN: names no key: did you mean WIRESOCKET_NODE__LISTEN?"
        );
        assert!(variable_problem("WIRESOCKET_X__Y", "x").contains("WIRESOCKET_<SECTION>__<KEY>"));
    }
}
