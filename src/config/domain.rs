//! What a key may hold: how a literal is read into its field, printed back, and described when it does not fit.

use super::literal::{Literal, Located};

/// The values that a key takes.
pub(super) trait Domain: Send + Sync + 'static {
    type Value: Clone;

    /// The typed value, or every part of the literal that doesn't fit.
    fn read(&self, literal: &Literal) -> Result<Self::Value, Vec<Wrong>>;

    /// The value as TOML; `None` when it is not set, which TOML can't say.
    fn write(&self, value: &Self::Value) -> Option<String>;

    /// Completes "must be …", with the unit.
    fn allowed(&self) -> String;
}

/// A literal, or an item of one, that is not in the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Where the item starts, when it is not the whole value.
    pub offset: Option<usize>,
    pub shown: String,
    /// What more there is to say than that it must be of the domain.
    pub hint: Option<String>,
}

impl Wrong {
    pub fn whole(literal: &Literal) -> Vec<Self> {
        vec![Self { offset: None, shown: literal.shown(), hint: None }]
    }

    pub fn because(literal: &Literal, hint: String) -> Vec<Self> {
        vec![Self { offset: None, shown: literal.shown(), hint: Some(hint) }]
    }

    pub fn item(item: &Located, hint: Option<String>) -> Self {
        Self { offset: Some(item.offset), shown: item.literal.shown(), hint }
    }
}

/// A key that may be left out.
pub(super) struct Optional<D>(pub D);

impl<D: Domain> Domain for Optional<D> {
    type Value = Option<D::Value>;

    fn read(&self, literal: &Literal) -> Result<Self::Value, Vec<Wrong>> {
        match literal {
            // VARIABLE= is how a shell or a container file says "not set"
            Literal::Bare(text) if text.is_empty() => Ok(None),
            _ => self.0.read(literal).map(Some),
        }
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        value.as_ref().and_then(|value| self.0.write(value))
    }

    fn allowed(&self) -> String {
        self.0.allowed()
    }
}

/// A number of which 0 stands for "not given": no limit, or one that is derived.
pub(super) struct OrZero<D>(pub D, pub &'static str);

impl<D: Domain> Domain for OrZero<D> {
    type Value = Option<D::Value>;

    fn read(&self, literal: &Literal) -> Result<Self::Value, Vec<Wrong>> {
        if literal.as_integer() == Some(0) { Ok(None) } else { self.0.read(literal).map(Some) }
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        value.as_ref().map_or_else(|| Some("0".to_owned()), |value| self.0.write(value))
    }

    fn allowed(&self) -> String {
        format!("{}, or 0 ({})", self.0.allowed(), self.1)
    }
}
