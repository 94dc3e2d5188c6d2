//! What a hostile or broken token looks like (RFC 8725), and that each one is refused for the right reason.

use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::permissions::{DOCUMENTS_MAX, Permissions};
use super::{Grant, KeySets, Limits, Policy, SigningKey, TokenError, Verifier};
use crate::protocol::close::{REASON_BYTES_MAX, Refusal};

/// The key of [`TENANT`], under the id `k1`. Keys are made once: in a debug build that takes a while.
pub(super) static SIGNER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());
/// The key of [`OTHER_TENANT`], under the id `k2`.
pub(super) static STRANGER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());

pub(super) const TENANT: Uuid = Uuid::from_u128(0x11111111_2222_4333_8444_555555555555);
pub(super) const OTHER_TENANT: Uuid = Uuid::from_u128(0x99999999_2222_4333_8444_555555555555);
pub(super) const NOW: u64 = 1_800_000_000;
pub(super) const LEEWAY: u64 = 30;

pub(super) fn policy() -> Policy {
    Policy { issuer: "https://issuer.example".to_owned(), leeway_s: LEEWAY, token_bytes_max: 8192 }
}

pub(super) fn keys() -> KeySets {
    KeySets::default()
        .with_tenant(TENANT, vec![SIGNER.public_key("k1").unwrap()])
        .with_tenant(OTHER_TENANT, vec![STRANGER.public_key("k2").unwrap()])
}

pub(super) fn verifier() -> Verifier {
    Verifier::new(policy(), Arc::new(keys()), 16, 42)
}

pub(super) fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "sub": "client-1", "aud": "WireSocket.API",
        "scope": "openid WireSocket.API", "tenantid": TENANT.to_string(),
        "appId": "AAAAAAAA-bbbb-4ccc-8ddd-EEEEEEEEEEEE", "licenseRegionCode": "aws-us-east-1",
        "dbCode": "shard-01-us-east-1", "allowed_domain_1": "MyApp.com", "allowed_domain_2": "",
        "allowed_domain_3": "localhost:3000", "exp": NOW + 900, "iat": NOW, "nbf": NOW, "jti": "token-1",
        "limits": { "maxConnections": 100, "maxDocuments": 50, "maxUsersPerDoc": 10, "opsPerMinute": 6000 },
    })
}

/// The claims with one replaced (`/limits/maxDocuments` reaches inside).
pub(super) fn with(pointer: &str, value: Value) -> Value {
    let mut claims = claims();
    match claims.pointer_mut(&format!("/{pointer}")) {
        Some(place) => *place = value,
        None => claims[pointer] = value,
    }
    claims
}

fn without(claim: &str) -> Value {
    let mut claims = claims();
    let (object, name) = match claim.split_once('/') {
        Some((outer, inner)) => (&mut claims[outer], inner),
        None => (&mut claims, claim),
    };
    object.as_object_mut().unwrap().remove(name).expect("the claim is among the valid ones");
    claims
}

pub(super) fn signed(claims: &Value) -> String {
    SIGNER.sign("k1", claims).unwrap()
}

fn verify(token: &str) -> Result<Arc<Grant>, TokenError> {
    verifier().verify(NOW, token)
}

/// A token with this header, signed by the right key, over valid claims.
fn headed(header: &str) -> Result<Arc<Grant>, TokenError> {
    verify(&SIGNER.sign_raw(header.as_bytes(), claims().to_string().as_bytes()).unwrap())
}

