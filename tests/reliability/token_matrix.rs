//! Tokens that are almost good (RFC 8725): a genuine one changed at every byte, and every header, claim and signature
//! that one may not have, crossed with one another. All of them at the verifier, a part of them at the socket too.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde_json::{Value, json};
use wiresocket::auth::{KeySets, Policy, Verifier};

use crate::figure;
use crate::support::keys::{ISSUER, unix_s};
use crate::support::{Answer, NodeSetup, Tenant, Token, test_key};

/// One of so many goes through a socket too.
const SOCKET_SHARE: usize = 20;

#[derive(Default)]
struct Matrix {
    tokens: Vec<(String, String)>,
}

impl Matrix {
    fn add(&mut self, what: impl Into<String>, token: impl Into<String>) {
        self.tokens.push((what.into(), token.into()));
    }

    /// One byte other, missing, or too much, everywhere; and every beginning.
    fn bytes(&mut self, good: &str) {
        let others = [b'A', b'_', b'.', b'=', b'9'];
        for at in 0..good.len() {
            let (front, back) = good.split_at(at);
            for other in others.map(char::from) {
                if !back.starts_with(other) {
                    self.add(format!("byte {at} is {other}"), format!("{front}{other}{}", &back[1..]));
                }
                // Beside an equal one it is the same insertion as behind it.
                self.add(format!("{other} before byte {at}"), format!("{front}{other}{back}"));
            }
            self.add(format!("byte {at} missing"), format!("{front}{}", &back[1..]));
            self.add(format!("the first {at} bytes"), front);
        }
        for more in [".", "=", "A", " ", ".A", "\0"] {
            self.add("bytes behind the end", format!("{good}{more}"));
        }
    }

    /// Every algorithm but the right one under every key id and every kind of signature.
    fn algorithms(&mut self, tenant: &Tenant, stranger: &Tenant) {
        let names = [
            "none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS384", "RS512", "PS256",
            "PS384", "PS512", "ES256", "ES384", "EdDSA", "rs256", "RS256 ", " RS256", "RS-256", "RSA256",
        ];
        let odd = [json!(null), json!(256), json!(["RS256"]), json!({ "alg": "RS256" }), json!(true)];
        let algorithms = names.iter().map(|name| Some(json!(name))).chain(odd.map(Some)).chain([None]);
        for algorithm in algorithms {
            for key_id in [tenant.key_id.as_str(), stranger.key_id.as_str(), "nobody", ""] {
                let mut token = tenant.token().header("kid", key_id);
                match &algorithm {
                    Some(name) => token = token.header("alg", name.clone()),
                    None => drop(token.header.as_object_mut().map(|header| header.remove("alg"))),
                }
                let what = format!("alg {algorithm:?}, kid {key_id}");
                for (how, signed) in signatures(&token, tenant, stranger) {
                    self.add(format!("{what}, {how}"), signed);
                }
            }
        }
        // The right algorithm, and each wrong signature and key id.
        for (how, signed) in signatures(&tenant.token(), tenant, stranger).into_iter().skip(1) {
            self.add(how, signed);
        }
        let long = "k".repeat(300);
        for key_id in [
            json!("nobody"),
            json!(""),
            json!("../../keys/k1"),
            json!("k1\0"),
            json!("K1"),
            json!("k1' OR '1'='1"),
            json!(long),
            json!(1),
            json!(null),
            json!(["k1"]),
            json!(stranger.key_id),
        ] {
            self.add(format!("kid {key_id}"), tenant.token().header("kid", key_id).build());
        }
    }

    /// Parameters by which a token would choose its own key or rules.
    fn parameters(&mut self, tenant: &Tenant, stranger: &Tenant) {
        let values = [
            json!(null),
            json!(""),
            json!("https://evil.example.com/keys"),
            json!([]),
            json!(["exp"]),
            json!({}),
            json!(true),
            json!(false),
            stranger.key.public_jwk(&tenant.key_id),
        ];
        for name in ["jku", "jwk", "x5u", "x5c", "crit", "b64"] {
            for value in &values {
                let token = tenant.token().header(name, value.clone());
                self.add(format!("{name} {value}"), token.build());
                self.add(format!("{name} {value}, its key"), token.signed_by(stranger.key.clone()).build());
            }
        }
    }

