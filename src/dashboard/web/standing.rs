//! How an app stands with its plan: what it has, until when, and what is late. One wording for every page that says so.

use askama::Template;
use uuid::Uuid;

use super::failure::Failure;
use super::page::Place;
use super::text::{Moment, amount};
use super::visit::Member;
use crate::dashboard::access::Action;
use crate::dashboard::billing::invoices::{self, Invoice};
use crate::dashboard::subscriptions::{self, AppPlan, Subscription};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Goes on at the moment that is named.
    Running,
    /// Cancelled: ends at that moment.
    Ending,
    /// A payment is late; no tokens from that moment on.
    Late,
    /// No tokens since that moment.
    Disabled,
}

/// An app's plan that has not ended.
#[derive(Debug)]
pub(super) struct Standing {
    pub subscription: Subscription,
    pub state: State,
    /// What the state names.
    pub at: Moment,
    app: String,
    tenant: String,
    /// What is overdue of it, as far as the one who looks may see invoices.
    overdue: Vec<InvoiceLink>,
    may_see_invoices: bool,
}

/// An invoice by its number.
#[derive(Debug)]
pub(super) struct InvoiceLink {
    pub number: i64,
    pub to: String,
    pub due: String,
}

/// State and moment in a line.
#[derive(Template)]
#[template(path = "standing.html")]
pub(super) struct Line<'a> {
    standing: &'a Standing,
}

/// What is late, and what to do about it.
#[derive(Template)]
#[template(path = "standing_late.html")]
pub(super) struct Late<'a> {
    standing: &'a Standing,
}

impl State {
    /// The badge's colour and words.
    pub fn badge(self) -> (&'static str, &'static str) {
        match self {
            Self::Running => ("active", "active"),
            Self::Ending => ("pending", "cancelled"),
            Self::Late => ("pending", "past due"),
            Self::Disabled => ("suspended", "disabled"),
        }
    }
}

impl InvoiceLink {
    pub fn new(place: &Place, invoice: &Invoice) -> Self {
        Self {
            number: invoice.number,
            to: place.at(&format!("billing/invoices/{}", invoice.id)),
            due: amount(invoice.due_cents(), &invoice.currency),
        }
    }
}

impl Standing {
    /// That of one app; `None` if it has no plan (any more).
    pub async fn of(member: &Member, place: &Place, app: Uuid) -> Result<Option<Self>, Failure> {
        let open = open_invoices(member, place).await?;
        let apps = subscriptions::list(member.dashboard(), &member.actor(), place.tenant.id).await?;
        Ok(Self::new(member, place, find(&apps, app)?.clone(), &open))
    }

    /// `None` if the app has no plan (any more). `open` is what [`open_invoices`] gave.
    pub fn new(member: &Member, place: &Place, app: AppPlan, open: &[Invoice]) -> Option<Self> {
        let (dashboard, subscription) = (member.dashboard(), app.subscription?);
        let now = dashboard.now();
        let has_run_out = subscription.cancelled_at.is_some() && subscription.period_end <= now;
        if subscription.ended_at.is_some() || has_run_out {
            return None;
        }
        let (state, at) = match (subscription.disabled_at, subscription.past_due_at) {
            (Some(since), _) => (State::Disabled, since),
            (None, Some(since)) => {
                let grace_end = since + dashboard.config.billing.grace_s;
                let is_last = subscription.cancelled_at.is_some();
                (State::Late, if is_last { grace_end.min(subscription.period_end) } else { grace_end })
            }
            (None, None) if subscription.cancelled_at.is_some() => (State::Ending, subscription.period_end),
            (None, None) => (State::Running, subscription.period_end),
        };
        let is_overdue =
            |invoice: &&Invoice| invoice.subscription == subscription.id && invoice.is_overdue(now);
        Some(Self {
            overdue: open.iter().filter(is_overdue).map(|invoice| InvoiceLink::new(place, invoice)).collect(),
            may_see_invoices: place.may(&Action::ReadBilling),
            tenant: place.tenant.name.clone(),
            app: app.name,
            at: Moment(at),
            state,
            subscription,
        })
    }

    /// The plan's name, with what is amiss.
    pub fn in_short(&self) -> String {
        let plan = &self.subscription.plan.name;
        match self.state {
            State::Running => plan.clone(),
            State::Ending | State::Late => format!("{plan}, {}", self.state.badge().1),
            State::Disabled => format!("{plan}, not paid: no tokens"),
        }
    }

    pub fn line(&self) -> Line<'_> {
        Line { standing: self }
    }

    /// Empty if nothing is late.
    pub fn late(&self) -> Late<'_> {
        Late { standing: self }
    }

    pub fn is_cancelled(&self) -> bool {
        self.subscription.cancelled_at.is_some()
    }

    pub fn has_tokens(&self) -> bool {
        self.state != State::Disabled
    }

    pub fn period_end(&self) -> Moment {
        Moment(self.subscription.period_end)
    }
}

/// The tenant's open invoices, if the one who looks may see any.
pub(super) async fn open_invoices(member: &Member, place: &Place) -> Result<Vec<Invoice>, Failure> {
    if !place.may(&Action::ReadBilling) {
        return Ok(Vec::new());
    }
    Ok(invoices::open_of(member.dashboard(), &member.actor(), place.tenant.id).await?)
}

/// Which of the apps is meant.
pub(super) fn find(apps: &[AppPlan], app: Uuid) -> Result<&AppPlan, Failure> {
    let found = apps.iter().find(|each| each.app == app);
    found.ok_or_else(|| Failure::missing("There is no such app."))
}
