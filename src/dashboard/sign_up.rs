//! Sign-up: an account and its pending tenant, both or neither.

use std::fmt;

use uuid::Uuid;

use super::Dashboard;
use super::access::Actor;
use super::accounts::{self, AccountError, NewAccount, normal_name};
use super::random;
use super::store::StoreError;
use super::tenants::{self, TenantError};

/// What somebody who is new says of himself.
#[derive(Clone)]
pub struct Newcomer<'a> {
    pub email: &'a str,
    pub name: &'a str,
    pub password: &'a str,
    pub tenant_name: &'a str,
}

impl fmt::Debug for Newcomer<'_> {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Newcomer").field("email", &self.email).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedUp {
    pub account: Uuid,
    pub tenant: Uuid,
}

#[derive(Debug, thiserror::Error)]
pub enum SignUpError {
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Tenant(#[from] TenantError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Anybody may; the tenant then waits for an operator's approval.
///
/// # Errors
/// [`SignUpError`] says what is wrong with the input, or that the address is taken.
pub async fn sign_up(
    dashboard: &Dashboard,
    actor: &Actor,
    newcomer: Newcomer<'_>,
) -> Result<SignedUp, SignUpError> {
    let tenant_name = normal_name(newcomer.tenant_name).ok_or(TenantError::Name)?;
    let hash = dashboard.passwords.hash(newcomer.password).await.map_err(AccountError::from)?;
    let (account, tenant, now) = (random::guid(), random::guid(), dashboard.now());
    let mut tx = dashboard.home.begin().await?;
    let Newcomer { email, name, .. } = newcomer;
    let new = NewAccount { id: account, email, name, hash, is_operator: false, one_time: false };
    accounts::insert_within(&mut tx, actor, now, new).await?;
    tenants::insert_within(&mut tx, actor, now, tenant, tenant_name, account).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(SignedUp { account, tenant })
}
