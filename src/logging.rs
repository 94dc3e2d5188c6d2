//! Logs: one line per event on stderr, for people or as JSON, and what must never be in them.
//!
//! Invariant: a token is not logged. Types that hold one wrap it in [`Redacted`]; request targets, which may carry one
//! in their query, pass through [`redact_target`] first.
//!
//! Absent: files and rotation. The service manager keeps what goes to stderr.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::borrow::Cow;
use std::fmt;
use std::io::IsTerminal;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, reload};

use crate::config::{LogFormat, LogLevel, LogSettings};

/// Variables that replace `log.level` with a filter such as `info,wiresocket::shard=debug`; the first that is set counts.
const FILTER_VARIABLES: [&str; 2] = ["WIRESOCKET_LOG", "RUST_LOG"];

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error(
        "cannot use {variable}={filter} as a log filter: {source}; write it like `info` or \
         `info,wiresocket::shard=debug`"
    )]
    Filter { variable: &'static str, filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("cannot set up logging: it is set up already")]
    AlreadySet(#[source] tracing_subscriber::util::TryInitError),
}

/// Changes the level of a process that logs. Does nothing where a variable has set the filter.
#[derive(Clone)]
pub struct LogLevelHandle {
    set: std::sync::Arc<dyn Fn(LogLevel) + Send + Sync>,
    from_variable: bool,
}

impl LogLevelHandle {
    /// Applies a reloaded `log.level`. Returns whether it took effect.
    pub fn set_level(&self, level: LogLevel) -> bool {
        if !self.from_variable {
            (self.set)(level);
        }
        !self.from_variable
    }
}

impl fmt::Debug for LogLevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevelHandle").field("from_variable", &self.from_variable).finish_non_exhaustive()
    }
}

/// Logs to stderr from now on, in the whole process.
///
/// # Errors
/// If a filter variable can't be parsed, or logging is set up already.
pub fn init(settings: LogSettings) -> Result<LogLevelHandle, LoggingError> {
    let from_variables = FILTER_VARIABLES
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| (*name, text)));
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (subscriber, handle) = subscriber(settings, from_variables, colours, std::io::stderr)?;
    subscriber.try_init().map_err(LoggingError::AlreadySet)?;
    Ok(handle)
}

