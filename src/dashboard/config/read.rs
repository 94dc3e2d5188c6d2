//! From a file's text to a [`Config`], or to what is wrong with it.

mod billing;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;

use billing::Billing;

use super::{Config, HttpSettings, KeySettings, MailSettings, MailTarget, RegionSettings, TokenSettings};
use crate::config::{Issuer, LogFormat, LogLevel, LogSettings, Place, Problem, Problems};
use crate::dashboard::master::KeySource;
use crate::dashboard::region::LicenseRegion;
use crate::dashboard::store::{DatabaseUrl, StoreError};
use crate::limits::Network;
use crate::tls::TlsFiles;

type Given<T> = Option<Spanned<T>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    dashboard: Dashboard,
    database: Databases,
    #[serde(default)]
    regions: BTreeMap<Spanned<String>, Region>,
    #[serde(default)]
    master_keys: BTreeMap<Spanned<String>, Spanned<Source>>,
    #[serde(default)]
    keys: Keys,
    #[serde(default)]
    tokens: Tokens,
    #[serde(default)]
    http: Http,
    mail: Option<Spanned<Mail>>,
    #[serde(default)]
    billing: Billing,
    tls: Option<Tls>,
    #[serde(default)]
    log: Log,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificate: PathBuf,
    private_key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dashboard {
    listen: Given<String>,
    issuer: Spanned<String>,
    operator_email: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Databases {
    home: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Region {
    db_code: Given<String>,
    database: Given<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    file: Option<String>,
    env: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Keys {
    jwks_max_age_s: Given<i64>,
    publish_before_s: Given<i64>,
    rotate_every_days: Given<i64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Tokens {
    access_token_s: Given<i64>,
    refresh_token_s: Given<i64>,
    signing_threads: Given<i64>,
    signing_queue_max: Given<i64>,
    password_clients: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Http {
    jwks_per_10_minutes: Given<i64>,
    api_per_10_minutes: Given<i64>,
    failures_per_address: Given<i64>,
    failures_per_account: Given<i64>,
    trusted_proxies: Option<Vec<Spanned<String>>>,
    exempt_networks: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mail {
    from: String,
    smtp_url: Option<Source>,
    ca_file: Option<String>,
    directory: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Log {
    format: Given<String>,
    level: Given<String>,
}

impl Source {
    fn read(self) -> Option<KeySource> {
        match self {
            Self { file: Some(file), env: None } => Some(KeySource::File(file.into())),
            Self { file: None, env: Some(variable) } => Some(KeySource::Environment(variable)),
            _ => None,
        }
    }
}

/// The configuration in `text`; `file` is what problems call it.
///
/// # Errors
/// With every wrong value, or the first mistake of form.
pub fn parse(text: &str, file: &str) -> Result<Config, Problems> {
    let parsed: File =
        toml::from_str(text).map_err(|error| Problems(vec![form_problem(&error, text, file)]))?;
    let mut reader = Reader { text, file, problems: Vec::new() };
    let config = reader.config(parsed);
    reader.problems.sort_by(|a, b| a.place.cmp(&b.place));
    match config {
        Some(config) if reader.problems.is_empty() => Ok(config),
        _ => Err(Problems(reader.problems)),
    }
}

/// What serde or the TOML parser says, with the key that was probably meant.
fn form_problem(error: &toml::de::Error, text: &str, file: &str) -> Problem {
    let mut message = without_text(error.message());
    let mut quoted = error.message().split('`').skip(1).step_by(2);
    if message.starts_with("unknown field")
        && let Some(written) = quoted.next()
        && let Some((_, known)) = quoted
            .map(|known| (strsim::damerau_levenshtein(written, known), known))
            .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
            .min()
    {
        message = format!("unknown key `{written}`: did you mean `{known}`?");
    }
    let place = match error.span() {
        Some(span) => Place::of(file, text, span.start),
        None => Place::Whole { file: file.to_owned() },
    };
    Problem { place, message }
}

/// serde shows the text that stands where something else should, such as `{ file = … }`: it may be the secret itself.
fn without_text(message: &str) -> String {
    match (message.split_once("string \""), message.rsplit_once("\", expected ")) {
        (Some((front, _)), Some((_, expected))) => format!("{front}text, expected {expected}"),
        _ => message.to_owned(),
    }
}

struct Reader<'a> {
    text: &'a str,
    file: &'a str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, offset: usize, message: String) {
        self.problems.push(Problem { place: Place::of(self.file, self.text, offset), message });
    }

    fn config(&mut self, file: File) -> Option<Config> {
        let listen = file.dashboard.listen;
        let listen = match listen {
            Some(listen) => self.parsed("dashboard.listen", &listen, "an address such as 127.0.0.1:8090"),
            None => Some(SocketAddr::from(([127, 0, 0, 1], 8090))),
        };
        let issuer = self.issuer(&file.dashboard.issuer);
        let operator_email = self.email(&file.dashboard.operator_email);
        let home = self.database("database.home", &file.database.home);
        let regions = self.regions(file.regions);
        let master_keys = self.master_keys(file.master_keys);
        let tokens = self.tokens(file.tokens);
        let keys = self.keys(file.keys);
        Some(Config {
            http: self.http(file.http),
            billing: self.billing(file.billing),
            mail: file.mail.and_then(|mail| self.mail(mail)),
            log: self.log(file.log),
            tls: file.tls.map(|Tls { certificate, private_key }| TlsFiles { certificate, private_key }),
            listen: listen?,
            issuer: issuer?,
            operator_email: operator_email?,
            home: home?,
            regions,
            master_keys,
            keys,
            tokens,
        })
    }

    fn parsed<T: FromStr>(&mut self, key: &str, value: &Spanned<String>, allowed: &str) -> Option<T>
    where
        T::Err: Display,
    {
        let text = value.get_ref();
        match text.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problem(
                    value.span().start,
                    format!("{key} = {text:?}, but it must be {allowed} ({error})"),
                );
                None
            }
        }
    }

    fn number(
        &mut self,
        key: &str,
        value: Given<i64>,
        default: i64,
        range: RangeInclusive<i64>,
        unit: &str,
    ) -> i64 {
        let Some(value) = value else { return default };
        let number = *value.get_ref();
        if !range.contains(&number) {
            let (from, to) = range.into_inner();
            let message =
                format!("{key} = {number}, but it must be a whole number from {from} to {to} {unit}");
            self.problem(value.span().start, message);
        }
        number
    }

    fn issuer(&mut self, value: &Spanned<String>) -> Option<Issuer> {
        let issuer: Issuer =
            self.parsed("dashboard.issuer", value, "the https:// URL at which the dashboard is reached")?;
        let host = issuer.as_str().split_once("://").map_or("", |(_, rest)| rest);
        if host.contains('/') {
            let message = format!(
                "dashboard.issuer = {:?}, but it must have no path and no slash at its end: nodes compare it with the \
                 `iss` of tokens to the last character",
                value.get_ref()
            );
            self.problem(value.span().start, message);
        }
        Some(issuer)
    }

    fn email(&mut self, value: &Spanned<String>) -> Option<String> {
        let text = value.get_ref().trim().to_lowercase();
        if crate::dashboard::accounts::is_email(&text) {
            return Some(text);
        }
        let message = format!("dashboard.operator_email = {text:?}, but it must be an e-mail address");
        self.problem(value.span().start, message);
        None
    }

    fn database(&mut self, key: &str, value: &Spanned<String>) -> Option<DatabaseUrl> {
        match value.get_ref().parse() {
            Ok(url) => Some(url),
            // What was written may hold a password: the error shows it without.
            Err(error) => {
                let error: StoreError = error;
                self.problem(value.span().start, format!("{key}: {error}"));
                None
            }
        }
    }

    fn regions(
        &mut self,
        given: BTreeMap<Spanned<String>, Region>,
    ) -> BTreeMap<LicenseRegion, RegionSettings> {
        if given.is_empty() {
            let settings =
                |region: LicenseRegion| RegionSettings { db_code: region.default_db_code(), database: None };
            return LicenseRegion::all().map(|region| (region, settings(region))).into();
        }
        let mut regions = BTreeMap::new();
        for (name, settings) in given {
            let Some(region) = self.parsed::<LicenseRegion>("the region", &name, "a license region") else {
                continue;
            };
            let key = format!("regions.{region}");
            let db_code = match settings.db_code {
                Some(code) if is_code(code.get_ref()) => code.into_inner(),
                Some(code) => {
                    let message = format!(
                        "{key}.db_code = {:?}, but it must be 1 to 64 letters, digits and hyphens",
                        code.get_ref()
                    );
                    self.problem(code.span().start, message);
                    continue;
                }
                None => region.default_db_code(),
            };
            let database = settings.database.and_then(|url| self.database(&format!("{key}.database"), &url));
            regions.insert(region, RegionSettings { db_code, database });
        }
        regions
    }

    fn master_keys(&mut self, given: BTreeMap<Spanned<String>, Spanned<Source>>) -> BTreeMap<i64, KeySource> {
        if given.is_empty() {
            let message = "there is no [master_keys]: make a key with `wiresocket admin generate-master-key FILE`, \
                           then write [master_keys] and 1 = { file = \"FILE\" }";
            let place = Place::Whole { file: self.file.to_owned() };
            self.problems.push(Problem { place, message: message.to_owned() });
        }
        let mut keys = BTreeMap::new();
        for (version, source) in given {
            let number = version.get_ref().parse::<i64>().ok().filter(|number| (1..=9999).contains(number));
            let Some(number) = number else {
                let message = format!(
                    "master_keys.{} is no version: they are numbers from 1 to 9999, and the highest one seals",
                    version.get_ref()
                );
                self.problem(version.span().start, message);
                continue;
            };
            let offset = source.span().start;
            match source.into_inner().read() {
                Some(source) => {
                    keys.insert(number, source);
                }
                None => {
                    let message = format!(
                        "master_keys.{number} must say where the key is: {{ file = \"PATH\" }} or {{ env = \"VARIABLE\" }}"
                    );
                    self.problem(offset, message);
                }
            }
        }
        keys
    }

    fn keys(&mut self, given: Keys) -> KeySettings {
        let default = KeySettings::default();
        let offset = given.publish_before_s.as_ref().or(given.jwks_max_age_s.as_ref());
        let offset = offset.map_or(0, |value| value.span().start);
        let seconds = "seconds";
        let keys = KeySettings {
            jwks_max_age_s: self.number(
                "keys.jwks_max_age_s",
                given.jwks_max_age_s,
                default.jwks_max_age_s,
                0..=86_400,
                seconds,
            ),
            publish_before_s: self.number(
                "keys.publish_before_s",
                given.publish_before_s,
                default.publish_before_s,
                0..=604_800,
                seconds,
            ),
            rotate_every_s: 86_400
                * self.number(
                    "keys.rotate_every_days",
                    given.rotate_every_days,
                    default.rotate_every_s / 86_400,
                    0..=3650,
                    "days",
                ),
        };
        if keys.publish_before_s < keys.jwks_max_age_s {
            let message = format!(
                "keys.publish_before_s = {}, keys.jwks_max_age_s = {}: a key must be published for at least one cache \
                 life before it signs, or verifiers meet a key that they don't know",
                keys.publish_before_s, keys.jwks_max_age_s
            );
            self.problem(offset, message);
        }
        keys
    }

    fn tokens(&mut self, given: Tokens) -> TokenSettings {
        let default = TokenSettings::default();
        let (threads, queue) = (default.signing_threads as i64, default.signing_queue_max as i64);
        let threads =
            self.number("tokens.signing_threads", given.signing_threads, threads, 1..=256, "threads");
        let queue =
            self.number("tokens.signing_queue_max", given.signing_queue_max, queue, 1..=1_000_000, "tokens");
        TokenSettings {
            access_token_s: self.number(
                "tokens.access_token_s",
                given.access_token_s,
                default.access_token_s,
                60..=86_400,
                "seconds",
            ),
            refresh_token_s: self.number(
                "tokens.refresh_token_s",
                given.refresh_token_s,
                default.refresh_token_s,
                60..=31_536_000,
                "seconds",
            ),
            signing_threads: usize::try_from(threads).unwrap_or(1),
            signing_queue_max: usize::try_from(queue).unwrap_or(1),
            password_clients: given.password_clients.into_iter().flatten().map(Spanned::into_inner).collect(),
        }
    }

    fn http(&mut self, given: Http) -> HttpSettings {
        let default = HttpSettings::default();
        let mut rate = |key: &str, value, default: u32| {
            let rate = self.number(key, value, i64::from(default), 0..=1_000_000, "per ten minutes (0: any)");
            u32::try_from(rate).unwrap_or(0)
        };
        let jwks = rate("http.jwks_per_10_minutes", given.jwks_per_10_minutes, default.jwks_per_10_minutes);
        let api = rate("http.api_per_10_minutes", given.api_per_10_minutes, default.api_per_10_minutes);
        let address =
            rate("http.failures_per_address", given.failures_per_address, default.failures_per_address);
        let account =
            rate("http.failures_per_account", given.failures_per_account, default.failures_per_account);
        HttpSettings {
            jwks_per_10_minutes: jwks,
            api_per_10_minutes: api,
            failures_per_address: address,
            failures_per_account: account,
            trusted_proxies: self.networks("http.trusted_proxies", given.trusted_proxies),
            exempt_networks: self.networks("http.exempt_networks", given.exempt_networks),
        }
    }

    fn networks(&mut self, key: &str, given: Option<Vec<Spanned<String>>>) -> Vec<Network> {
        let given = given.unwrap_or_default();
        given.iter().filter_map(|item| self.parsed(key, item, "networks such as \"10.0.0.0/8\"")).collect()
    }

    fn mail(&mut self, given: Spanned<Mail>) -> Option<MailSettings> {
        let offset = given.span().start;
        let Mail { from, smtp_url, ca_file, directory } = given.into_inner();
        let target = match (smtp_url.map(Source::read), ca_file, directory) {
            (Some(Some(url)), ca_file, None) => {
                Some(MailTarget::Smtp { url, ca_file: ca_file.map(PathBuf::from) })
            }
            (None, None, Some(directory)) => Some(MailTarget::Directory(directory.into())),
            _ => None,
        };
        if target.is_none() {
            let message = "[mail] must say where letters go: smtp_url = { file = \"PATH\" } or { env = \"VARIABLE\" } \
                           (with ca_file = \"PATH\" where the relay's certificate is your own), or directory = \"PATH\"";
            self.problem(offset, message.to_owned());
        }
        Some(MailSettings { from, target: target? })
    }

    fn log(&mut self, given: Log) -> LogSettings {
        let format = [("human", LogFormat::Human), ("json", LogFormat::Json)];
        let level = [
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ];
        LogSettings {
            format: self.choice("log.format", given.format, &format, LogFormat::Human),
            level: self.choice("log.level", given.level, &level, LogLevel::Info),
        }
    }

    fn choice<T: Copy>(&mut self, key: &str, value: Given<String>, choices: &[(&str, T)], default: T) -> T {
        let Some(value) = value else { return default };
        if let Some((_, choice)) = choices.iter().find(|(name, _)| name == value.get_ref()) {
            return *choice;
        }
        let known: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        let message = format!("{key} = {:?}, but it must be one of {}", value.get_ref(), known.join(", "));
        self.problem(value.span().start, message);
        default
    }
}

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests;
