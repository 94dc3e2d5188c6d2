//! The claims of an access token: from parsed JSON to types, every rule of form in one place.
//!
//! What is checked here needs neither a clock nor the node's configuration; `iss`, `exp` and `nbf` are compared in
//! `verify`. Unknown claims are ignored (RFC 7519 section 4), known ones of a wrong type refuse the token.

use smallvec::SmallVec;
use uuid::Uuid;

use super::grant::{Grant, Limits};
use super::json::{Document, Value};
use super::permissions::{DOCUMENTS_MAX, DocumentPattern, Permissions};
use super::token_error::TokenError;
use crate::protocol::document::AppId;

/// The audience and the scope of every access token.
pub(super) const API: &str = "WireSocket.API";

/// The scope of a token that changes nothing.
const READ_ONLY: &str = "WireSocket.ReadOnly";

/// The last second of the year 9999: what is later is no date but a unit mistaken (milliseconds) or an attack.
const UNIX_S_MAX: u64 = 253_402_300_799;

/// The claims of one token, of the right form.
pub(super) struct Claims<'a> {
    pub(super) issuer: &'a str,
    subject: &'a str,
    app: AppId,
    region: &'a str,
    db_code: &'a str,
    allowed_domains: SmallVec<[Box<str>; 3]>,
    limits: Limits,
    permissions: Permissions,
    issued_unix_s: u64,
    pub(super) expires_unix_s: u64,
    pub(super) not_before_unix_s: u64,
    token_id: Option<&'a str>,
}

/// The tenant that an unverified payload names: only good for finding the key that must have signed it.
pub(super) fn tenant(payload: &Document<'_>) -> Result<Uuid, TokenError> {
    guid(payload.get("tenantid"), "tenantid")
}

impl<'a> Claims<'a> {
    pub(super) fn parse(payload: &Document<'a>) -> Result<Self, TokenError> {
        if payload.has_duplicate_key() {
            return Err(TokenError::DuplicateClaim);
        }
        check_audience(payload.get("aud"))?;
        let read_only = check_scope(payload)?;
        let issued_unix_s = match payload.get("iat") {
            None => 0,
            Some(issued) => numeric_date(issued, f64::floor).ok_or(TokenError::Malformed("iat"))?,
        };
        // A token is good from the whole second after `nbf` to the whole second before `exp`.
        let expires = payload.get("exp").ok_or(TokenError::Missing("exp"))?;
        let expires_unix_s = numeric_date(expires, f64::floor).ok_or(TokenError::Malformed("exp"))?;
        let not_before_unix_s = match payload.get("nbf") {
            None => 0,
            Some(value) => numeric_date(value, f64::ceil).ok_or(TokenError::Malformed("nbf"))?,
        };
        let token_id = match payload.get("jti") {
            None => None,
            Some(value) => Some(value.as_str().ok_or(TokenError::Malformed("jti"))?),
        };
        Ok(Self {
            issuer: text(payload.get("iss"), "iss")?,
            subject: text(payload.get("sub"), "sub")?,
            app: AppId { tenant: tenant(payload)?, app: guid(payload.get("appId"), "appId")? },
            region: text(payload.get("licenseRegionCode"), "licenseRegionCode")?,
            db_code: text(payload.get("dbCode"), "dbCode")?,
            allowed_domains: allowed_domains(payload)?,
            limits: limits(payload.get("limits"))?,
            permissions: Permissions { read_only, documents: documents(payload.get("documents"))? },
            issued_unix_s,
            expires_unix_s,
            not_before_unix_s,
            token_id,
        })
    }

    pub(super) fn into_grant(self, key_id: &str) -> Grant {
        Grant {
            app: self.app,
            client_id: self.subject.into(),
            key_id: key_id.into(),
            limits: self.limits,
            permissions: self.permissions,
            region: self.region.into(),
            db_code: self.db_code.into(),
            allowed_domains: self.allowed_domains,
            issued_unix_s: self.issued_unix_s,
            expires_unix_s: self.expires_unix_s,
            token_id: self.token_id.map(Into::into),
        }
    }
}

/// A required string that is not empty.
fn text<'a>(value: Option<Value<'_, 'a>>, claim: &'static str) -> Result<&'a str, TokenError> {
    match value.ok_or(TokenError::Missing(claim))?.as_str() {
        Some(text) if !text.is_empty() => Ok(text),
        _ => Err(TokenError::Malformed(claim)),
    }
}

/// A GUID in its hyphenated form, of any case.
fn guid(value: Option<Value<'_, '_>>, claim: &'static str) -> Result<Uuid, TokenError> {
    let text = text(value, claim)?;
    // Of the forms that the parser knows, only the hyphenated one has 36 characters.
    let hyphenated = text.len() == 36;
    Uuid::try_parse(text).ok().filter(|_| hyphenated).ok_or(TokenError::Malformed(claim))
}

