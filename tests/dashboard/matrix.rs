//! Who may what: every route of the management API × every role × own and another tenant × nobody, and what each leaves
//! in the audit log. A route that is not in the table fails the test.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;
use wiresocket::dashboard::access::{Actor, MEMBER_ROLES, Role};
use wiresocket::dashboard::apps::{self, NewApp};
use wiresocket::dashboard::billing::Cadence;
use wiresocket::dashboard::plans::PlanTerms;
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::store::query;
use wiresocket::dashboard::subscriptions::{self, AppId};
use wiresocket::dashboard::{api_keys, audit, invitations, keys, members, nodes, plans, tenants};

use crate::stage::{PASSWORD, Stage};

/// Of the own tenant: operator, owner, admin, developer, billing; then whoever is of another tenant, in every role; then
/// nobody. Last, what a success writes into the audit log: exactly that. The first is the route's own entry, the others
/// are what comes along with it.
const TABLE: &str = "
GET    /openapi.json                                    200 200 200 200 200  200 200
GET    /me                                              200 200 200 200 200  200 401
POST   /sign-up                                         201 201 201 201 201  201 201  account.create tenant.create member.add
GET    /tenants                                         200 403 403 403 403  403 401
POST   /tenants                                         201 403 403 403 403  403 401  tenant.create member.add
GET    /tenants/{tenant}                                200 200 200 200 200  404 401
PATCH  /tenants/{tenant}                                200 200 200 403 403  404 401  tenant.rename
POST   /tenants/{tenant}/approve                        200 403 403 403 403  404 401  tenant.approve key.create
POST   /tenants/{tenant}/suspend                        200 403 403 403 403  404 401  tenant.suspend
POST   /tenants/{tenant}/resume                         200 403 403 403 403  404 401  tenant.resume
GET    /tenants/{tenant}/members                        200 200 200 200 200  404 401
GET    /tenants/{tenant}/members/{account}              200 200 200 200 200  404 401
PATCH  /tenants/{tenant}/members/{account}              200 200 200 403 403  404 401  member.change
DELETE /tenants/{tenant}/members/{account}              204 204 204 403 403  404 401  member.change
GET    /tenants/{tenant}/invitations                    200 200 200 403 403  404 401
POST   /tenants/{tenant}/invitations                    201 201 201 403 403  404 401  invitation.create
GET    /tenants/{tenant}/invitations/{invitation}       200 200 200 403 403  404 401
DELETE /tenants/{tenant}/invitations/{invitation}       204 204 204 403 403  404 401  invitation.withdraw
POST   /invitations/look                                200 200 200 200 200  200 200
POST   /invitations/accept                              200 200 200 200 200  200 200  account.create member.add invitation.accept
GET    /tenants/{tenant}/apps                           200 200 200 200 403  404 401
POST   /tenants/{tenant}/apps                           201 201 201 201 403  404 401  app.create
GET    /tenants/{tenant}/apps/{app}                     200 200 200 200 403  404 401
PATCH  /tenants/{tenant}/apps/{app}                     200 200 200 200 403  404 401  app.update
DELETE /tenants/{tenant}/apps/{app}                     204 204 204 403 403  404 401  app.delete
POST   /tenants/{tenant}/apps/{app}/regenerate-secret   200 200 200 200 403  404 401  app.regenerate_secret
GET    /tenants/{tenant}/apps/{app}/allowed-domains     200 200 200 200 403  404 401
PUT    /tenants/{tenant}/apps/{app}/allowed-domains     200 200 200 200 403  404 401  app.update
GET    /plans                                           200 200 200 200 200  200 401
GET    /plans/{plan}                                    200 200 200 200 200  200 401
POST   /plans                                           201 403 403 403 403  403 401  plan.create
PUT    /plans/{plan}                                    200 403 403 403 403  403 401  plan.change
POST   /plans/{plan}/offer                              200 403 403 403 403  403 401  plan.offer
POST   /plans/{plan}/retire                             200 403 403 403 403  403 401  plan.retire
GET    /tenants/{tenant}/subscriptions                  200 200 200 200 200  404 401
GET    /tenants/{tenant}/apps/{app}/subscription        200 200 200 200 200  404 401
POST   /tenants/{tenant}/apps/{app}/subscription        200 200 403 403 200  404 401  subscription.change
POST   /tenants/{tenant}/apps/{app}/subscription/preview 200 200 403 403 200  404 401
POST   /tenants/{tenant}/apps/{app}/subscription/cancel 200 200 403 403 200  404 401  subscription.cancel
POST   /tenants/{tenant}/apps/{app}/subscription/uncancel 200 200 403 403 200  404 401  subscription.uncancel
POST   /tenants/{tenant}/apps/{app}/subscription/end    204 403 403 403 403  404 401  subscription.end invoice.credit
GET    /tenants/{tenant}/apps/{app}/usage               200 200 200 200 200  404 401
GET    /tenants/{tenant}/apps/{app}/usage/history       200 200 200 200 200  404 401
GET    /invoices                                        200 403 403 403 403  403 401
GET    /tenants/{tenant}/invoices                       200 200 200 403 200  404 401
GET    /tenants/{tenant}/invoices/{invoice}             200 200 200 403 200  404 401
POST   /tenants/{tenant}/invoices/{invoice}/mark-paid   200 403 403 403 403  404 401  invoice.pay
POST   /tenants/{tenant}/invoices/{invoice}/write-off   200 403 403 403 403  404 401  invoice.write_off
POST   /tenants/{tenant}/invoices/{invoice}/checkout    200 200 403 403 200  404 401
GET    /tenants/{tenant}/keys                           200 200 200 200 403  404 401
POST   /tenants/{tenant}/keys/rotate                    202 202 202 403 403  404 401  key.rotate
GET    /tenants/{tenant}/keys/{kid}                     200 200 200 200 403  404 401
POST   /tenants/{tenant}/keys/{kid}/revoke              200 200 200 403 403  404 401  key.revoke
GET    /nodes                                           200 403 403 403 403  403 401
POST   /nodes/enrolment-secrets                         201 403 403 403 403  403 401  node.create_enrolment
GET    /nodes/{node}                                    200 403 403 403 403  403 401
DELETE /nodes/{node}                                    204 403 403 403 403  403 401  node.remove
POST   /nodes/{node}/drain                              200 403 403 403 403  403 401  node.drain
POST   /nodes/{node}/undrain                            200 403 403 403 403  403 401  node.undrain
GET    /tenants/{tenant}/api-keys                       200 200 200 200 200  404 401
POST   /tenants/{tenant}/api-keys                       201 201 201 201 403  404 401  api_key.create
GET    /tenants/{tenant}/api-keys/{apiKey}              200 200 200 200 200  404 401
DELETE /tenants/{tenant}/api-keys/{apiKey}              204 204 204 204 403  404 401  api_key.revoke
GET    /api-keys                                        200 403 403 403 403  403 401
POST   /api-keys                                        201 403 403 403 403  403 401  api_key.create
GET    /api-keys/{apiKey}                               200 403 403 403 403  403 401
DELETE /api-keys/{apiKey}                               204 403 403 403 403  403 401  api_key.revoke
GET    /tenants/{tenant}/audit                          200 200 200 403 403  404 401
GET    /tenants/{tenant}/audit/export                   200 200 200 403 403  404 401
GET    /audit                                           200 403 403 403 403  403 401
GET    /audit/export                                    200 403 403 403 403  403 401
";