    /// Every claim missing, of a wrong type, of a wrong value, and twice.
    fn claims(&mut self, tenant: &Tenant, stranger: &Tenant) {
        let required = [
            "iss",
            "sub",
            "aud",
            "scope",
            "tenantid",
            "appId",
            "licenseRegionCode",
            "dbCode",
            "limits",
            "exp",
        ];
        let never = [json!(null), json!([]), json!({}), json!(true), json!(-1), json!(0.5), json!("")];
        for name in required {
            self.add(format!("no {name}"), tenant.token().without(name).build());
            for value in &never {
                self.add(format!("{name} {value}"), tenant.token().claim(name, value.clone()).build());
            }
        }
        for name in ["maxConnections", "maxDocuments", "maxUsersPerDoc", "opsPerMinute"] {
            for value in never.iter().cloned().chain([json!(0), json!("5"), json!(5.0), json!(1u64 << 32)]) {
                let mut token = tenant.token();
                token.claims["limits"][name] = value.clone();
                self.add(format!("limits.{name} {value}"), token.build());
            }
            let mut token = tenant.token();
            drop(token.claims["limits"].as_object_mut().map(|limits| limits.remove(name)));
            self.add(format!("no limits.{name}"), token.build());
        }
        let now = unix_s();
        let wrong: [(&str, &[Value]); 9] = [
            (
                "iss",
                &[
                    json!("https://evil.example.com"),
                    json!(format!("{ISSUER}/")),
                    json!(format!("{ISSUER}.evil.net")),
                    json!(ISSUER.to_uppercase()),
                    json!([ISSUER]),
                ],
            ),
            (
                "aud",
                &[
                    json!("Other.API"),
                    json!("wiresocket.api"),
                    json!("WireSocket.API "),
                    json!(["WireSocket.API", "Other.API"]),
                    json!([["WireSocket.API"]]),
                    json!({ "WireSocket.API": true }),
                ],
            ),
            (
                "scope",
                &[
                    json!("openid"),
                    json!("WireSocket.APIs"),
                    json!("WireSocket.API.Admin"),
                    json!("xWireSocket.API"),
                    json!("openid,WireSocket.API"),
                    json!(["openid WireSocket.API"]),
                ],
            ),
            (
                "tenantid",
                &[
                    json!(stranger.id),
                    json!("00000000-0000-0000-0000-000000000000"),
                    json!(tenant.id.simple().to_string()),
                    json!(tenant.id.braced().to_string()),
                    json!(format!("{} ", tenant.id)),
                    json!([tenant.id]),
                ],
            ),
            ("appId", &[json!("app"), json!(tenant.app.urn().to_string()), json!(7)]),
            (
                "exp",
                &[
                    json!(now - 31),
                    json!(now - 86_400),
                    json!(0),
                    json!("9999999999"),
                    json!(1e300),
                    json!(u64::MAX),
                    json!((now + 600) * 1000),
                ],
            ),
            (
                "nbf",
                &[
                    json!(now + 120),
                    json!(now + 86_400),
                    json!("0"),
                    json!(null),
                    json!(-5),
                    json!((now) * 1000),
                ],
            ),
            ("iat", &[json!("now"), json!(null), json!(-5), json!([])]),
            ("jti", &[json!(5), json!(null), json!({})]),
        ];
        for (name, values) in wrong {
            for value in values {
                self.add(format!("{name} {value}"), tenant.token().claim(name, value.clone()).build());
            }
        }
        self.twice(tenant);
    }

    fn twice(&mut self, tenant: &Tenant) {
        let token = tenant.token();
        let (header, claims) = (token.header.to_string(), token.claims.to_string());
        let first =
            |object: &str, name: &str, value: &Value| format!("{{\"{name}\":{value},{}", &object[1..]);
        let last = |object: &str, name: &str, value: &Value| {
            format!("{},\"{name}\":{value}}}", &object[..object.len() - 1])
        };
        for (name, value) in token.claims.as_object().expect("an object") {
            for other in [value.clone(), json!("x"), json!(0)] {
                self.add(format!("{name} twice"), token.build_raw(&header, &first(&claims, name, &other)));
                self.add(format!("{name} twice"), token.build_raw(&header, &last(&claims, name, &other)));
            }
        }
        for (name, value) in token.header.as_object().expect("an object") {
            for other in [value.clone(), json!("none")] {
                self.add(format!("{name} twice"), token.build_raw(&first(&header, name, &other), &claims));
                self.add(format!("{name} twice"), token.build_raw(&last(&header, name, &other), &claims));
            }
        }
        for payload in
            ["", "null", "[]", "{}", "1", "{", "{}{}", &claims[..claims.len() - 1], &format!("[{claims}]")]
        {
            self.add("another payload", token.build_raw(&header, payload));
            self.add("another header", token.build_raw(payload, &claims));
        }
    }
}