fn subscriber<W>(
    settings: LogSettings,
    variable: Option<(&'static str, String)>,
    colours: bool,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + use<W>, LogLevelHandle), LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let from_variable = variable.is_some();
    let filter = match variable {
        Some((variable, filter)) => {
            EnvFilter::try_new(&filter).map_err(|source| LoggingError::Filter { variable, filter, source })?
        }
        None => at_level(settings.level),
    };
    let (filter, reloader) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    let lines = match settings.format {
        LogFormat::Human => lines.compact().boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // the only error is that the subscriber is gone, and then nothing logs any more
    let set = move |level| drop(reloader.reload(at_level(level)));
    let handle = LogLevelHandle { set: std::sync::Arc::new(set), from_variable };
    Ok((tracing_subscriber::registry().with(filter).with(lines), handle))
}

/// Our own events from `level` on; the libraries' only from warnings on, unless everything is asked for.
fn at_level(level: LogLevel) -> EnvFilter {
    let own = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let others = if own == LevelFilter::TRACE { own } else { own.min(LevelFilter::WARN) };
    EnvFilter::new(format!("{others},wiresocket={own}"))
}

/// A value that prints as `[redacted]`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Redacted<T>(pub T);

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl<T> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

const REDACTED: &str = "[redacted]";

/// A request target as it may be logged: of every query parameter whose name ends in `token`, the value is replaced,
/// and so is whatever looks like a JWT, wherever it stands.
///
/// It rather takes too much than too little: with y-websocket's `/?token=<JWT>/<room>` the room goes as well.
#[must_use]
pub fn redact_target(target: &str) -> Cow<'_, str> {
    let (path, query) = match target.find('?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    };
    let path = redact_jwts(path);
    let Some(query) = query else { return path };
    let parameters: Vec<Cow<'_, str>> = query.split('&').map(redact_parameter).collect();
    if matches!(path, Cow::Borrowed(_)) && parameters.iter().all(|part| matches!(part, Cow::Borrowed(_))) {
        return Cow::Borrowed(target);
    }
    Cow::Owned(format!("{path}?{}", parameters.join("&")))
}

/// One part between ampersands. Other characters that some reader could take for the start of a parameter count too.
fn redact_parameter(parameter: &str) -> Cow<'_, str> {
    for (at, _) in parameter.match_indices('=') {
        let name_starts = parameter[..at].rfind(['?', ';', '/', '=', '#']).map_or(0, |before| before + 1);
        let name = percent_decoded(&parameter[name_starts..at]).to_ascii_lowercase();
        if name.trim_end_matches(['+', ' ']).ends_with("token") && at + 1 < parameter.len() {
            return Cow::Owned(format!("{}={REDACTED}", redact_jwts(&parameter[..at])));
        }
    }
    redact_jwts(parameter)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match tail {
            [high, low, ..] if *first == b'%' => {
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low)
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Replaces runs of a JWT's characters that begin like its header (`{"` in base64url) and hold a dot.
fn redact_jwts(text: &str) -> Cow<'_, str> {
    let of_jwt = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut out = String::new();
    let mut copied = 0;
    let mut from = 0;
    while let Some(found) = text[from..].find("ey") {
        let start = from + found;
        let end = text[start..].find(|c| !of_jwt(c)).map_or(text.len(), |length| start + length);
        if end - start > 20 && text[start..end].contains('.') {
            out.push_str(&text[copied..start]);
            out.push_str(REDACTED);
            copied = end;
            from = end;
        } else {
            from = start + 2;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl";

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    fn logger(
        format: LogFormat,
        level: LogLevel,
        variable: Option<(&'static str, String)>,
    ) -> (impl Subscriber + Send + Sync, LogLevelHandle, Lines) {
        let lines = Lines::default();
        let writer = lines.clone();
        let settings = LogSettings { format, level };
        let (subscriber, handle) = subscriber(settings, variable, false, move || writer.clone()).unwrap();
        (subscriber, handle, lines)
    }

    #[test]
    fn json_lines_carry_the_fields() {
        let (subscriber, _handle, lines) = logger(LogFormat::Json, LogLevel::Info, None);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(code = 4002, token = ?Redacted(JWT), "refused");
        });
        let line: serde_json::Value = serde_json::from_str(lines.take().trim_end()).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["code"]),
            (&"INFO".into(), &"refused".into(), &4002.into())
        );
        assert_eq!(line["token"], "[redacted]");
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    }

    #[test]
    fn human_lines_are_one_line_with_time_level_and_fields() {
        let (subscriber, _handle, lines) = logger(LogFormat::Human, LogLevel::Info, None);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(code = 4002, "refused");
            tracing::debug!("too detailed");
        });
        let text = lines.take();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("WARN") && text.contains("refused") && text.contains("code=4002"), "{text}");
        assert!(text.starts_with("20") && text.contains('T'), "begins with a time: {text}");
    }

    #[test]
    fn a_new_level_takes_effect_unless_a_variable_has_set_it() {
        let (subscriber, handle, lines) = logger(LogFormat::Human, LogLevel::Info, None);
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("before");
            assert!(handle.set_level(LogLevel::Debug));
            tracing::debug!("after");
        });
        let text = lines.take();
        assert!(!text.contains("before") && text.contains("after"), "{text}");

        let variable = Some(("RUST_LOG", "error".to_owned()));
        let (subscriber, handle, lines) = logger(LogFormat::Human, LogLevel::Info, variable);
        tracing::subscriber::with_default(subscriber, || {
            assert!(!handle.set_level(LogLevel::Trace));
            tracing::warn!("hidden");
            tracing::error!("shown");
        });
        let text = lines.take();
        assert!(!text.contains("hidden") && text.contains("shown"), "{text}");
    }

    #[test]
    fn libraries_are_quiet_at_info() {
        let (subscriber, _handle, lines) = logger(LogFormat::Human, LogLevel::Info, None);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "hyper::proto", "chatter");
            tracing::warn!(target: "hyper::proto", "trouble");
        });
        let text = lines.take();
        assert!(!text.contains("chatter") && text.contains("trouble"), "{text}");
    }

    #[test]
    fn a_filter_that_is_none_names_its_variable() {
        let settings = LogSettings { format: LogFormat::Human, level: LogLevel::Info };
        let variable = Some(("WIRESOCKET_LOG", "wiresocket=loud".to_owned()));
        let Err(error) = subscriber(settings, variable, false, io::sink) else { panic!("accepted") };
        assert!(error.to_string().contains("WIRESOCKET_LOG=wiresocket=loud"), "{error}");
    }

    #[test]
    fn targets_without_a_token_are_untouched() {
        for target in ["/", "/notes", "/discovery?documentName=notes", "/a?b=c&d", "/keys?x=eyes", "/?", ""] {
            assert!(matches!(redact_target(target), Cow::Borrowed(same) if same == target), "{target}");
        }
    }

    #[test]
    fn no_form_of_a_token_in_a_target_survives() {
        for form in [
            "/notes?token=SECRET",
            "/notes?access_token=SECRET&x=1",
            "/?token=SECRET/notes",
            "/?x=1&TOKEN=SECRET",
            "/?%74oken=SECRET",
            "/?access%5Ftoken=SECRET",
            "/?x=1;token=SECRET",
            "/notes?a?token=SECRET",
            "/?refresh_token=a/b;c=SECRET",
            "/?token+=SECRET",
            "/SECRET",
            "/SECRET/notes?x=1",
            "/notes?x=SECRET",
            "/notes?SECRET",
            "/notes#token=SECRET",
        ] {
            let redacted = redact_target(&form.replace("SECRET", JWT)).into_owned();
            assert!(
                !redacted.contains("c2lnbmF0dXJl") && redacted.contains(REDACTED),
                "{form} became {redacted}"
            );
        }
        for form in ["/?token=abc", "/?token=abc/notes", "/?token==abc", "/x?a=b&access_token=abc&c=d"] {
            let redacted = redact_target(form);
            assert!(!redacted.contains("abc"), "{form} became {redacted}");
        }
    }

    #[test]
    fn what_is_harmless_stays_readable() {
        assert_eq!(redact_target("/notes?x=1&token=abc&y=2"), "/notes?x=1&token=[redacted]&y=2");
    }
}