const CALLERS: [&str; 7] =
    ["operator", "owner", "admin", "developer", "billing", "another tenant's", "nobody"];

struct Row {
    method: &'static str,
    path: &'static str,
    statuses: Vec<u16>,
    audit: Vec<&'static str>,
}

fn rows() -> Vec<Row> {
    let row = |line: &'static str| {
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let statuses = words.by_ref().take(CALLERS.len()).map(|word| word.parse().unwrap()).collect();
        Row { method, path, statuses, audit: words.collect() }
    };
    TABLE.lines().filter(|line| !line.is_empty()).map(row).collect()
}

/// The tenant that routes are about, and who calls.
struct Cast {
    stage: Stage,
    tenant: Uuid,
    /// A member whose membership is changed.
    spare: Uuid,
    /// The secrets of each caller's keys: one, or those of every role, or none.
    keys: Vec<Vec<Option<String>>>,
    /// What makes names and addresses different.
    count: u32,
}

impl Cast {
    async fn new(stage: Stage) -> Self {
        let (tenant, own) = team(&stage, "own").await;
        let (_, others) = team(&stage, "other").await;
        let operator = stage.api_key(&stage.operator, None, Role::Operator).await;
        let mut keys = vec![vec![Some(operator)]];
        keys.extend(own.into_iter().map(|key| vec![Some(key)]));
        keys.push(others.into_iter().map(Some).collect());
        keys.push(vec![None]);
        let spare = stage.account("spare@example.com").await;
        Self { stage, tenant, spare, keys, count: 0 }
    }

