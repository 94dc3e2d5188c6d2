//! How long documents are kept: a word, or seconds.

use std::time::Duration;

use super::domain::{Domain, Wrong};
use super::literal::Literal;
use super::word::quoted;
use crate::journal::Retention;

const SESSION: &str = "session";
const FOREVER: &str = "forever";

/// The longest time that is written as one.
const SECONDS_MAX: u64 = 100 * 365 * 86_400;

/// `"session"`, `"forever"`, or seconds.
pub(super) struct Kept;

impl Domain for Kept {
    type Value = Retention;

    fn read(&self, literal: &Literal) -> Result<Retention, Vec<Wrong>> {
        match literal.as_text() {
            Some(SESSION) => return Ok(Retention::Session),
            Some(FOREVER) => return Ok(Retention::ForEver),
            _ => {}
        }
        let seconds = literal.as_integer().and_then(|seconds| u64::try_from(seconds).ok());
        match seconds.filter(|seconds| (1..=SECONDS_MAX).contains(seconds)) {
            Some(seconds) => Ok(Retention::For(Duration::from_secs(seconds))),
            None => Err(Wrong::whole(literal)),
        }
    }

    fn write(&self, value: &Retention) -> Option<String> {
        Some(match value {
            Retention::Session => quoted(SESSION),
            Retention::For(time) => time.as_secs().to_string(),
            Retention::ForEver => quoted(FOREVER),
        })
    }

    fn allowed(&self) -> String {
        format!(
            "\"{SESSION}\" (for the grace period), \"{FOREVER}\", or a whole number of seconds from 1 to {SECONDS_MAX}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_or_seconds() {
        let read = |literal: Literal| Kept.read(&literal).ok();
        assert_eq!(read(Literal::Text("session".into())), Some(Retention::Session));
        assert_eq!(read(Literal::Bare("forever".into())), Some(Retention::ForEver));
        assert_eq!(read(Literal::Bare("60".into())), Some(Retention::For(Duration::from_secs(60))));
        assert_eq!(read(Literal::Integer(86_400)), Some(Retention::For(Duration::from_secs(86_400))));
        for wrong in
            [Literal::Integer(0), Literal::Text("a day".into()), Literal::Float(1.5), Literal::Integer(-1)]
        {
            assert_eq!(read(wrong.clone()), None, "{wrong:?}");
        }
        for value in [Retention::Session, Retention::ForEver, Retention::For(Duration::from_secs(9))] {
            let printed = Kept.write(&value).unwrap();
            let literal =
                printed.parse().map_or(Literal::Text(printed.trim_matches('"').into()), Literal::Integer);
            assert_eq!(Kept.read(&literal), Ok(value));
        }
    }
}
