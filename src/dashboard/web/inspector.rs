//! "Why is my token refused?": the node's own checks on a token that somebody pastes, each in words.
//!
//! The token is in the body of one request and of its answer, and nowhere else: not in a log, a table or a URL.

use std::sync::Arc;

use askama::Template;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use uuid::Uuid;

use super::failure::Failure;
use super::form::{Fields, sentence};
use super::page::{Place, Shell, page};
use super::text::{Moment, span};
use super::visit::{Member, Path, Posted};
use crate::auth::{Grant, KeySets, Policy, TokenError, Verifier, keys::parse_jwks, origin};
use crate::dashboard::access::{Action, require};
use crate::dashboard::apps::{self, AppError};
use crate::dashboard::{Dashboard, keys, subscriptions};
use crate::protocol::close::Refusal;

/// What nodes have unless their configuration says otherwise.
const TOKEN_BYTES_MAX: usize = 16 << 10;
const LEEWAY_S: u64 = 30;

/// The checks, in the order in which a node makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Check {
    Form,
    Header,
    Tenant,
    Key,
    Signature,
    Audience,
    Scope,
    Dates,
    App,
    Region,
    Domains,
    Limits,
    Documents,
    Issuer,
    Time,
    Origin,
}

const CHECKS: [(Check, &str, &str); 16] = [
    (Check::Form, "Form", "three parts in base64url, not too long"),
    (
        Check::Header,
        "Algorithm and type",
        "RS256, a JWT, with a key id (kid), and nothing that names its own key",
    ),
    (Check::Tenant, "Tenant", "the claim tenantid is a tenant's id"),
    (Check::Key, "Signing key", "the kid is in the tenant's key set and not revoked"),
    (Check::Signature, "Signature", "made by that key, over exactly these bytes"),
    (Check::Audience, "Audience", "aud is WireSocket.API, and no claim comes twice"),
    (Check::Scope, "Scope", "scope (or scp) has the word WireSocket.API"),
    (Check::Dates, "Dates", "exp is there; exp, nbf and iat are seconds since 1970"),
    (Check::App, "App", "sub and appId name the app"),
    (Check::Region, "Region", "licenseRegionCode and dbCode say where the app lives"),
    (Check::Domains, "Allowed domains", "allowed_domain_1 to 3 are texts, where there are any"),
    (
        Check::Limits,
        "Limits",
        "four positive numbers: connections, documents, people in a document, changes a minute",
    ),
    (Check::Documents, "Documents", "documents, where it is there, lists names and prefixes"),
    (Check::Issuer, "Issuer", "iss is the issuer that nodes trust"),
    (Check::Time, "Expiry", "now is after nbf and before exp"),
    (Check::Origin, "Origin", "the page's host is one of the allowed domains"),
];

#[derive(Template)]
#[template(path = "inspector.html")]
struct InspectorPage<'a> {
    shell: Shell,
    here: String,
    form: &'a Fields,
    findings: Option<Findings>,
}

struct Findings {
    /// Close code and reason that a client would get.
    refusal: Option<(u16, String)>,
    rows: Vec<Row>,
    claims: Vec<(&'static str, String)>,
    remarks: Vec<String>,
}

struct Row {
    name: &'static str,
    rule: &'static str,
    /// `passed`, `failed`, `skipped`.
    outcome: &'static str,
    text: String,
}

pub(super) async fn form(member: Member, Path(tenant): Path<String>) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    allow(&member, &place).await?;
    let shell = member.shell("inspector").within(&place);
    Ok(page(&InspectorPage { shell, here: place.at("inspector"), form: &Fields::default(), findings: None }))
}

async fn allow(member: &Member, place: &Place) -> Result<(), Failure> {
    let mut tx = member.dashboard().home.begin_read().await?;
    Ok(require(&mut tx, &member.actor(), Action::ReadKeys, Some(place.tenant.id)).await?)
}