    fn fresh(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}-{}", self.count)
    }

    async fn run(&self, sql: &'static str) {
        let mut tx = self.stage.dashboard.home.begin().await.unwrap();
        query(sql).bind(self.tenant.to_string()).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Makes what the path names, and brings the tenant into the state in which the route succeeds; the path.
    async fn set(&mut self, row: &Row) -> String {
        let state = match row.path.rsplit('/').next().unwrap() {
            "approve" => "UPDATE tenants SET state = 'pending' WHERE id = $1",
            "resume" => "UPDATE tenants SET state = 'suspended' WHERE id = $1",
            _ => "UPDATE tenants SET state = 'active' WHERE id = $1",
        };
        self.run(state).await;
        self.run("DELETE FROM signing_keys WHERE tenant_id = $1 AND state = 'next'").await;
        if row.path.ends_with("/approve") {
            self.run("DELETE FROM signing_keys WHERE tenant_id = $1").await;
        }
        if row.path.contains("/keys/") {
            self.ensure_key().await;
        }
        if row.path.contains("/subscription") || row.path.contains("/invoice") {
            self.forget_money().await;
        }
        let mut path = row.path.replace("{tenant}", &self.tenant.to_string());
        for name in ["account", "invitation", "app", "invoice", "plan", "kid", "node", "apiKey"] {
            let name_in_path = format!("{{{name}}}");
            if path.contains(&name_in_path) {
                let id = self.make(name, row.path).await;
                path = path.replace(&name_in_path, &id);
            }
        }
        path
    }

    /// The tenant has a key that signs.
    async fn ensure_key(&self) {
        let (dashboard, operator) = (&self.stage.dashboard, &self.stage.operator);
        let keys = keys::list(dashboard, operator, self.tenant).await.unwrap();
        if !keys.iter().any(|key| key.state == "active") {
            self.run("UPDATE tenants SET state = 'pending' WHERE id = $1").await;
            tenants::approve(dashboard, operator, self.tenant).await.unwrap();
        }
    }

    /// The tenant owes nothing and has no plans: what a route does to money is its own doing.
    async fn forget_money(&self) {
        for forget in [
            "DELETE FROM payments WHERE tenant_id = $1",
            "DELETE FROM invoice_lines WHERE tenant_id = $1",
            "DELETE FROM invoices WHERE tenant_id = $1",
            "DELETE FROM subscriptions WHERE tenant_id = $1",
        ] {
            self.run(forget).await;
        }
    }

    /// A new app's plan in the state in which the route about it succeeds.
    async fn subscribe(&self, app: Uuid, path: &str) {
        let (dashboard, operator) = (&self.stage.dashboard, &self.stage.operator);
        let app = AppId { tenant: self.tenant, app };
        let is_about_one = ["/subscription", "/cancel", "/uncancel", "/end"];
        if is_about_one.iter().any(|end| path.ends_with(end)) {
            subscriptions::pick(dashboard, operator, app, "starter", None).await.unwrap();
        }
        if path.ends_with("/uncancel") {
            subscriptions::cancel(dashboard, operator, app).await.unwrap();
        }
    }

    async fn make(&mut self, what: &str, path: &str) -> String {
        let name = self.fresh(what);
        let (dashboard, operator) = (&self.stage.dashboard, &self.stage.operator);
        let tenant = path.contains("{tenant}").then_some(self.tenant);
        match what {
            "account" => {
                let _ = members::change(dashboard, operator, self.tenant, self.spare, None).await;
                let added = members::add(dashboard, operator, self.tenant, self.spare, Role::Developer).await;
                added.unwrap();
                self.spare.to_string()
            }
            "invitation" => {
                let email = format!("{name}@example.com");
                let made =
                    invitations::create(dashboard, operator, self.tenant, &email, Role::Developer).await;
                made.unwrap().id.to_string()
            }
            "app" => {
                let new = NewApp { name, region: LicenseRegion::EuWest1, allowed_domains: vec![] };
                let app = apps::create(dashboard, operator, self.tenant, new).await.unwrap().app;
                self.subscribe(app, path).await;
                app.to_string()
            }
            "plan" => {
                let terms = PlanTerms {
                    name: name.clone(),
                    max_connections: 1,
                    max_documents: 1,
                    max_users_per_doc: 1,
                    ops_per_minute: 1,
                    price_cents: 1,
                    currency: "USD".to_owned(),
                    period: Cadence::Year,
                };
                plans::create(dashboard, operator, &name, terms).await.unwrap().id
            }
            "invoice" => {
                let new = NewApp { name, region: LicenseRegion::UsEast1, allowed_domains: vec![] };
                let app = apps::create(dashboard, operator, self.tenant, new).await.unwrap().app;
                let app = AppId { tenant: self.tenant, app };
                let picked = subscriptions::pick(dashboard, operator, app, "starter", None).await.unwrap();
                picked.invoice.unwrap().to_string()
            }
            "kid" => {
                let keys = keys::list(dashboard, operator, self.tenant).await.unwrap();
                keys.into_iter().find(|key| key.state == "active").unwrap().kid
            }
            "node" => {
                let secret = nodes::create_enrolment(dashboard, operator, 1, 1).await.unwrap();
                let node = nodes::Introduction {
                    name,
                    region: LicenseRegion::EuWest1,
                    cluster: "blue".to_owned(),
                    public_url: "wss://eu-1.example.com".parse().unwrap(),
                    capacity: 1,
                    version: "0.1.0".to_owned(),
                };
                let name = node.name.clone();
                let enrolled = nodes::enrol(dashboard, operator, &secret, node).await.unwrap();
                if path.ends_with("/undrain") {
                    nodes::drain(dashboard, operator, &name).await.unwrap();
                }
                enrolled.node.to_string()
            }
            "apiKey" => {
                let role = if tenant.is_some() { Role::Developer } else { Role::Operator };
                let new = api_keys::NewApiKey { name, role, expires_at: None };
                api_keys::create(dashboard, operator, tenant, new).await.unwrap().key.id.to_string()
            }
            _ => unreachable!("{what}"),
        }
    }

    /// A body that is right.
    async fn body(&mut self, row: &Row) -> Option<Value> {
        let name = self.fresh("name");
        let email = format!("{name}@example.com");
        Some(match (row.method, row.path) {
            ("POST", "/sign-up") => {
                json!({ "email": email, "name": name, "password": PASSWORD, "tenantName": name })
            }
            ("POST", "/tenants") => json!({ "name": name, "ownerEmail": "spare@example.com" }),
            ("PATCH", "/tenants/{tenant}") => json!({ "name": name }),
            ("PATCH", "/tenants/{tenant}/members/{account}") => json!({ "role": "billing" }),
            ("POST", "/tenants/{tenant}/invitations") => json!({ "email": email, "role": "developer" }),
            ("POST", "/invitations/look" | "/invitations/accept") => {
                let (dashboard, operator) = (&self.stage.dashboard, &self.stage.operator);
                let made =
                    invitations::create(dashboard, operator, self.tenant, &email, Role::Developer).await;
                made.unwrap();
                let token = self.stage.invitation_token(&email);
                if row.path.ends_with("look") {
                    json!({ "token": token })
                } else {
                    json!({ "token": token, "name": name, "password": PASSWORD })
                }
            }
            ("POST", "/tenants/{tenant}/apps") => json!({ "name": name, "region": "aws-eu-west-1" }),
            ("PATCH", "/tenants/{tenant}/apps/{app}") => json!({ "name": name }),
            ("PUT", "/tenants/{tenant}/apps/{app}/allowed-domains") => {
                json!({ "allowedDomains": ["a.example.com"] })
            }
            ("POST", "/plans") => {
                let mut plan = terms();
                plan["id"] = name.into();
                plan
            }
            ("PUT", "/plans/{plan}") => terms(),
            ("POST", "/tenants/{tenant}/apps/{app}/subscription") => json!({ "plan": "pro" }),
            ("POST", "/tenants/{tenant}/apps/{app}/subscription/preview") => json!({ "plan": "starter" }),
            ("POST", path) if path.starts_with("/tenants/{tenant}/invoices/") => json!({}),
            ("POST", "/nodes/enrolment-secrets") => json!({}),
            ("POST", "/tenants/{tenant}/api-keys") => json!({ "name": name, "role": "developer" }),
            ("POST", "/api-keys") => json!({ "name": name }),
            _ => return None,
        })
    }

    /// The actions of what was written after the entry `seq`, and the last entry.
    async fn audited(&self, seq: i64) -> (Vec<String>, i64) {
        let page = audit::entries(&self.stage.dashboard.home, seq, 1000, None).await.unwrap();
        let last = page.last().map_or(seq, |entry| entry.seq);
        (page.into_iter().map(|entry| entry.event.action).collect(), last)
    }
}

