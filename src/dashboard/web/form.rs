//! Forms: what was typed, what is wrong with it, and fields that show both.

use std::collections::BTreeMap;

use askama::Template;

/// What was typed, and what is wrong with it, by field.
#[derive(Debug, Default)]
pub(super) struct Fields {
    values: BTreeMap<String, String>,
    errors: BTreeMap<&'static str, String>,
    /// What is wrong with the form as a whole.
    pub error: Option<String>,
}

/// One field with its label, hint and error, ready to be put into a page.
#[derive(Debug, Template)]
#[template(path = "field.html")]
pub(super) struct Field<'a> {
    name: &'a str,
    label: &'a str,
    kind: &'a str,
    value: &'a str,
    autocomplete: &'a str,
    hint: &'a str,
    error: &'a str,
    placeholder: &'a str,
    required: bool,
    spelled: bool,
}

impl Fields {
    /// Of a field that comes twice, the first counts.
    pub fn new(pairs: Vec<(String, String)>) -> Self {
        let mut values = BTreeMap::new();
        for (name, value) in pairs {
            values.entry(name).or_insert(value);
        }
        Self { values, ..Self::default() }
    }

    pub fn get(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.values.insert(name.to_owned(), value.into());
    }

    /// So that it does not come back in the page: passwords, codes.
    pub fn forget(&mut self, name: &str) {
        self.values.remove(name);
    }

    pub fn wrong(&mut self, name: &'static str, what: impl ToString) {
        self.errors.insert(name, sentence(&what.to_string()));
    }

    pub fn wrong_whole(&mut self, what: impl ToString) {
        self.error = Some(sentence(&what.to_string()));
    }

    pub fn error_of(&self, name: &str) -> &str {
        self.errors.get(name).map_or("", String::as_str)
    }

    pub fn is_good(&self) -> bool {
        self.errors.is_empty() && self.error.is_none()
    }

    /// A field of one line that must be filled in.
    pub fn text<'a>(&'a self, name: &'a str, label: &'a str) -> Field<'a> {
        Field {
            name,
            label,
            kind: "text",
            value: self.get(name),
            autocomplete: "off",
            hint: "",
            error: self.error_of(name),
            placeholder: "",
            required: true,
            spelled: false,
        }
    }

    pub fn email<'a>(&'a self, name: &'a str, label: &'a str) -> Field<'a> {
        Field { kind: "email", autocomplete: "username", ..self.text(name, label) }
    }

    pub fn password<'a>(&'a self, name: &'a str, label: &'a str, autocomplete: &'a str) -> Field<'a> {
        Field { kind: "password", value: "", autocomplete, ..self.text(name, label) }
    }

    pub fn number<'a>(&'a self, name: &'a str, label: &'a str) -> Field<'a> {
        Field { kind: "number", ..self.text(name, label) }
    }

    pub fn date<'a>(&'a self, name: &'a str, label: &'a str) -> Field<'a> {
        Field { kind: "date", required: false, ..self.text(name, label) }
    }
}

impl<'a> Field<'a> {
    pub fn hint(self, hint: &'a str) -> Self {
        Self { hint, ..self }
    }

    pub fn completes(self, autocomplete: &'a str) -> Self {
        Self { autocomplete, ..self }
    }

    pub fn like(self, placeholder: &'a str) -> Self {
        Self { placeholder, ..self }
    }

    pub fn optional(self) -> Self {
        Self { required: false, ..self }
    }

    /// For names of people and things.
    pub fn spelled(self) -> Self {
        Self { spelled: true, ..self }
    }
}

/// A domain's error as a sentence of a page.
pub(super) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", characters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_is_escaped_and_what_is_wrong_stands_beside_it() {
        let mut fields =
            Fields::new(vec![("name".into(), "<b>\"x\"".into()), ("name".into(), "second".into())]);
        fields.wrong("name", "an app needs a name");
        let html = fields.text("name", "Name").to_string();
        assert!(!html.contains("<b>") && html.contains("&#60;b&#62;"), "{html}");
        assert!(html.contains("An app needs a name.") && html.contains("aria-invalid=\"true\""), "{html}");
        assert!(!fields.is_good());
    }

    #[test]
    fn a_password_never_comes_back() {
        let fields = Fields::new(vec![("password".into(), "correct horse".into())]);
        assert!(!fields.password("password", "Password", "current-password").to_string().contains("correct"));
    }
}