/// A token under every signature: the right one first.
fn signatures(token: &Token, tenant: &Tenant, stranger: &Tenant) -> Vec<(&'static str, String)> {
    let right = token.build();
    let (signed, signature) = right.rsplit_once('.').expect("three parts");
    let jwk = tenant.key.public_jwk(&tenant.key_id);
    let modulus = BASE64.decode(jwk["n"].as_str().expect("n")).expect("base64");
    let tag = |secret: &[u8]| {
        BASE64.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes()))
    };
    let reversed: String = signature.chars().rev().collect();
    let others = [
        ("no signature", String::new()),
        ("HMAC with the modulus", tag(&modulus)),
        ("HMAC with the key's JSON", tag(jwk.to_string().as_bytes())),
        ("HMAC with nothing", tag(b"")),
        ("a signature of zeros", BASE64.encode([0; 256])),
        ("a signature of ones", BASE64.encode([0xff; 256])),
        ("a signature backwards", reversed),
    ];
    let mut all = vec![("signed", right.clone())];
    all.extend(others.map(|(how, signature)| (how, format!("{signed}.{signature}"))));
    all.push(("a stranger's signature", token.clone().signed_by(stranger.key.clone()).build()));
    all
}

#[test]
fn no_changed_token_is_accepted() {
    let (tenant, stranger) = (Tenant::new(1), Tenant::new(2));
    let good = tenant.token().build();
    let mut matrix = Matrix::default();
    matrix.bytes(&good);
    matrix.algorithms(&tenant, &stranger);
    matrix.parameters(&tenant, &stranger);
    matrix.claims(&tenant, &stranger);
    matrix.add("a revoked key", tenant.with_key(3).token().build());
    matrix.add("another key under its id", tenant.token().signed_by(test_key(2)).build());

    let keys = |tenant: &Tenant| vec![tenant.key.public_key(&tenant.key_id).expect("a key id")];
    let sets =
        KeySets::default().with_tenant(tenant.id, keys(&tenant)).with_tenant(stranger.id, keys(&stranger));
    let policy = Policy { issuer: ISSUER.to_owned(), leeway_s: 30, token_bytes_max: 16 << 10 };
    let mut verifier = Verifier::new(policy, Arc::new(sets), 4096, 1);
    let accepted: Vec<&str> = matrix
        .tokens
        .iter()
        .filter(|(_, token)| verifier.verify(unix_s(), token).is_ok())
        .map(|(what, _)| what.as_str())
        .collect();
    assert!(accepted.is_empty(), "{accepted:#?}");
    assert!(verifier.verify(unix_s(), &good).is_ok(), "the one that they were made of is good");

    let mut jwks = tenant.jwks();
    jwks["revoked"] = json!(["k3"]);
    let server = NodeSetup::without_keys().key_set(&tenant.id.to_string(), jwks).keys_of(&stranger).start();
    let mut through = 0;
    for (what, token) in matrix.tokens.iter().step_by(SOCKET_SHARE) {
        let mut upgrade = server.upgrade("/notes");
        // As a query too, where it can be one.
        upgrade = match token.bytes().all(|byte| byte.is_ascii_graphic()) && through % 2 == 0 {
            true => server.upgrade(&format!("/notes?token={token}")),
            false => upgrade.bearer(token),
        };
        if let Answer::Open(mut client) = upgrade.send() {
            let (code, _) = client.closed();
            assert_eq!(code, 4007, "{what}: let in");
        }
        through += 1;
    }
    server.upgrade("/notes").token(&good).open().close();
    figure(
        "JWT mutations",
        format_args!(
            "0 accepted of {} at the verifier, 0 of {through} of them through the socket",
            matrix.tokens.len()
        ),
    );
}