fn terms() -> Value {
    let limits = json!({ "maxConnections": 9, "maxDocuments": 8, "maxUsersPerDoc": 7, "opsPerMinute": 60 });
    json!({ "name": "Pro", "limits": limits, "priceCents": 100, "currency": "USD", "period": "month" })
}

/// A tenant with a key of each role, made by a member with that role.
async fn team(stage: &Stage, name: &str) -> (Uuid, Vec<String>) {
    let (tenant, owner) = stage.tenant(&format!("{name}-owner@example.com")).await;
    let mut keys = Vec::new();
    for (role, role_name) in MEMBER_ROLES {
        let maker = if role == Role::Owner {
            owner.clone()
        } else {
            let account = stage.account(&format!("{name}-{role_name}@example.com")).await;
            members::add(&stage.dashboard, &owner, tenant, account, role).await.unwrap();
            Actor::account(account, None)
        };
        keys.push(stage.api_key(&maker, Some(tenant), role).await);
    }
    (tenant, keys)
}

pub async fn every_route_answers_each_role_as_the_table_says_and_is_in_the_audit_log(stage: Stage) {
    let rows = rows();
    let document = stage.call("GET", "/openapi.json").send().await.json;
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            // They have other callers, and tests of their own: `oauth`, `nodes`.
            if operation["tags"] == json!(["tokens"]) || operation["tags"] == json!(["node side"]) {
                continue;
            }
            described.insert((method.to_uppercase(), path.trim_start_matches("/api/v1").to_owned()));
        }
    }
    let tabled: BTreeSet<_> = rows.iter().map(|row| (row.method.to_owned(), row.path.to_owned())).collect();
    assert_eq!(tabled, described, "the table has every route and no other");

    let mut cast = Cast::new(stage).await;
    let mut wrong = Vec::new();
    let mut last = 0;
    for row in &rows {
        for (index, caller) in CALLERS.iter().enumerate() {
            for key in cast.keys[index].clone() {
                let path = cast.set(row).await;
                let body = cast.body(row).await;
                last = cast.audited(last).await.1;
                let mut call = cast.stage.call(row.method, &path).with("if-match", "*");
                if let Some(key) = &key {
                    call = call.by(key);
                }
                let answer = match body {
                    Some(body) => call.json(body).await,
                    None => call.send().await,
                };
                let what = format!("{} {} by {caller}", row.method, row.path);
                let expected = StatusCode::from_u16(row.statuses[index]).unwrap();
                if answer.status != expected {
                    wrong.push(format!("{what}: {} and not {expected}: {}", answer.status, answer.json));
                }
                let (written, _) = cast.audited(last).await;
                let should: &[&str] = if expected.is_success() { &row.audit } else { &[] };
                if written != should {
                    wrong.push(format!("{what}: the audit log has {written:?} and not {should:?}"));
                }
                if answer.status.is_client_error() {
                    let kind = answer.header("content-type");
                    assert_eq!(kind, "application/problem+json", "{what}: {}", answer.json);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for row in &rows {
        let only_looks = ["/look", "/preview", "/checkout"].iter().any(|end| row.path.ends_with(end));
        let changes = row.method != "GET" && !only_looks;
        assert_eq!(changes, !row.audit.is_empty(), "what changes something is audited: {}", row.path);
    }
    audit::verify(&cast.stage.dashboard.home).await.unwrap();
}
