//! What may whom: the one table of rights, and the actor that every operation is handed.
//!
//! An operation calls [`require`] inside its transaction, so that a role taken away a moment ago no longer counts.
//! A tenant that the actor is no member of is answered like one that does not exist.

use std::net::IpAddr;

use uuid::Uuid;

use super::api_keys;
use super::store::{Columns, StoreError, Tx, query};

/// On whose behalf something is done, and from where; each audit entry holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub principal: Principal,
    pub address: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Nobody known: sign-up, an app's own client at the token endpoint.
    Anonymous,
    Account(Uuid),
    /// Automation, with the rights of its key and never more than whoever made the key has now.
    ApiKey(Uuid),
    /// A node, with its own credential; it has no rights but to speak of itself.
    Node(Uuid),
    /// Whoever may run `wiresocket admin` on the host: an operator.
    CommandLine,
    /// The dashboard itself: schedules.
    System,
}

impl Actor {
    #[must_use]
    pub fn account(id: Uuid, address: Option<IpAddr>) -> Self {
        Self { principal: Principal::Account(id), address }
    }

    #[must_use]
    pub fn command_line() -> Self {
        Self { principal: Principal::CommandLine, address: None }
    }

    #[must_use]
    pub fn system() -> Self {
        Self { principal: Principal::System, address: None }
    }

    #[must_use]
    pub fn anonymous(address: Option<IpAddr>) -> Self {
        Self { principal: Principal::Anonymous, address }
    }

    /// Whom [`Actor::name`] wrote, from no address: to ask later what somebody may who set something going.
    #[must_use]
    pub(super) fn of_name(name: &str) -> Self {
        let id = |text: &str| text.parse().ok();
        let principal = match name.split_once(':') {
            Some(("account", text)) => id(text).map(Principal::Account),
            Some(("api-key", text)) => id(text).map(Principal::ApiKey),
            None if name == "command-line" => Some(Principal::CommandLine),
            _ => None,
        };
        Self { principal: principal.unwrap_or(Principal::Anonymous), address: None }
    }

    /// As the audit log writes it.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.principal {
            Principal::Anonymous => "anonymous".to_owned(),
            Principal::Account(id) => format!("account:{id}"),
            Principal::ApiKey(id) => format!("api-key:{id}"),
            Principal::Node(id) => format!("node:{id}"),
            Principal::CommandLine => "command-line".to_owned(),
            Principal::System => "system".to_owned(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Of the platform, not of a tenant.
    Operator,
    Owner,
    Admin,
    Developer,
    Billing,
}

/// The roles that a member of a tenant can have, as they are stored.
pub const MEMBER_ROLES: [(Role, &str); 4] = [
    (Role::Owner, "owner"),
    (Role::Admin, "admin"),
    (Role::Developer, "developer"),
    (Role::Billing, "billing"),
];

impl Role {
    /// Whether it may do everything that the other may.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        RIGHTS.iter().all(|(action, _)| may(self, *action) || !may(other, *action))
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        MEMBER_ROLES.iter().find(|(role, _)| *role == self).map_or("operator", |(_, name)| name)
    }
}

impl std::str::FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        MEMBER_ROLES.iter().find(|(_, name)| *name == text).map(|(role, _)| *role).ok_or(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    // of the platform
    ReviewTenants,
    ManagePlans,
    ManagePayments,
    ManageNodes,
    ManageAccounts,
    IntrospectTokens,
    RotateMasterKey,
    ReadAllAudit,
    // of a tenant
    ReadTenant,
    RenameTenant,
    ManageMembers,
    ManageOwners,
    ReadApps,
    ChangeApps,
    DeleteApps,
    RegenerateSecrets,
    ReadKeys,
    RotateKeys,
    RevokeKeys,
    ReadSubscriptions,
    ReadBilling,
    ChangeSubscriptions,
    ReadAudit,
    ReadUsage,
    /// Of one's own rights at most: the table says who may have any, the role of a key what it may.
    ManageApiKeys,
}

use Action as A;
use Role::{Admin, Billing, Developer, Operator, Owner};

const EVERYBODY: &[Role] = &[Operator, Owner, Admin, Developer, Billing];

/// The table. An action that is not in it is nobody's.
pub const RIGHTS: &[(Action, &[Role])] = &[
    (A::ReviewTenants, &[Operator]),
    (A::ManagePlans, &[Operator]),
    (A::ManagePayments, &[Operator]),
    (A::ManageNodes, &[Operator]),
    (A::ManageAccounts, &[Operator]),
    (A::IntrospectTokens, &[Operator]),
    (A::RotateMasterKey, &[Operator]),
    (A::ReadAllAudit, &[Operator]),
    (A::ReadTenant, EVERYBODY),
    (A::RenameTenant, &[Operator, Owner, Admin]),
    (A::ManageMembers, &[Operator, Owner, Admin]),
    (A::ManageOwners, &[Operator, Owner]),
    (A::ReadApps, &[Operator, Owner, Admin, Developer]),
    (A::ChangeApps, &[Operator, Owner, Admin, Developer]),
    (A::DeleteApps, &[Operator, Owner, Admin]),
    (A::RegenerateSecrets, &[Operator, Owner, Admin, Developer]),
    (A::ReadKeys, &[Operator, Owner, Admin, Developer]),
    (A::RotateKeys, &[Operator, Owner, Admin]),
    (A::RevokeKeys, &[Operator, Owner, Admin]),
    (A::ReadSubscriptions, EVERYBODY),
    (A::ReadBilling, &[Operator, Owner, Admin, Billing]),
    (A::ChangeSubscriptions, &[Operator, Owner, Billing]),
    (A::ReadAudit, &[Operator, Owner, Admin]),
    (A::ReadUsage, EVERYBODY),
    (A::ManageApiKeys, EVERYBODY),
];

