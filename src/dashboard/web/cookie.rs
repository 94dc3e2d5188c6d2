//! The one cookie: 256 random bits that name a session, or, before log-in, just a browser.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::config::Issuer;
use crate::dashboard::random;

/// Over https, browsers take a `__Host-` cookie from this host alone, and send it to no other.
const SECURE_NAME: &str = "__Host-wiresocket";
/// For plain http on loopback, where browsers refuse the prefix.
const PLAIN_NAME: &str = "wiresocket";
/// 32 bytes in base64url.
const ID_CHARS: usize = 43;

fn is_secure(issuer: &Issuer) -> bool {
    issuer.as_str().starts_with("https://")
}

pub(in crate::dashboard) fn name(issuer: &Issuer) -> &'static str {
    if is_secure(issuer) { SECURE_NAME } else { PLAIN_NAME }
}

/// The id in the request's cookie, if it has the form of one.
pub(in crate::dashboard) fn read(headers: &HeaderMap, issuer: &Issuer) -> Option<String> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, id) = pairs.find(|(found, _)| *found == name(issuer))?;
    let is_id =
        id.len() == ID_CHARS && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    is_id.then(|| id.to_owned())
}

/// `Set-Cookie` for an id. It goes when the browser is closed; the database ends it earlier.
pub(super) fn set(issuer: &Issuer, id: &str) -> HeaderValue {
    let secure = if is_secure(issuer) { "; Secure" } else { "" };
    let text = format!("{}={id}; Path=/; HttpOnly; SameSite=Lax{secure}", name(issuer));
    HeaderValue::from_str(&text).expect("an id is letters, digits, - and _")
}

/// What a form of this browser must hold. Not the id itself: a page is easier to get at than a cookie.
pub(in crate::dashboard) fn form_token(id: &str) -> String {
    random::fingerprint(&format!("form/{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_and_secure_come_with_https() {
        let id = random::secret("");
        let secure = set(&"https://a.example".parse().unwrap(), &id);
        let secure = secure.to_str().unwrap();
        assert!(secure.starts_with("__Host-wiresocket=") && secure.ends_with("; Secure"), "{secure}");
        let plain = set(&"http://127.0.0.1:8090".parse().unwrap(), &id);
        let plain = plain.to_str().unwrap();
        assert!(plain.starts_with("wiresocket=") && !plain.contains("Secure"), "{plain}");
        for cookie in [secure, plain] {
            assert!(
                cookie.contains("; HttpOnly")
                    && cookie.contains("; SameSite=Lax")
                    && cookie.contains("; Path=/;")
            );
        }
    }

    #[test]
    fn an_id_is_found_among_other_cookies_and_nothing_else_is_taken_for_one() {
        let issuer: Issuer = "https://a.example".parse().unwrap();
        let id = random::secret("");
        let read = |text: String| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, text.parse().unwrap());
            read(&headers, &issuer)
        };
        assert_eq!(read(format!("a=b; __Host-wiresocket={id}; c=d")), Some(id.clone()));
        assert_eq!(read(format!("wiresocket={id}")), None, "the plain name counts on http only");
        assert_eq!(read("__Host-wiresocket=short".to_owned()), None);
        assert_ne!(form_token(&id), id);
    }
}
