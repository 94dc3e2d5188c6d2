//! A value as it was written, with its place, before anything is known of the key it belongs to.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One value of the file or the environment.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Text(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    List(Vec<Located>),
    /// From the environment, where nothing says what type is meant: each domain reads it as its own.
    Bare(String),
    /// What no key takes: a table, a date.
    Other(&'static str),
}

/// A value and the byte of the text where it starts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Located {
    pub offset: usize,
    pub literal: Literal,
}

impl Literal {
    pub fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(digits) => i128::from_str_radix(digits.as_str(), digits.radix())
                .map_or(Self::Other("an integer of more than 128 bits"), Self::Integer),
            DeValue::Float(digits) => digits.as_str().parse().map_or(Self::Other("a number"), Self::Float),
            DeValue::Boolean(value) => Self::Boolean(*value),
            DeValue::Datetime(_) => Self::Other("a date"),
            DeValue::Array(items) => Self::List(
                items
                    .iter()
                    .map(|item| Located { offset: item.span().start, literal: Self::of(item.get_ref()) })
                    .collect(),
            ),
            DeValue::Table(_) => Self::Other("a table"),
        }
    }

    /// The value as its author would recognise it, cut short where it is long.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{}\"", shortened(text)),
            Self::Bare(text) => shortened(text),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => format!("{value:?}"),
            Self::Boolean(value) => value.to_string(),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| item.literal.shown()).collect();
                shortened(&format!("[{}]", items.join(", ")))
            }
            Self::Other(what) => (*what).to_owned(),
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Bare(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_integer(&self) -> Option<i128> {
        match self {
            Self::Integer(value) => Some(*value),
            Self::Bare(text) => text.trim().replace('_', "").parse().ok(),
            _ => None,
        }
    }

    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Bare(text) => text.trim().parse().ok(),
            #[allow(clippy::cast_precision_loss)] // a range check follows, far below 2^53
            _ => self.as_integer().map(|value| value as f64),
        }
    }

    pub fn as_boolean(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            Self::Bare(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The items of a list. In the environment that is a TOML array, or items between commas.
    pub fn as_list(&self) -> Option<Vec<Located>> {
        match self {
            Self::List(items) => Some(items.clone()),
            Self::Bare(text) if text.trim_start().starts_with('[') => {
                let document = format!("list = {text}");
                let table = DeTable::parse(&document).ok()?;
                table.get_ref().get("list").map(Spanned::get_ref).and_then(|list| Self::of(list).as_list())
            }
            Self::Bare(text) => Some(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Located { offset: 0, literal: Self::Bare(item.to_owned()) })
                    .collect(),
            ),
            _ => None,
        }
    }
}

const SHOWN_CHARS_MAX: usize = 80;

fn shortened(text: &str) -> String {
    let printable = || text.chars().flat_map(char::escape_debug);
    if printable().count() <= SHOWN_CHARS_MAX {
        return printable().collect::<String>().replace("\\\"", "\"").replace("\\'", "'");
    }
    printable().take(SHOWN_CHARS_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(literal: &Literal) -> Vec<String> {
        literal.as_list().unwrap().iter().map(|item| item.literal.as_text().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_list_in_the_environment_is_comma_separated_or_toml() {
        assert_eq!(texts(&Literal::Bare("a, b,,c".into())), ["a", "b", "c"]);
        assert_eq!(texts(&Literal::Bare(r#"["a", "b"]"#.into())), ["a", "b"]);
        assert_eq!(texts(&Literal::Bare(String::new())), Vec::<String>::new());
        assert!(Literal::Bare("[1, ".into()).as_list().is_none());
    }

    #[test]
    fn what_is_shown_of_a_long_value_is_bounded_and_printable() {
        let shown = Literal::Text(format!("\u{7}{}", "x".repeat(1000))).shown();
        assert!(shown.chars().count() < 100 && shown.contains("\\u{7}") && shown.ends_with("…\""), "{shown}");
    }

    #[test]
    fn integers_keep_their_radix_and_underscores() {
        let table = DeTable::parse("a = 0x10\nb = 1_000").unwrap();
        let read = |key: &str| Literal::of(table.get_ref().get(key).unwrap().get_ref());
        assert_eq!((read("a"), read("b")), (Literal::Integer(16), Literal::Integer(1000)));
    }
}
