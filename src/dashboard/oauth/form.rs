//! The fields of a request, and the credentials in its header.

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::error::OAuthError;

pub(super) type FormBody = Result<Form<Vec<(String, String)>>, FormRejection>;

/// The fields of a form, each at most once (RFC 6749 section 3.2); one without a value counts as left out.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub fn of(body: FormBody) -> Result<Self, OAuthError> {
        let Form(mut fields) = body.map_err(|rejection| {
            let what = rejection.body_text();
            OAuthError::invalid_request(format!(
                "the body is no form; send fields as application/x-www-form-urlencoded ({what})"
            ))
        })?;
        fields.retain(|(_, value)| !value.is_empty());
        if fields.iter().any(|(_, value)| value.contains('\0')) {
            return Err(OAuthError::invalid_request("a field holds a zero byte"));
        }
        for (index, (name, _)) in fields.iter().enumerate() {
            if fields[..index].iter().any(|(earlier, _)| earlier == name) {
                let name: String = name.chars().take(40).collect();
                return Err(OAuthError::invalid_request(format!("the field {name} comes twice")));
            }
        }
        Ok(Self(fields))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub fn required(&self, name: &str) -> Result<&str, OAuthError> {
        self.get(name).ok_or_else(|| OAuthError::invalid_request(format!("the field {name} is missing")))
    }
}

/// User and password of HTTP Basic, if the request has it: as they stand, not yet form-decoded.
pub(super) fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, OAuthError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let wrong =
        || OAuthError::invalid_request("the Authorization header is not HTTP Basic of a name and a secret");
    let (scheme, encoded) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(wrong());
    }
    let decoded = STANDARD.decode(encoded.trim()).map_err(|_| wrong())?;
    let decoded = String::from_utf8(decoded).ok().filter(|text| !text.contains('\0')).ok_or_else(wrong)?;
    let (user, password) = decoded.split_once(':').ok_or_else(wrong)?;
    Ok(Some((user.to_owned(), password.to_owned())))
}

/// RFC 6749 section 2.3.1: client id and secret are form-encoded before they become Basic.
pub(super) fn form_decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digits = std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?;
                decoded.push(u8::from_str_radix(digits, 16).ok()?);
                at += 2;
            }
            b'+' => decoded.push(b' '),
            byte => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8(decoded).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_encode_is_decoded() {
        assert_eq!(form_decoded("use1%2Dab%5Fc+d").as_deref(), Some("use1-ab_c d"));
        assert_eq!(form_decoded("plain-text_1").as_deref(), Some("plain-text_1"));
        for broken in ["%", "%2", "%zz", "%ff", "a%C3", "a%00"] {
            assert_eq!(form_decoded(broken), None, "{broken}");
        }
    }
}