/// RFC 7519 section 2: seconds since the epoch, integer or not. `round` says which whole second a fraction counts as.
fn numeric_date(value: Value<'_, '_>, round: fn(f64) -> f64) -> Option<u64> {
    let seconds = match (value.as_u64(), value.as_f64()) {
        (Some(seconds), _) => seconds,
        // The range is checked before the conversion, which therefore loses nothing; a NaN is in no range.
        (None, Some(seconds)) if (0.0..=UNIX_S_MAX as f64).contains(&seconds) => round(seconds) as u64,
        _ => return None,
    };
    (seconds <= UNIX_S_MAX).then_some(seconds)
}

/// The string `WireSocket.API`, or an array of just it.
fn check_audience(value: Option<Value<'_, '_>>) -> Result<(), TokenError> {
    let value = value.ok_or(TokenError::Missing("aud"))?;
    let audience = match value.elements() {
        None => value.as_str(),
        Some(mut elements) => match (elements.next(), elements.next()) {
            (Some(only), None) => only.as_str(),
            _ => None,
        },
    };
    if audience == Some(API) { Ok(()) } else { Err(TokenError::Audience) }
}

/// `scope` or `scp`: `WireSocket.API` as a whole word of a space-delimited string (RFC 6749 section 3.3), or as an element
/// of an array. Says whether `WireSocket.ReadOnly` is there too.
fn check_scope(payload: &Document<'_>) -> Result<bool, TokenError> {
    let (mut is_there, mut granted, mut read_only) = (false, false, false);
    for claim in ["scope", "scp"] {
        let Some(value) = payload.get(claim) else { continue };
        is_there = true;
        let mut see = |word: &str| {
            granted |= word == API;
            read_only |= word == READ_ONLY;
        };
        match (value.as_str(), value.elements()) {
            (Some(words), _) => words.split(' ').for_each(see),
            (None, Some(elements)) => {
                for element in elements {
                    see(element.as_str().ok_or(TokenError::Malformed(claim))?);
                }
            }
            (None, None) => return Err(TokenError::Malformed(claim)),
        }
    }
    match (is_there, granted) {
        (_, true) => Ok(read_only),
        (true, false) => Err(TokenError::Scope),
        (false, false) => Err(TokenError::Missing("scope")),
    }
}

/// Names and prefixes of the documents that the token opens. An empty list opens none.
fn documents(value: Option<Value<'_, '_>>) -> Result<Option<Box<[DocumentPattern]>>, TokenError> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let malformed = TokenError::Malformed("documents");
    let Some(elements) = value.elements() else { return Err(malformed) };
    let pattern = |element: Value<'_, '_>| element.as_str().and_then(|text| text.parse().ok());
    // One more than there may be, so that too many are noticed and not collected.
    let patterns: Option<Vec<_>> = elements.take(DOCUMENTS_MAX + 1).map(pattern).collect();
    match patterns {
        Some(patterns) if patterns.len() <= DOCUMENTS_MAX => Ok(Some(patterns.into())),
        _ => Err(malformed),
    }
}

/// The domains are kept as written but for case: one that is malformed equals no Origin, so it opens nothing.
fn allowed_domains(payload: &Document<'_>) -> Result<SmallVec<[Box<str>; 3]>, TokenError> {
    let mut domains = SmallVec::new();
    for claim in ["allowed_domain_1", "allowed_domain_2", "allowed_domain_3"] {
        let Some(value) = payload.get(claim).filter(|value| !value.is_null()) else { continue };
        let domain = value.as_str().ok_or(TokenError::Malformed(claim))?;
        if !domain.is_empty() {
            domains.push(domain.to_ascii_lowercase().into());
        }
    }
    Ok(domains)
}

fn limits(value: Option<Value<'_, '_>>) -> Result<Limits, TokenError> {
    let value = value.ok_or(TokenError::Missing("limits"))?;
    value.members().ok_or(TokenError::Malformed("limits"))?;
    let limit = |key: &str, claim: &'static str| {
        let mut members = value.members().into_iter().flatten();
        let (_, value) = members.find(|(name, _)| *name == key).ok_or(TokenError::Missing(claim))?;
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.filter(|&number| number > 0).ok_or(TokenError::Malformed(claim))
    };
    Ok(Limits {
        connections_max: limit("maxConnections", "limits.maxConnections")?,
        documents_max: limit("maxDocuments", "limits.maxDocuments")?,
        users_per_document_max: limit("maxUsersPerDoc", "limits.maxUsersPerDoc")?,
        ops_per_minute: limit("opsPerMinute", "limits.opsPerMinute")?,
    })
}
