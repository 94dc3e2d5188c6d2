//! Billing: what subscriptions cost, the invoices that come of it, and how they are paid.
//!
//! ```text
//! subscriptions ──lines──► ledger ──► invoices ◄── payments ◄── an operator, or a provider's signed webhook
//! (pick, renew, end)        (waiting, or on an invoice)             │
//!        ▲                                                          │
//!        └──────────────── paid: past_due and disabled are over ◄───┘
//! ```
//!
//! - Money is integer cents. The arithmetic (`money`, `calendar`) is pure and property-tested.
//! - Whoever touches a tenant's money takes the tenant's lock first (`ledger::lock`): changes are one after the other, so
//!   here, and only here, reading and then writing is safe. Locks come in one order: the account, the invoices' number,
//!   the audit log.
//! - An invoice is what it was when it was issued: its lines and its total never change. What happens to it later is
//!   written beside them: payments, refunds, credit that arose afterwards.
//!
//! Absent: taxes, card numbers, sending mail, anything that asks a provider over the network.

mod calendar;
pub mod invoices;
pub(super) mod ledger;
mod money;
pub mod payments;
pub mod providers;
pub mod standard_webhooks;
pub mod webhooks;

pub use calendar::{Cadence, UnknownCadence, date};
pub(super) use money::{Change, begin, change, period_line, unused_line};
pub use money::{Line, LineKind, Price, Span};
