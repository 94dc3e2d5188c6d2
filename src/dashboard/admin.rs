//! `wiresocket admin`: what an operator does from the host's command line, on the same databases as the dashboard and
//! while it runs. Each command prints one line of JSON, so that scripts can use it; the audit log names `command-line`.

use std::path::PathBuf;

use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{Actor, Role};
use super::accounts::{self, AccountError};
use super::api_keys::{self, ApiKeyError, NewApiKey};
use super::apps::{self, AppError, NewApp};
use super::audit::{self, Broken};
use super::billing::invoices::{self, Invoice, InvoiceError};
use super::config::Config;
use super::domains::AllowedDomain;
use super::keys::{self, KeysError};
use super::master::{self, MasterKeyError};
use super::nodes::{self, NodeError};
use super::region::LicenseRegion;
use super::subscriptions::{self, AppId, SubscriptionError};
use super::tenants::{self, TenantError};
use super::usage::{self, Point, Resolution, UsageError};
use super::{Dashboard, OpenError};

#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Write a new master key into a file that is not there yet
    GenerateMasterKey { file: PathBuf },
    /// Make an operator's account; prints its one-time password
    CreateOperator {
        email: String,
        #[arg(long, default_value = "Operator")]
        name: String,
    },
    /// Give an account a new one-time password
    ResetPassword { email: String },
    /// Make a tenant whose owner is the account with this e-mail address; an account that is missing is made
    CreateTenant {
        name: String,
        #[arg(long, value_name = "EMAIL")]
        owner: String,
        /// Approve it at once: it gets its key pair
        #[arg(long)]
        approve: bool,
    },
    /// List the tenants with their states
    ListTenants,
    /// Make a pending tenant active, with its own key pair
    Approve { tenant: Uuid },
    /// End token issuing for a tenant
    Suspend { tenant: Uuid },
    /// Make a suspended tenant active again
    Resume { tenant: Uuid },
    /// Make an app; prints its credentials, the secret this once
    CreateApp {
        tenant: Uuid,
        name: String,
        #[arg(long, default_value = "aws-us-east-1", value_name = "CODE")]
        region: LicenseRegion,
        /// A host, or host:port, whose pages may use the app; up to three times [default: any]
        #[arg(long = "allow-domain", value_name = "HOST")]
        allowed_domains: Vec<AllowedDomain>,
        /// Put it on this plan
        #[arg(long)]
        plan: Option<String>,
    },
    /// Give an app a new secret; the old one and its refresh tokens are dead at once
    RegenerateSecret { tenant: Uuid, app: Uuid },
    /// Publish a tenant's next signing key, which takes over when every verifier has it
    RotateKey { tenant: Uuid },
    /// Take a signing key back: every token and session signed with it ends
    RevokeKey {
        tenant: Uuid,
        /// As /<TENANT>/.well-known/jwks has it; one in 64 begins with a hyphen.
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
    /// Seal all private keys anew under the newest master key; the older ones can then be removed
    RotateMasterKey,
    /// Put an app on another plan, or on its first one
    PickPlan { tenant: Uuid, app: Uuid, plan: String },
    /// List every tenant's open invoices
    ListOpenInvoices,
    /// Note that an invoice was paid
    MarkPaid {
        tenant: Uuid,
        invoice: Uuid,
        /// In cents [default: all that is due]
        #[arg(long, value_name = "CENTS")]
        amount: Option<i64>,
        /// What the payment can be found by, such as a bank's reference
        #[arg(long, default_value = "", hide_default_value = true)]
        reference: String,
    },
    /// Make a secret with which nodes can enrol; printed this once
    CreateEnrolmentSecret {
        /// How many nodes it lets in
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: i64,
        /// For how many days
        #[arg(long, default_value_t = 1, value_name = "N")]
        days: i64,
    },
    /// Make an API key, an operators' one unless a tenant is named; printed this once
    CreateApiKey {
        name: String,
        #[arg(long, requires = "role")]
        tenant: Option<Uuid>,
        #[arg(long, requires = "tenant", value_parser = ["owner", "admin", "developer", "billing"])]
        role: Option<String>,
        /// For how many days [default: until it is revoked]
        #[arg(long, value_name = "N")]
        days: Option<i64>,
    },
    /// List the nodes with their states and loads
    ListNodes,
    /// Drain a node: it takes no new sessions, and its living ones are asked to leave
    DrainNode { name: String },
    /// Let a drained node take sessions again
    UndrainNode { name: String },
    /// Take a node out of the registry; its credential is dead at once
    RemoveNode { name: String },
    /// What an app uses now, against its plan's limits, and the minutes of the last hour in which it used anything
    Usage { tenant: Uuid, app: Uuid },
    /// Check the audit log's chain; prints its length and last hash, to be noted elsewhere
    VerifyAudit,
}

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("could not start a runtime")]
    Runtime(#[source] std::io::Error),
    #[error("say which dashboard: wiresocket admin --config FILE …")]
    NoConfig,
    #[error("there is no account with the e-mail address {0}")]
    NoAccount(String),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Tenant(#[from] TenantError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    #[error(transparent)]
    Invoice(#[from] InvoiceError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    ApiKey(#[from] ApiKeyError),
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Audit(#[from] Broken),
}

impl Command {
    /// Whether it needs the dashboard's configuration.
    #[must_use]
    pub fn needs_config(&self) -> bool {
        !matches!(self, Self::GenerateMasterKey { .. })
    }
}

/// Carries a command out; what it returns belongs on standard output.
///
/// # Errors
/// [`AdminError`] says what was attempted and what to do.
pub fn run(config: Option<Config>, command: Command) -> Result<Value, AdminError> {
    if let Command::GenerateMasterKey { file } = &command {
        master::generate(file)?;
        return Ok(json!({ "masterKey": file }));
    }
    let config = config.ok_or(AdminError::NoConfig)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AdminError::Runtime)?;
    runtime.block_on(async {
        let dashboard = Dashboard::open(config).await?;
        let done = carry_out(&dashboard, command).await;
        dashboard.close().await;
        done
    })
}

async fn carry_out(dashboard: &Dashboard, command: Command) -> Result<Value, AdminError> {
    let actor = Actor::command_line();
    let unreadable = |error: super::store::StoreError| AdminError::Account(error.into());
    match command {
        Command::GenerateMasterKey { file } => Ok(json!({ "masterKey": file })),
        Command::CreateOperator { email, name } => {
            let (account, password) = accounts::create_operator(dashboard, &actor, &email, &name).await?;
            Ok(json!({ "account": account, "oneTimePassword": password }))
        }
        Command::ResetPassword { email } => {
            let account = accounts::by_email(dashboard, &email).await.map_err(unreadable)?;
            let account = account.ok_or(AdminError::NoAccount(email))?;
            let password = accounts::reset_password(dashboard, &actor, account.id).await?;
            Ok(json!({ "account": account.id, "oneTimePassword": password }))
        }
        Command::CreateTenant { name, owner, approve } => {
            create_tenant(dashboard, &actor, &name, &owner, approve).await
        }
        Command::ListTenants => {
            let tenants = tenants::list(dashboard, &actor, None, None, i64::MAX).await?;
            let each =
                tenants.iter().map(|t| json!({ "tenant": t.id, "name": t.name, "state": t.state.as_str() }));
            Ok(each.collect())
        }
        Command::Approve { tenant } => {
            tenants::approve(dashboard, &actor, tenant).await?;
            Ok(json!({ "tenant": tenant, "state": "active" }))
        }
        Command::Suspend { tenant } => {
            tenants::suspend(dashboard, &actor, tenant).await?;
            Ok(json!({ "tenant": tenant, "state": "suspended" }))
        }
        Command::Resume { tenant } => {
            tenants::resume(dashboard, &actor, tenant).await?;
            Ok(json!({ "tenant": tenant, "state": "active" }))
        }
        Command::CreateApp { tenant, name, region, allowed_domains, plan } => {
            let new = NewApp { name, region, allowed_domains };
            create_app(dashboard, &actor, tenant, new, plan.as_deref()).await
        }
        Command::RegenerateSecret { tenant, app } => {
            let app = apps::read(dashboard, &actor, tenant, app).await?;
            let credentials = apps::regenerate_secret(dashboard, &actor, &app).await?;
            Ok(credentials_json(tenant, &credentials))
        }
        Command::RotateKey { tenant } => {
            let rotation = keys::rotate(dashboard, &actor, tenant).await?;
            Ok(json!({ "tenant": tenant, "kid": rotation.kid, "signsAt": rotation.signs_at }))
        }
        Command::RevokeKey { tenant, kid } => {
            keys::revoke(dashboard, &actor, tenant, &kid).await?;
            Ok(json!({ "tenant": tenant, "revoked": kid }))
        }
        Command::RotateMasterKey => Ok(json!({ "resealed": keys::reseal(dashboard, &actor).await? })),
        Command::PickPlan { tenant, app, plan } => {
            let app = AppId { tenant, app };
            let picked = subscriptions::pick(dashboard, &actor, app, &plan, None).await?;
            Ok(json!({ "subscription": picked.subscription, "invoice": picked.invoice }))
        }
        Command::ListOpenInvoices => {
            let open = invoices::list_open(dashboard, &actor, 0, i64::MAX).await?;
            Ok(open.iter().map(invoice_json).collect())
        }
        Command::MarkPaid { tenant, invoice, amount, reference } => {
            let paid = invoices::mark_paid(dashboard, &actor, tenant, invoice, amount, &reference).await?;
            Ok(invoice_json(&paid))
        }
        Command::CreateEnrolmentSecret { uses, days } => {
            let secret = nodes::create_enrolment(dashboard, &actor, uses, days).await?;
            Ok(json!({ "enrolmentSecret": secret, "uses": uses, "days": days }))
        }
        Command::CreateApiKey { name, tenant, role, days } => {
            let role = role.and_then(|role| role.parse().ok()).unwrap_or(Role::Operator);
            let expires_at = days.map(|days| dashboard.now().saturating_add(days.saturating_mul(86_400)));
            let new = NewApiKey { name, role, expires_at };
            let created = api_keys::create(dashboard, &actor, tenant, new).await?;
            Ok(json!({ "apiKey": created.secret, "id": created.key.id, "role": role.as_str() }))
        }
        Command::ListNodes => Ok(nodes::list(dashboard, &actor).await?.iter().map(node_json).collect()),
        Command::DrainNode { name } => {
            nodes::drain(dashboard, &actor, &name).await?;
            Ok(json!({ "node": name, "wanted": "draining" }))
        }
        Command::UndrainNode { name } => {
            nodes::undrain(dashboard, &actor, &name).await?;
            Ok(json!({ "node": name, "wanted": "active" }))
        }
        Command::RemoveNode { name } => {
            nodes::remove(dashboard, &actor, &name).await?;
            Ok(json!({ "removed": name }))
        }
        Command::Usage { tenant, app } => usage_of(dashboard, &actor, tenant, app).await,
        Command::VerifyAudit => {
            let (entries, hash) = audit::verify(&dashboard.home).await?;
            Ok(json!({ "entries": entries, "hash": hash }))
        }
    }
}

async fn create_tenant(
    dashboard: &Dashboard,
    actor: &Actor,
    name: &str,
    owner: &str,
    approve: bool,
) -> Result<Value, AdminError> {
    let (account, password) = accounts::ensure(dashboard, actor, owner, name).await?;
    let tenant = tenants::create(dashboard, actor, name, account).await?;
    if approve {
        tenants::approve(dashboard, actor, tenant).await?;
    }
    Ok(json!({ "tenant": tenant, "owner": account, "oneTimePassword": password }))
}

async fn create_app(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    new: NewApp,
    plan: Option<&str>,
) -> Result<Value, AdminError> {
    let credentials = apps::create(dashboard, actor, tenant, new).await?;
    if let Some(plan) = plan {
        let app = apps::read(dashboard, actor, tenant, credentials.app).await?;
        if let Err(error) = subscriptions::subscribe(dashboard, actor, &app, plan).await {
            // All or nothing: nobody has the secret of an app that the command said it could not make.
            apps::delete(dashboard, actor, &app).await?;
            return Err(error.into());
        }
    }
    Ok(credentials_json(tenant, &credentials))
}

fn invoice_json(invoice: &Invoice) -> Value {
    json!({
        "invoice": invoice.id,
        "number": invoice.number,
        "tenant": invoice.tenant,
        "app": invoice.app,
        "state": invoice.state.as_str(),
        "totalCents": invoice.total_cents,
        "dueCents": invoice.due_cents(),
        "currency": invoice.currency,
        "dueAt": invoice.due_at,
    })
}

async fn usage_of(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    app: Uuid,
) -> Result<Value, AdminError> {
    let app = apps::read(dashboard, actor, tenant, app).await?;
    let live = usage::live(dashboard, actor, &app).await?;
    let now = dashboard.now();
    let hour =
        usage::history(dashboard, actor, &app, Resolution::Minutes, now - usage::HOUR_S, now + 1).await?;
    let used = hour.iter().filter(|point| (point.connections, point.documents, point.ops) != (0, 0, 0));
    let minutes: Value = used
        .map(|point| {
            let Point { at, connections, documents, ops, .. } = point;
            json!({ "at": at, "connections": connections, "documents": documents, "ops": ops })
        })
        .collect();
    Ok(json!({
        "app": app.id,
        "connections": live.connections,
        "documents": live.documents,
        "opsThisMinute": live.ops_this_minute,
        "nodes": live.nodes,
        "limits": live.plan.map(|plan| plan.limits()),
        "asOf": live.as_of,
        "isStale": live.is_stale,
        "minutes": minutes,
    }))
}

fn node_json(node: &nodes::Node) -> Value {
    json!({
        "node": node.id,
        "name": node.name,
        "region": node.region,
        "cluster": node.cluster,
        "publicUrl": node.public_url,
        "capacity": node.capacity,
        "version": node.version,
        "state": node.state.as_str(),
        "wanted": node.wanted.as_str(),
        "connections": node.connections,
        "documents": node.documents,
        "lastHeartbeatAt": node.last_heartbeat_at,
    })
}

fn credentials_json(tenant: Uuid, credentials: &apps::Credentials) -> Value {
    json!({
        "tenantId": tenant,
        "appId": credentials.app,
        "clientId": credentials.client_id,
        "clientSecret": credentials.client_secret,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    /// A key id is base64url. Whoever has to revoke one is in a hurry.
    #[test]
    fn a_key_id_may_begin_with_a_hyphen() {
        let line = [
            "admin",
            "revoke-key",
            "66d2ff53-c646-4613-9e71-10bcc5dc333b",
            "-c9q1lNyGmUSjkE75qek6miqq0X4pfuV60",
        ];
        let Ok(Line { command: Command::RevokeKey { kid, .. } }) = Line::try_parse_from(line) else {
            panic!("not taken: {:?}", Line::try_parse_from(line));
        };
        assert_eq!(kid, line[3]);
    }
}