pub(super) async fn inspect(
    Path(tenant): Path<String>,
    Posted(member, mut form): Posted<Member>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    allow(&member, &place).await?;
    // What people copy has line breaks and, often, its header's scheme.
    let token: String = form.get("token").split_whitespace().filter(|word| *word != "Bearer").collect();
    let origin = form.get("origin").trim().to_owned();
    let shell = member.shell("inspector").within(&place);
    let here = place.at("inspector");
    if token.is_empty() {
        form.wrong("token", "paste an access token, the text of three parts with two dots");
        return Ok(super::page::again(&InspectorPage { shell, here, form: &form, findings: None }));
    }
    let dashboard = member.dashboard();
    let key_sets = key_sets(dashboard, place.tenant.id).await?;
    let context = Context { dashboard, tenant: place.tenant.id, token: &token, origin: &origin };
    let mut findings = context.look(key_sets);
    if let Some(app) = context.claim("appId").and_then(|app| app.parse().ok()) {
        findings.remarks.extend(context.compare(&member, app).await?);
    }
    Ok(page(&InspectorPage { shell, here, form: &form, findings: Some(findings) }))
}

/// What a node has of this tenant: the keys and revocations of its published document.
async fn key_sets(dashboard: &Dashboard, tenant: Uuid) -> Result<KeySets, Failure> {
    let Some(document) = keys::jwks(dashboard, tenant).await? else { return Ok(KeySets::default()) };
    let keys = parse_jwks(document.body.as_bytes())
        .map_err(|error| Failure::told(&format!("the tenant's key set can't be read: {error}")))?;
    let json: Value = serde_json::from_str(&document.body).unwrap_or_default();
    let revoked = json["revoked"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let sets = KeySets::default().with_tenant(tenant, keys);
    Ok(revoked.fold(sets, |sets, kid| sets.without_key(tenant, kid)))
}

struct Context<'a> {
    dashboard: &'a Dashboard,
    tenant: Uuid,
    token: &'a str,
    origin: &'a str,
}

