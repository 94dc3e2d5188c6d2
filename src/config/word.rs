//! Values that are written as text: names, choices, addresses, paths, and whatever else parses from a string.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use super::domain::{Domain, Wrong};
use super::literal::Literal;

/// Text as a TOML basic string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// `true` or `false`.
pub(super) struct Flag;

impl Domain for Flag {
    type Value = bool;

    fn read(&self, literal: &Literal) -> Result<bool, Vec<Wrong>> {
        literal.as_boolean().ok_or_else(|| Wrong::whole(literal))
    }

    fn write(&self, value: &bool) -> Option<String> {
        Some(value.to_string())
    }

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }
}

/// One of a few words.
pub(super) struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Clone + PartialEq + Send + Sync> Domain for Choice<T> {
    type Value = T;

    fn read(&self, literal: &Literal) -> Result<T, Vec<Wrong>> {
        let word = literal.as_text().ok_or_else(|| Wrong::whole(literal))?;
        let found = self.0.iter().find(|(name, _)| *name == word);
        found.map(|(_, value)| value.clone()).ok_or_else(|| Wrong::whole(literal))
    }

    fn write(&self, value: &T) -> Option<String> {
        self.0.iter().find(|(_, known)| known == value).map(|(name, _)| quoted(name))
    }

    fn allowed(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(name, _)| quoted(name)).collect();
        words.join(" or ")
    }
}

/// Whatever its type parses from a string and prints back.
pub(super) struct Parsed<T> {
    allowed: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

/// A type's own `FromStr`, whose error says what is wrong.
pub(super) fn parsed<T>(allowed: &'static str) -> Parsed<T>
where
    T: FromStr<Err: Display>,
{
    Parsed { allowed, parse: |text| text.parse().map_err(|error: T::Err| error.to_string()) }
}

impl<T: Clone + Display + 'static> Domain for Parsed<T> {
    type Value = T;

    fn read(&self, literal: &Literal) -> Result<T, Vec<Wrong>> {
        let text = literal.as_text().ok_or_else(|| Wrong::whole(literal))?;
        (self.parse)(text).map_err(|why| Wrong::because(literal, why))
    }

    fn write(&self, value: &T) -> Option<String> {
        Some(quoted(&value.to_string()))
    }

    fn allowed(&self) -> String {
        self.allowed.to_owned()
    }
}

/// A word that labels something: it ends up in JSON, metrics and logs, so it holds nothing that needs quoting there.
pub(super) fn label() -> Parsed<String> {
    let parse = |text: &str| {
        let fits = (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
        if fits {
            Ok(text.to_owned())
        } else {
            Err("it has other characters, or none, or too many".to_owned())
        }
    };
    Parsed { allowed: "1 to 128 of the characters A-Z a-z 0-9 - _ . :", parse }
}

/// `*`, or an Origin as browsers send it.
pub(super) fn cors_origin() -> Parsed<String> {
    let parse = |text: &str| {
        if text == "*" {
            return Ok(text.to_owned());
        }
        let (scheme, authority) = text.split_once("://").ok_or("it has no scheme")?;
        if !matches!(scheme, "http" | "https") {
            return Err("its scheme is neither http nor https".to_owned());
        }
        if authority.is_empty() || authority.contains(['/', '?', '#', '@', '*']) || !authority.is_ascii() {
            return Err("after the scheme stands a host and perhaps a port, nothing else".to_owned());
        }
        Ok(text.to_ascii_lowercase())
    };
    Parsed { allowed: "\"*\" or an origin such as \"https://app.example.com\"", parse }
}

/// The path of something; whether it exists is found out when it is opened.
pub(super) struct PathOf(pub &'static str);

impl Domain for PathOf {
    type Value = PathBuf;

    fn read(&self, literal: &Literal) -> Result<PathBuf, Vec<Wrong>> {
        let path = literal.as_text().filter(|path| !path.is_empty() && !path.contains('\0'));
        path.map(PathBuf::from).ok_or_else(|| Wrong::whole(literal))
    }

    fn write(&self, value: &PathBuf) -> Option<String> {
        Some(quoted(&value.to_string_lossy()))
    }

    fn allowed(&self) -> String {
        format!("the path of {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_needs_no_quoting_anywhere() {
        assert_eq!(label().read(&Literal::Text("aws-us-east-1".into())), Ok("aws-us-east-1".into()));
        for wrong in ["", "a b", "a\"b", "é", &"a".repeat(129)] {
            assert!(label().read(&Literal::Text(wrong.into())).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cors_origin_is_an_origin() {
        let read = |text: &str| cors_origin().read(&Literal::Text(text.into()));
        assert_eq!(read("https://App.example.com:8443"), Ok("https://app.example.com:8443".into()));
        assert_eq!(read("*"), Ok("*".into()));
        for wrong in ["app.example.com", "https://", "https://a/", "ftp://a", "https://*.a"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_choice_lists_its_words() {
        let domain = Choice(&[("close", true), ("keep", false)]);
        assert_eq!(domain.allowed(), r#""close" or "keep""#);
        assert_eq!(domain.write(&false).as_deref(), Some(r#""keep""#));
        assert!(domain.read(&Literal::Text("Close".into())).is_err());
    }

    #[test]
    fn quoting_survives_any_text() {
        for text in ["a\"b", "back\\slash", "line\nbreak", "it's"] {
            let document = format!("v = {}", quoted(text));
            let table: toml::Table = document.parse().unwrap();
            assert_eq!(table["v"].as_str(), Some(text), "{document}");
        }
    }
}