#[must_use]
pub fn may(role: Role, action: Action) -> bool {
    RIGHTS.iter().any(|(of, roles)| *of == action && roles.contains(&role))
}

/// Why an actor may not.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    #[error("log in first")]
    NotLoggedIn,
    #[error("there is no such tenant, or you are no member of it")]
    NoSuchTenant,
    #[error("this needs one of the roles {}; yours is {}", roles_of(.action), .role.map_or("none", Role::as_str))]
    Role { action: Action, role: Option<Role> },
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn roles_of(action: &Action) -> String {
    let roles = RIGHTS.iter().find(|(of, _)| of == action).map_or(&[][..], |(_, roles)| roles);
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

/// Lets the operation go on if the actor has a role that may do this, in this tenant or on the platform.
///
/// # Errors
/// [`Denied`] says what is missing.
pub async fn require(tx: &mut Tx, actor: &Actor, action: Action, tenant: Option<Uuid>) -> Result<(), Denied> {
    let account = match actor.principal {
        Principal::CommandLine | Principal::System => return Ok(()),
        Principal::Anonymous | Principal::Node(_) => return Err(Denied::NotLoggedIn),
        Principal::Account(id) => id,
        Principal::ApiKey(id) => return api_keys::require(tx, id, action, tenant).await,
    };
    let row = query("SELECT is_operator FROM accounts WHERE id = $1 AND disabled_at IS NULL")
        .bind(account.to_string())
        .fetch_optional(&mut **tx)
        .await
        .map_err(StoreError::from)?;
    let row = row.ok_or(Denied::NotLoggedIn)?;
    if row.int("is_operator")? == 1 && may(Role::Operator, action) {
        return Ok(());
    }
    let Some(tenant) = tenant else { return Err(Denied::Role { action, role: None }) };
    match role_in(tx, tenant, account).await? {
        None => Err(Denied::NoSuchTenant),
        Some(role) if may(role, action) => Ok(()),
        Some(role) => Err(Denied::Role { action, role: Some(role) }),
    }
}

/// The account's role in the tenant, if it is a member.
///
/// # Errors
/// [`StoreError`].
pub async fn role_in(tx: &mut Tx, tenant: Uuid, account: Uuid) -> Result<Option<Role>, StoreError> {
    let row = query("SELECT role FROM members WHERE tenant_id = $1 AND account_id = $2")
        .bind(tenant.to_string())
        .bind(account.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    row.map(|row| {
        let text = row.text("role")?;
        text.parse().map_err(|()| StoreError::Corrupt { what: "role", value: text })
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_one_row_and_operators_may_do_everything() {
        for (index, (action, roles)) in RIGHTS.iter().enumerate() {
            assert!(!RIGHTS[..index].iter().any(|(earlier, _)| earlier == action), "{action:?} twice");
            assert!(roles.contains(&Operator), "{action:?}");
        }
    }

    #[test]
    fn money_is_not_the_developers_and_apps_are_not_the_book_keepers() {
        assert!(!may(Developer, A::ChangeSubscriptions) && !may(Developer, A::ReadBilling));
        assert!(!may(Billing, A::ReadApps) && !may(Billing, A::RegenerateSecrets));
        assert!(may(Billing, A::ChangeSubscriptions) && may(Developer, A::ChangeApps));
        assert!(!may(Admin, A::ManageOwners), "an admin can't make himself an owner");
    }

    #[test]
    fn a_role_covers_what_may_nothing_else() {
        assert!(MEMBER_ROLES.iter().all(|(role, _)| Operator.covers(*role) && Owner.covers(*role)));
        assert!(Admin.covers(Developer) && Admin.covers(Admin) && !Admin.covers(Owner));
        assert!(!Admin.covers(Billing), "money is not the admin's");
        assert!(!Developer.covers(Billing) && !Billing.covers(Developer) && !Owner.covers(Operator));
    }

    #[test]
    fn an_actor_is_read_back_from_its_name() {
        for principal in
            [Principal::Account(Uuid::max()), Principal::ApiKey(Uuid::max()), Principal::CommandLine]
        {
            let actor = Actor { principal, address: None };
            assert_eq!(Actor::of_name(&actor.name()), actor);
        }
        assert_eq!(Actor::of_name("account:x").principal, Principal::Anonymous);
    }

    #[test]
    fn no_member_may_do_what_is_the_platforms() {
        for action in [A::ReviewTenants, A::ManagePlans, A::ManageNodes, A::IntrospectTokens, A::ReadAllAudit]
        {
            assert!(MEMBER_ROLES.iter().all(|(role, _)| !may(*role, action)), "{action:?}");
        }
    }
}