impl Context<'_> {
    fn look(&self, key_sets: KeySets) -> Findings {
        let policy = Policy {
            issuer: self.dashboard.config.issuer.as_str().to_owned(),
            leeway_s: LEEWAY_S,
            token_bytes_max: TOKEN_BYTES_MAX,
        };
        let now = u64::try_from(self.dashboard.now()).unwrap_or(0);
        let verified = Verifier::new(policy, Arc::new(key_sets), 0, 0).verify(now, self.token);
        let origin = Some(self.origin).filter(|origin| !origin.is_empty());
        let failed = match &verified {
            Err(error) => Some((check_of(error), self.explain(error), refused(error.clone()))),
            Ok(grant) => origin::check(&grant.allowed_domains, origin, false).err().map(|error| {
                let allowed = grant.allowed_domains.join(", ");
                let text = format!(
                    "{}: the token allows {allowed}, and the page is {}. Add the host to the app's allowed domains, \
                     then get a new token.",
                    error, self.origin
                );
                (Check::Origin, sentence(&text), refused(error))
            }),
        };
        let rows = CHECKS.iter().map(|&(check, name, rule)| {
            let (outcome, text) = match &failed {
                Some((at, text, _)) if *at == check => ("failed", text.clone()),
                Some((at, ..)) if check > *at => ("skipped", String::new()),
                _ if check == Check::Origin && origin.is_none() => {
                    ("skipped", "Type the address of a page above to check this.".to_owned())
                }
                _ => ("passed", self.passed(check, verified.as_deref().ok())),
            };
            Row { name, rule, outcome, text }
        });
        Findings {
            rows: rows.collect(),
            refusal: failed.map(|(.., refusal)| refusal),
            claims: self.claims(),
            remarks: Vec::new(),
        }
    }

    /// What there is to say of a check that held.
    fn passed(&self, check: Check, grant: Option<&Grant>) -> String {
        let text = |claim| self.claim(claim).unwrap_or_default();
        match (check, grant) {
            (Check::Key, _) => self.part(0, "kid").unwrap_or_default(),
            (Check::Region, _) => format!("{}, {}", text("licenseRegionCode"), text("dbCode")),
            (Check::Issuer, _) => text("iss"),
            (Check::App, _) => text("sub"),
            (Check::Domains, Some(grant)) if grant.allowed_domains.is_empty() => "None: any page.".to_owned(),
            (Check::Domains, Some(grant)) => grant.allowed_domains.join(", "),
            (Check::Scope, Some(grant)) if grant.permissions.read_only => {
                "WireSocket.ReadOnly is there too: its editors see everything and change nothing.".to_owned()
            }
            (Check::Documents, Some(grant)) => match grant.permissions.documents.as_deref() {
                None => "None: every document of the app.".to_owned(),
                Some([]) => "An empty list: it opens no document.".to_owned(),
                Some(patterns) => patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            },
            (Check::Time, Some(grant)) => {
                let left = i64::try_from(grant.expires_unix_s).unwrap_or(i64::MAX) - self.dashboard.now();
                format!("Expires in {}.", span(left))
            }
            (Check::Origin, _) => self.origin.to_owned(),
            _ => String::new(),
        }
    }

    /// What the error means here, and what to do.
    fn explain(&self, error: &TokenError) -> String {
        let claim = |name| self.claim(name).unwrap_or_else(|| "nothing".to_owned());
        let advice = match error {
            TokenError::Parts => {
                "An access token has three parts and two dots; a refresh token has none, and is no use here"
                    .to_owned()
            }
            TokenError::Encoding | TokenError::Claims | TokenError::Header => {
                "It was cut off or changed on its way; copy it again, whole".to_owned()
            }
            TokenError::TooLong => format!("Nodes take at most {TOKEN_BYTES_MAX} bytes"),
            TokenError::Algorithm | TokenError::Type | TokenError::Parameter(_) | TokenError::KeyId => {
                "This token is not of the dashboard's token endpoint: get one there".to_owned()
            }
            TokenError::UnknownKey { tenant, .. } if *tenant != self.tenant => {
                format!("The token is of the tenant {tenant}, and this is {}. Look at it there", self.tenant)
            }
            TokenError::UnknownKey { .. } => {
                "No key of this tenant has this kid. The key was retired and is gone, \
                or the token is of another installation: get a new one"
                    .to_owned()
            }
            TokenError::RevokedKey => {
                "The key was revoked, and every token that it signed is dead: get a new one".to_owned()
            }
            TokenError::Signature => {
                "The token names a key of this tenant, but that key did not sign these bytes: \
                the token was changed, or signed by somebody else"
                    .to_owned()
            }
            TokenError::Issuer => format!(
                "The token says {}, and nodes here trust {}. Is the token of another installation?",
                claim("iss"),
                self.dashboard.config.issuer.as_str()
            ),
            TokenError::Audience => format!("The token says {}", claim("aud")),
            TokenError::Scope | TokenError::Missing("scope") => {
                format!("The token says {}. Ask the token endpoint for scope=WireSocket.API", claim("scope"))
            }
            TokenError::Expired => {
                let exp = self.number("exp").unwrap_or(0);
                format!(
                    "It expired {} ago, at {}. Get a new one, and let your client renew it before it ends",
                    span(self.dashboard.now() - exp),
                    Moment(exp).shown()
                )
            }
            TokenError::NotYetValid => {
                format!(
                    "It begins at {}. Compare the clocks",
                    Moment(self.number("nbf").unwrap_or(0)).shown()
                )
            }
            TokenError::Missing(_)
            | TokenError::Malformed(_)
            | TokenError::DuplicateClaim
            | TokenError::DuplicateParameter => {
                "The dashboard's own tokens are not so: this one was made or changed elsewhere".to_owned()
            }
        };
        format!("{error}. {}", sentence(&advice))
    }

    /// A part of the token, decoded but not verified: for showing only.
    fn decoded(&self, index: usize) -> Option<Value> {
        let part = self.token.split('.').nth(index)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
    }

    fn part(&self, index: usize, name: &str) -> Option<String> {
        match self.decoded(index)?.get(name)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    fn claim(&self, name: &str) -> Option<String> {
        self.part(1, name)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.decoded(1)?.get(name)?.as_i64()
    }

    /// What the token says of itself, before anything is checked.
    fn claims(&self) -> Vec<(&'static str, String)> {
        let header = ["alg", "kid"].into_iter().filter_map(|name| Some((name, self.part(0, name)?)));
        let names = [
            "iss",
            "sub",
            "aud",
            "scope",
            "scp",
            "tenantid",
            "appId",
            "licenseRegionCode",
            "dbCode",
            "allowed_domain_1",
            "allowed_domain_2",
            "allowed_domain_3",
            "limits",
            "documents",
            "iat",
            "nbf",
            "exp",
            "jti",
        ];
        let claims = names.into_iter().filter_map(|name| {
            let shown = match (name, self.number(name)) {
                ("iat" | "nbf" | "exp", Some(at)) => format!("{at} ({})", Moment(at).shown()),
                _ => self.claim(name)?,
            };
            Some((name, shown))
        });
        header.chain(claims).collect()
    }

    /// Where the app is different by now from what the token says: the node goes by the token.
    async fn compare(&self, member: &Member, app: Uuid) -> Result<Vec<String>, Failure> {
        let app = match apps::read(self.dashboard, &member.actor(), self.tenant, app).await {
            Ok(app) => app,
            Err(AppError::Missing) => {
                return Ok(vec!["This tenant has no app with this id; it may have been deleted. There are no new tokens for it.".to_owned()]);
            }
            Err(error) => return Err(error.into()),
        };
        let mut remarks = Vec::new();
        let claims = self.decoded(1).unwrap_or_default();
        let carried: Vec<&str> = (1..=apps::DOMAINS_MAX)
            .filter_map(|number| claims.get(format!("allowed_domain_{number}"))?.as_str())
            .collect();
        if carried != app.allowed_domains.iter().map(|domain| domain.as_str()).collect::<Vec<_>>() {
            remarks.push(format!(
                "The allowed domains of {} have changed since this token was made. A new token carries the new ones.",
                app.name
            ));
        }
        match subscriptions::current(self.dashboard, app.id).await? {
            None => {
                remarks.push(format!("{} has no plan now: it gets no new tokens until it has one.", app.name))
            }
            Some(subscription) if claims.get("limits") != Some(&subscription.plan.limits()) => {
                remarks.push(format!(
                    "The limits are not those of the plan {} that {} has now. A new token carries the new ones.",
                    subscription.plan.name, app.name
                ));
            }
            Some(_) => {}
        }
        Ok(remarks)
    }
}