/// A token with this payload, signed by the right key.
fn carrying(payload: &[u8]) -> Result<Arc<Grant>, TokenError> {
    verify(&SIGNER.sign_raw(br#"{"alg":"RS256","kid":"k1"}"#, payload).unwrap())
}

/// The valid claims as text, with more members before the closing brace.
fn claims_and(more: &str) -> String {
    let text = claims().to_string();
    format!("{},{more}}}", &text[..text.len() - 1])
}

#[test]
fn a_valid_token_grants_what_it_says() {
    let grant = verify(&signed(&claims())).unwrap();
    assert_eq!(grant.app.tenant, TENANT);
    assert_eq!(grant.app.app.to_string(), "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee");
    let limits =
        Limits { connections_max: 100, documents_max: 50, users_per_document_max: 10, ops_per_minute: 6000 };
    assert_eq!(grant.limits, limits);
    assert_eq!((&*grant.client_id, &*grant.key_id), ("client-1", "k1"));
    assert_eq!((&*grant.region, &*grant.db_code), ("aws-us-east-1", "shard-01-us-east-1"));
    let domains: Vec<&str> = grant.allowed_domains.iter().map(|domain| &**domain).collect();
    assert_eq!(domains, ["myapp.com", "localhost:3000"]);
    assert_eq!((grant.expires_unix_s, grant.token_id.as_deref()), (NOW + 900, Some("token-1")));
}

#[test]
fn permissions_are_all_of_it_unless_the_token_says_less() {
    let permissions = |claims: &Value| verify(&signed(claims)).map(|grant| grant.permissions.clone());
    assert_eq!(permissions(&claims()), Ok(Permissions::default()));
    assert_eq!(permissions(&with("documents", Value::Null)), Ok(Permissions::default()));

    let both = "WireSocket.ReadOnly WireSocket.API";
    assert!(permissions(&with("scope", json!(both))).unwrap().read_only);
    assert!(permissions(&with("scope", json!(["WireSocket.API", "WireSocket.ReadOnly"]))).unwrap().read_only);
    assert!(permissions(&with("scp", json!("WireSocket.ReadOnly"))).unwrap().read_only, "in the other claim");
    assert!(!permissions(&with("scope", json!("WireSocket.API WireSocket.ReadOnlyX"))).unwrap().read_only);
    assert_eq!(permissions(&with("scope", json!("WireSocket.ReadOnly"))), Err(TokenError::Scope));

    let named = permissions(&with("documents", json!(["a", "b-*"]))).unwrap().documents.unwrap();
    assert_eq!(named.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a", "b-*"]);
    assert!(permissions(&with("documents", json!([]))).unwrap().documents.unwrap().is_empty());
    let many = |count: usize| with("documents", json!((0..count).map(|n| n.to_string()).collect::<Vec<_>>()));
    assert_eq!(permissions(&many(DOCUMENTS_MAX)).unwrap().documents.unwrap().len(), DOCUMENTS_MAX);
    for bad in [
        many(DOCUMENTS_MAX + 1)["documents"].clone(),
        json!("a"),
        json!({}),
        json!(true),
        json!(["a b"]),
        json!([""]),
        json!(["*a"]),
        json!([1]),
    ] {
        assert_eq!(
            permissions(&with("documents", bad.clone())),
            Err(TokenError::Malformed("documents")),
            "{bad}"
        );
    }
}

#[test]
fn every_permitted_form_is_accepted() {
    let mut scp = without("scope");
    scp["scp"] = json!(["openid", "WireSocket.API"]);
    let mut both = with("scope", json!("openid"));
    both["scp"] = json!("WireSocket.API");
    let forms = [
        with("aud", json!(["WireSocket.API"])),
        with("scope", json!(["WireSocket.API", "openid"])),
        scp,
        both,
        without("iat"),
        without("nbf"),
        without("jti"),
        without("allowed_domain_1"),
        with("allowed_domain_1", Value::Null),
        with("exp", json!(NOW as f64 + 0.5)),
        with("nbf", json!(0)),
        with("tenantid", json!(TENANT.to_string().to_uppercase())),
        with("unknown", json!({ "nested": [1, { "deep": true }] })),
        with("limits/maxConnections", json!(u32::MAX)),
    ];
    for claims in forms {
        assert!(verify(&signed(&claims)).is_ok(), "{claims}");
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        assert!(
            headed(&format!(r#"{{"alg":"RS256","kid":"k1","typ":"{typ}","x5t":"ignored"}}"#)).is_ok(),
            "{typ}"
        );
    }
}

#[test]
fn only_rs256_is_an_algorithm() {
    for alg in [
        "none", "None", "NONE", "nOnE", "", "HS256", "RS384", "RS512", "PS256", "ES256", "EdDSA", "rs256",
        "RS256 ",
    ] {
        let header = format!(r#"{{"alg":"{alg}","kid":"k1"}}"#);
        assert_eq!(headed(&header), Err(TokenError::Algorithm), "{alg}");
        let token = SIGNER.sign_raw(header.as_bytes(), claims().to_string().as_bytes()).unwrap();
        let unsigned = &token[..=token.rfind('.').unwrap()];
        assert_eq!(verify(unsigned), Err(TokenError::Algorithm), "{alg}, unsigned");
    }
    for alg in ["null", "256", "[\"RS256\"]", "{}"] {
        assert_eq!(headed(&format!(r#"{{"alg":{alg},"kid":"k1"}}"#)), Err(TokenError::Algorithm));
    }
    assert_eq!(headed(r#"{"kid":"k1"}"#), Err(TokenError::Algorithm));
}

/// `header.payload` in base64url.
fn unsigned(header: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims().to_string()))
}

#[test]
fn the_public_key_is_no_hmac_secret() {
    use ring::hmac;
    let jwk = SIGNER.public_jwk("k1").to_string();
    let modulus = URL_SAFE_NO_PAD.decode(SIGNER.public_jwk("k1")["n"].as_str().unwrap()).unwrap();
    for secret in [jwk.as_bytes(), &modulus] {
        for (alg, expected) in [("HS256", TokenError::Algorithm), ("RS256", TokenError::Signature)] {
            let message = unsigned(&format!(r#"{{"alg":"{alg}","kid":"k1"}}"#));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
            assert_eq!(verify(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))), Err(expected));
        }
    }
}

#[test]
fn a_signature_of_another_kind_is_wrong() {
    use ring::signature::{RSA_PKCS1_SHA384, RSA_PSS_SHA256, RsaEncoding};
    let message = unsigned(r#"{"alg":"RS256","kid":"k1"}"#);
    let paddings: [&'static dyn RsaEncoding; 2] = [&RSA_PKCS1_SHA384, &RSA_PSS_SHA256];
    for padding in paddings {
        let signature = SIGNER.signature(padding, message.as_bytes()).unwrap();
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        assert_eq!(verify(&token), Err(TokenError::Signature));
    }
    for signature in [vec![], vec![0; 256], vec![0xff; 256], vec![1; 255], vec![1; 257], vec![1; 2000]] {
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        assert_eq!(verify(&token), Err(TokenError::Signature));
    }
}

#[test]
fn a_key_signs_for_its_own_tenant_only() {
    let unknown = |key_id: &str| TokenError::UnknownKey { tenant: TENANT, key_id: key_id.to_owned() };
    let forged = |key_id| verify(&STRANGER.sign(key_id, &claims()).unwrap());
    assert_eq!(forged("k2"), Err(unknown("k2")), "the other tenant's kid, and key, for this tenant's claims");
    assert_eq!(forged("k1"), Err(TokenError::Signature), "the other tenant's key under this tenant's kid");
    assert_eq!(verify(&SIGNER.sign("k2", &claims()).unwrap()), Err(unknown("k2")));
    let elsewhere = with("tenantid", json!(OTHER_TENANT.to_string()));
    let error = verify(&signed(&elsewhere)).unwrap_err();
    assert_eq!(error, TokenError::UnknownKey { tenant: OTHER_TENANT, key_id: "k1".to_owned() });
    assert!(verify(&STRANGER.sign("k2", &elsewhere).unwrap()).is_ok());
}

#[test]
fn the_token_brings_no_key_and_no_rules_along() {
    let jwk = STRANGER.public_jwk("k1");
    for (name, value) in [
        ("jwk", jwk.to_string()),
        ("jku", r#""https://evil.example/jwks""#.to_owned()),
        ("x5u", r#""https://evil.example/cert""#.to_owned()),
        ("x5c", r#"["MIIB"]"#.to_owned()),
        ("crit", r#"["exp"]"#.to_owned()),
        ("crit", "[]".to_owned()),
        ("b64", "false".to_owned()),
        ("b64", "true".to_owned()),
        ("jku", "null".to_owned()),
    ] {
        let header = format!(r#"{{"alg":"RS256","kid":"k1","{name}":{value}}}"#);
        assert_eq!(headed(&header), Err(TokenError::Parameter(name)), "{header}");
    }
}

#[test]
fn a_header_of_the_wrong_form_is_refused() {
    let long = "k".repeat(257);
    let rows = [
        (r#"{"alg":"RS256"}"#.to_owned(), TokenError::KeyId),
        (r#"{"alg":"RS256","kid":""}"#.to_owned(), TokenError::KeyId),
        (r#"{"alg":"RS256","kid":7}"#.to_owned(), TokenError::KeyId),
        (format!(r#"{{"alg":"RS256","kid":"{long}"}}"#), TokenError::KeyId),
        (r#"{"alg":"RS256","kid":"k1","typ":"logout+jwt"}"#.to_owned(), TokenError::Type),
        (r#"{"alg":"RS256","kid":"k1","typ":["JWT"]}"#.to_owned(), TokenError::Type),
        (r#"{"alg":"RS256","kid":"k1","typ":null}"#.to_owned(), TokenError::Type),
        (r#"{"alg":"RS256","alg":"RS256","kid":"k1"}"#.to_owned(), TokenError::DuplicateParameter),
        (r#"{"alg":"none","alg":"RS256","kid":"k1"}"#.to_owned(), TokenError::DuplicateParameter),
        (r#"{"alg":"RS256","kid":"k1","\u006bid":"k2"}"#.to_owned(), TokenError::DuplicateParameter),
        (r#"{"alg":"RS256","kid":"k1","x":{"y":1,"y":2}}"#.to_owned(), TokenError::DuplicateParameter),
        (String::new(), TokenError::Header),
        ("[]".to_owned(), TokenError::Header),
        (r#"{"alg":"RS256","kid":"k1""#.to_owned(), TokenError::Header),
        (r#"{"alg":"RS256","kid":"k1"}}"#.to_owned(), TokenError::Header),
    ];
    for (header, expected) in rows {
        assert_eq!(headed(&header), Err(expected), "{header}");
    }
}

#[test]
fn a_claim_that_is_missing_is_named() {
    for (path, name) in [
        ("iss", "iss"),
        ("sub", "sub"),
        ("aud", "aud"),
        ("scope", "scope"),
        ("tenantid", "tenantid"),
        ("appId", "appId"),
        ("licenseRegionCode", "licenseRegionCode"),
        ("dbCode", "dbCode"),
        ("exp", "exp"),
        ("limits", "limits"),
        ("limits/maxConnections", "limits.maxConnections"),
        ("limits/maxDocuments", "limits.maxDocuments"),
        ("limits/maxUsersPerDoc", "limits.maxUsersPerDoc"),
        ("limits/opsPerMinute", "limits.opsPerMinute"),
    ] {
        assert_eq!(verify(&signed(&without(path))), Err(TokenError::Missing(name)));
    }
}

#[test]
fn a_claim_of_the_wrong_form_is_refused() {
    let wrong: &[(&str, &'static str, &[Value])] = &[
        ("sub", "sub", &[json!(""), json!(7), json!(null), json!(["client-1"])]),
        ("iss", "iss", &[json!(null), json!({}), json!("")]),
        (
            "tenantid",
            "tenantid",
            &[
                json!(1),
                json!(""),
                json!("x"),
                json!(TENANT.simple().to_string()),
                json!(TENANT.urn().to_string()),
            ],
        ),
        ("appId", "appId", &[json!(TENANT.braced().to_string()), json!(format!("{TENANT} ")), json!(null)]),
        ("licenseRegionCode", "licenseRegionCode", &[json!(""), json!(1), json!(null)]),
        ("dbCode", "dbCode", &[json!(""), json!([])]),
        ("exp", "exp", &[json!(-1), json!(-0.5), json!("1900000000"), json!(null), json!(true), json!([1])]),
        ("exp", "exp", &[json!(253_402_300_800_u64), json!(u64::MAX), json!(1e300), json!(-1e300)]),
        ("nbf", "nbf", &[json!(-1), json!("0"), json!(null), json!(1e18)]),
        ("iat", "iat", &[json!("now"), json!(-5), json!(null)]),
        ("jti", "jti", &[json!(5), json!(null)]),
        ("allowed_domain_2", "allowed_domain_2", &[json!(5), json!(["a.com"]), json!(false)]),
        ("limits", "limits", &[json!(null), json!([]), json!(claims()["limits"].to_string())]),
        (
            "limits/maxDocuments",
            "limits.maxDocuments",
            &[json!(0), json!(-1), json!(1.0), json!("5"), json!(null), json!(4_294_967_296_u64)],
        ),
        ("scope", "scope", &[json!(5), json!(null), json!({}), json!(["WireSocket.API", 5])]),
    ];
    for (path, name, values) in wrong {
        for value in *values {
            let result = verify(&signed(&with(path, value.clone())));
            assert_eq!(result, Err(TokenError::Malformed(name)), "{path} = {value}");
        }
    }
}

#[test]
fn the_audience_is_just_the_api() {
    for audience in [
        json!("wiresocket.api"),
        json!("WireSocket.API "),
        json!("WireSocket.APIs"),
        json!("other WireSocket.API"),
        json!(["WireSocket.API", "other"]),
        json!(["WireSocket.API", "WireSocket.API"]),
        json!([["WireSocket.API"]]),
        json!([]),
        json!([5]),
        json!({ "WireSocket.API": true }),
        json!(null),
        json!(5),
    ] {
        assert_eq!(verify(&signed(&with("aud", audience.clone()))), Err(TokenError::Audience), "{audience}");
    }
}

#[test]
fn the_scope_holds_the_whole_word() {
    for scope in [
        json!(""),
        json!("openid"),
        json!("WireSocket.APIs"),
        json!("xWireSocket.API"),
        json!("WireSocket.API.read"),
        json!("wiresocket.api"),
        json!("openid,WireSocket.API"),
        json!("openid\tWireSocket.API"),
        json!([]),
        json!(["openid", "WireSocket.APIs"]),
        json!(["openid WireSocket.API"]),
    ] {
        assert_eq!(verify(&signed(&with("scope", scope.clone()))), Err(TokenError::Scope), "{scope}");
    }
}

#[test]
fn the_issuer_is_compared_byte_for_byte() {
    for issuer in ["https://issuer.example/", "https://ISSUER.example", "http://issuer.example", "x"] {
        assert_eq!(verify(&signed(&with("iss", json!(issuer)))), Err(TokenError::Issuer));
    }
}

#[test]
fn a_token_lives_from_nbf_to_exp_give_or_take_the_leeway() {
    let token = signed(&claims());
    let at = |unix_s| verifier().verify(unix_s, &token).map(drop);
    assert_eq!(at(NOW - LEEWAY - 1), Err(TokenError::NotYetValid));
    assert_eq!(at(NOW - LEEWAY), Ok(()));
    assert_eq!(at(NOW + 900 + LEEWAY - 1), Ok(()));
    assert_eq!(at(NOW + 900 + LEEWAY), Err(TokenError::Expired));
    assert_eq!(at(u64::MAX), Err(TokenError::Expired));
    let fractions = with("exp", json!(NOW as f64 + 0.9));
    let at = |unix_s| verifier().verify(unix_s, &signed(&fractions)).map(drop);
    assert_eq!(at(NOW + LEEWAY - 1), Ok(()));
    assert_eq!(at(NOW + LEEWAY), Err(TokenError::Expired));
    let fractions = with("nbf", json!(NOW as f64 + 0.1));
    let at = |unix_s| verifier().verify(unix_s, &signed(&fractions)).map(drop);
    assert_eq!(at(NOW - LEEWAY), Err(TokenError::NotYetValid));
    assert_eq!(at(NOW - LEEWAY + 1), Ok(()));
}

#[test]
fn duplicate_claims_refuse_a_token_that_is_signed_well() {
    for more in [
        r#""exp":9999999999"#,
        r#""tenantid":"99999999-2222-4333-8444-555555555555""#,
        r#""\u0065xp":9999999999"#,
        r#""limits":{"maxConnections":1}"#,
        r#""foreign":{"a":1,"a":1}"#,
        r#""foreign":[{"b":{"c":[],"\u0063":{}}}]"#,
    ] {
        assert_eq!(carrying(claims_and(more).as_bytes()), Err(TokenError::DuplicateClaim), "{more}");
    }
    for twice in [r#""maxConnections":1,"#, r#""maxC\u006fnnections":1,"#] {
        let payload = claims().to_string().replace(r#""limits":{"#, &format!(r#""limits":{{{twice}"#));
        assert_eq!(carrying(payload.as_bytes()), Err(TokenError::DuplicateClaim), "{twice}");
    }
    assert!(carrying(claims_and(r#""foreign":{"exp":1}"#).as_bytes()).is_ok());
}

#[test]
fn a_payload_that_is_no_object_is_refused() {
    let mut not_utf8 = claims().to_string().into_bytes();
    let at = not_utf8.windows(6).position(|window| window == b"client").unwrap();
    not_utf8[at] = 0xff;
    let deep = claims_and(&format!(r#""deep":{}{}"#, "[".repeat(200), "]".repeat(200)));
    let infinite = claims_and(r#""big":1e999"#);
    let nan = claims_and(r#""big":NaN"#);
    let trailing = format!("{}x", claims());
    for payload in [
        &not_utf8[..],
        b"",
        b"null",
        b"[]",
        b"\"\"",
        b"{",
        deep.as_bytes(),
        infinite.as_bytes(),
        nan.as_bytes(),
        trailing.as_bytes(),
    ] {
        assert_eq!(carrying(payload), Err(TokenError::Claims), "{}", String::from_utf8_lossy(payload));
    }
}

#[test]
fn the_three_parts_are_strict_base64url() {
    let token = signed(&claims());
    let (rest, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = rest.split_once('.').unwrap();
    for other in ["", "token", header, rest, &format!("{token}."), &format!("{token}.x"), "..."] {
        assert_eq!(verify(other), Err(TokenError::Parts), "{other}");
    }
    // 256 bytes end in a character with four spare bits: the decoder must not ignore them.
    let last = signature.as_bytes()[signature.len() - 1];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = alphabet.iter().position(|&character| character == last).unwrap();
    let respelled = format!("{}{}", &signature[..signature.len() - 1], char::from(alphabet[value | 1]));
    for token in [
        format!("{header}.{payload}.{respelled}"),
        format!("{header}.{payload}.{signature}=="),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}.{signature}\n"),
        format!(" {header}.{payload}.{signature}"),
        format!("{header}.{payload}.{}", &signature[..signature.len() - 1]),
        format!("{header}.{payload}.{}é", &signature[..signature.len() - 2]),
        format!("{header}.{payload}.{}+/", &signature[..signature.len() - 2]),
    ] {
        assert_eq!(verify(&token), Err(TokenError::Encoding), "{token}");
    }
    let shorter = &signature[..signature.len() - 2];
    assert_eq!(verify(&format!("{header}.{payload}.{shorter}")), Err(TokenError::Signature));
    assert_eq!(verify(&format!("{header}.{payload}.")), Err(TokenError::Signature));
    assert_eq!(verify(".."), Err(TokenError::Header));
}

#[test]
fn a_token_over_the_bound_is_not_even_split() {
    let token = signed(&with("unknown", json!("x".repeat(8192))));
    assert_eq!(verify(&token), Err(TokenError::TooLong));
    assert_eq!(verify(&".".repeat(1_000_000)), Err(TokenError::TooLong));
    let header = format!(r#"{{"alg":"RS256","kid":"k1","x":"{}"}}"#, "x".repeat(2048));
    assert_eq!(headed(&header), Err(TokenError::TooLong));
}

#[test]
fn without_a_good_signature_nothing_of_the_claims_is_told() {
    for bad in [with("exp", json!(1)), with("aud", json!("x")), without("limits"), with("iss", json!("x"))] {
        let token = STRANGER.sign("k1", &bad).unwrap();
        assert_eq!(verify(&token), Err(TokenError::Signature), "{bad}");
    }
}

#[test]
fn a_revoked_key_is_refused_as_such() {
    let mut verifier = verifier();
    let token = signed(&claims());
    assert!(verifier.verify(NOW, &token).is_ok());
    verifier.replace_keys(Arc::new(keys().without_key(TENANT, "k1")));
    assert_eq!(verifier.verify(NOW, &token), Err(TokenError::RevokedKey));
}

#[test]
fn reasons_are_stable_fit_a_close_frame_and_echo_nothing() {
    let errors = [
        (TokenError::Expired, "Token expired"),
        (TokenError::Signature, "Token signature is wrong"),
        (TokenError::Audience, "Token audience is not WireSocket.API"),
        (TokenError::DuplicateClaim, "Token has a duplicate claim"),
        (TokenError::RevokedKey, "Key revoked"),
        (TokenError::Malformed("limits.maxConnections"), "Token claim limits.maxConnections is malformed"),
        (TokenError::Missing("exp"), "Token claim exp is missing"),
        (TokenError::Parameter("jwk"), "Token header parameter jwk is not allowed"),
        (
            TokenError::UnknownKey { tenant: TENANT, key_id: "attacker's text".to_owned() },
            "Token signing key is unknown",
        ),
    ];
    for (error, expected) in errors {
        let refusal = Refusal::from(error);
        assert_eq!((refusal.code(), refusal.reason().as_str()), (4002, expected));
        assert!(expected.len() <= REASON_BYTES_MAX);
    }
}

static VALID: LazyLock<String> = LazyLock::new(|| signed(&claims()));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_token_with_one_bit_flipped_is_refused(position in any::<prop::sample::Index>(), bit in 0u32..8) {
        let mut bytes = VALID.clone().into_bytes();
        let at = position.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let mut verifier = verifier();
        prop_assert!(verifier.verify(NOW, &VALID).is_ok());
        // What is no UTF-8 any more can't even be asked about.
        if let Ok(flipped) = String::from_utf8(bytes) {
            prop_assert!(verifier.verify(NOW, &flipped).is_err());
        }
    }

    #[test]
    fn any_text_is_refused_without_a_panic(text in "\\PC{0,200}", header in "\\PC{0,60}", payload in "\\PC{0,200}") {
        let parts = [header, payload, text.clone()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        prop_assert!(verify(&text).is_err());
        prop_assert!(verify(&parts).is_err());
    }
}
