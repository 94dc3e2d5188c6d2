//! Secrets that addresses carry, taken out of whatever is shown: tables, JSON, pages, errors.
//!
//! A query parameter is a secret by its name, and so is what stands before the `@` of an address. What a token
//! looks like is not known here.

use std::borrow::Cow;

/// In place of a secret.
const REDACTED: &str = "REDACTED";
/// A parameter whose name contains one of these is a secret.
const SECRET_NAMES: [&str; 8] =
    ["token", "secret", "password", "passwd", "jwt", "auth", "signature", "credential"];
/// These are too short to be looked for within a name.
const SECRET_WHOLE_NAMES: [&str; 5] = ["key", "apikey", "api_key", "sig", "code"];

/// The text without the secrets of the addresses in it.
pub fn redacted(text: &str) -> Cow<'_, str> {
    if !text.contains(['=', '@']) {
        return text.into();
    }
    without_parameters(&without_users(text)).into()
}

/// `scheme://user:password@host` becomes `scheme://REDACTED@host`.
fn without_users(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(ends_authority).unwrap_or(after.len());
        rest = after;
        if let Some(user_end) = after[..end].rfind('@') {
            out.push_str(REDACTED);
            rest = &after[user_end..];
        }
    }
    out + rest
}

fn ends_authority(character: char) -> bool {
    matches!(character, '/' | '?' | '#' | '"' | '\'') || character.is_whitespace()
}

/// `?token=T&a=1` becomes `?token=REDACTED&a=1`. A fragment may hold parameters too.
fn without_parameters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['?', '&', '#', ';']) {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        rest = after;
        let name_end = after.find(|c: char| ends_parameter(c) || c == '=').unwrap_or(after.len());
        let Some(value) = after[name_end..].strip_prefix('=') else { continue };
        if is_secret(&after[..name_end]) {
            let value_end = value.find(ends_parameter).unwrap_or(value.len());
            out.push_str(&after[..=name_end]);
            // What stands for a token is none.
            let is_template = value.starts_with('{');
            out.push_str(if is_template { &value[..value_end] } else { REDACTED });
            rest = &value[value_end..];
        }
    }
    out + rest
}

fn ends_parameter(character: char) -> bool {
    matches!(character, '&' | '#' | ';' | '"' | '\'' | '<' | '>') || character.is_whitespace()
}

fn is_secret(name: &str) -> bool {
    let name = decoded(name).to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret)) || SECRET_WHOLE_NAMES.contains(&name.as_str())
}

/// Without percent-encoding, as the server will read it.
fn decoded(name: &str) -> String {
    let mut bytes = name.bytes();
    let mut out = Vec::with_capacity(name.len());
    while let Some(byte) = bytes.next() {
        let hex = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let mut ahead = bytes.clone();
        match (byte, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_out_of_addresses_wherever_they_stand() {
        for (text, shown) in [
            ("ws://h:1/p?a=1&token=T.x-y", "ws://h:1/p?a=1&token=REDACTED"),
            ("ws://h:1/?access_token=T&b=2", "ws://h:1/?access_token=REDACTED&b=2"),
            ("ws://h/?Access%5FToken=T#key=K", "ws://h/?Access%5FToken=REDACTED#key=REDACTED"),
            (
                "\"ws://h?token=T\" is not; see \"/d?token=U\"",
                "\"ws://h?token=REDACTED\" is not; see \"/d?token=REDACTED\"",
            ),
            ("ws://me:pw@h:1/d", "ws://REDACTED@h:1/d"),
            ("https://a@b@c/ and x@y", "https://REDACTED@c/ and x@y"),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }

    #[test]
    fn what_is_no_secret_is_left_as_it_is() {
        for text in
            ["ws://h:1/p?a=1&monkey=2", "a = b & c", "/d/{document}?token={token}", "50 %", "", "?token&x=1"]
        {
            assert_eq!(redacted(text), text);
        }
    }
}