fn refused(error: impl Into<Refusal>) -> (u16, String) {
    let refusal = error.into();
    (refusal.code(), refusal.reason())
}

/// Which check an error is of.
fn check_of(error: &TokenError) -> Check {
    match error {
        TokenError::TooLong | TokenError::Parts | TokenError::Encoding | TokenError::Header => Check::Form,
        TokenError::DuplicateParameter
        | TokenError::Parameter(_)
        | TokenError::Algorithm
        | TokenError::Type
        | TokenError::KeyId => Check::Header,
        TokenError::Claims => Check::Tenant,
        TokenError::UnknownKey { .. } | TokenError::RevokedKey => Check::Key,
        TokenError::Signature => Check::Signature,
        TokenError::Audience | TokenError::DuplicateClaim => Check::Audience,
        TokenError::Scope => Check::Scope,
        TokenError::Issuer => Check::Issuer,
        TokenError::NotYetValid | TokenError::Expired => Check::Time,
        TokenError::Missing(claim) | TokenError::Malformed(claim) => match *claim {
            "tenantid" => Check::Tenant,
            "aud" => Check::Audience,
            "scope" | "scp" => Check::Scope,
            "exp" | "nbf" | "iat" => Check::Dates,
            "licenseRegionCode" | "dbCode" => Check::Region,
            claim if claim.starts_with("allowed_domain") => Check::Domains,
            claim if claim.starts_with("limits") => Check::Limits,
            "documents" => Check::Documents,
            _ => Check::App,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_are_listed_in_their_order() {
        assert!(CHECKS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(check_of(&TokenError::Malformed("limits.maxDocuments")), Check::Limits);
        assert_eq!(check_of(&TokenError::Missing("sub")), Check::App);
    }
}
