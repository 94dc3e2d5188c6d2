//! Random histories of plans, payments and time, on two dashboards at once: the books add up after every step.

use uuid::Uuid;
use wiresocket::dashboard::billing::Cadence;
use wiresocket::dashboard::billing::invoices::{self, Invoice};
use wiresocket::dashboard::master::MasterKeys;
use wiresocket::dashboard::plans::{self, PlanTerms};
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::store::{Columns, query};
use wiresocket::dashboard::subscriptions::{self, AppId, SubscriptionError};

use crate::stage::Stage;

const STEPS: usize = 120;
const SEED: u64 = 0x5eed_0001;

/// xorshift64*: the same history on every run, and on both databases.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

async fn sum(stage: &Stage, sql: &'static str) -> i64 {
    query(sql).fetch_one(stage.dashboard.home.reader()).await.unwrap().int("n").unwrap()
}

async fn check(stage: &Stage, step: &str) {
    let wrong = sum(
        stage,
        "SELECT COUNT(*) AS n FROM invoices i WHERE total_cents <> \
         (SELECT CAST(COALESCE(SUM(amount_cents), 0) AS BIGINT) FROM invoice_lines l WHERE l.invoice_id = i.id)",
    )
    .await;
    assert_eq!(wrong, 0, "{step}: an invoice's lines don't add up");
    let charged = sum(
        stage,
        "SELECT CAST(COALESCE(SUM(amount_cents), 0) AS BIGINT) AS n FROM invoice_lines \
         WHERE kind IN ('period', 'unused', 'remaining')",
    )
    .await;
    let invoiced = sum(
        stage,
        "SELECT CAST(COALESCE(SUM(total_cents - credited_cents + overpaid_cents), 0) AS BIGINT) AS n FROM invoices",
    )
    .await;
    let waiting = sum(
        stage,
        "SELECT CAST(COALESCE(SUM(amount_cents), 0) AS BIGINT) AS n FROM invoice_lines WHERE invoice_id IS NULL",
    )
    .await;
    assert_eq!(charged, invoiced + waiting, "{step}: a cent was lost or invented");
    let received = sum(
        stage,
        "SELECT CAST(COALESCE(SUM(CASE WHEN kind = 'payment' THEN amount_cents ELSE -amount_cents END), 0) AS BIGINT) \
         AS n FROM payments",
    )
    .await;
    let booked = sum(
        stage,
        "SELECT CAST(COALESCE(SUM(paid_cents + overpaid_cents - refunded_cents), 0) AS BIGINT) AS n FROM invoices",
    )
    .await;
    assert_eq!(received, booked, "{step}: a payment was lost or counted twice");
    let numbers = sum(stage, "SELECT COUNT(*) - COALESCE(MAX(number), 0) AS n FROM invoices").await;
    assert_eq!(numbers, 0, "{step}: numbers of invoices have a gap");
    let settled = "SELECT COUNT(*) AS n FROM invoices \
                   WHERE (state = 'open') = (credited_cents + paid_cents = total_cents) AND state <> 'void'";
    assert_eq!(sum(stage, settled).await, 0, "{step}: an invoice is open and settled, or neither");
}

/// What is allowed to be refused.
fn tolerate<T: std::fmt::Debug>(step: &str, outcome: Result<T, SubscriptionError>) {
    match outcome {
        Ok(_)
        | Err(
            SubscriptionError::FreeTaken
            | SubscriptionError::Same
            | SubscriptionError::PastDue(_)
            | SubscriptionError::Unpaid(_)
            | SubscriptionError::Missing
            | SubscriptionError::Stale
            | SubscriptionError::NotCancelled,
        ) => {}
        Err(error) => panic!("{step}: {error:?}"),
    }
}

async fn pay_some(stage: &Stage, tenant: Uuid, dice: &mut Dice) {
    let open = invoices::list_open(&stage.dashboard, &stage.operator, 0, 100).await.unwrap();
    if open.is_empty() {
        return;
    }
    let invoice: &Invoice = dice.of(&open);
    let amount = match dice.below(4) {
        0 => Some(invoice.due_cents() / 2 + 1),
        1 => Some(invoice.due_cents() + 777),
        _ => None,
    };
    invoices::mark_paid(&stage.dashboard, &stage.operator, tenant, invoice.id, amount, "").await.unwrap();
}

pub async fn the_books_add_up_over_a_random_history(stage: Stage) {
    let config = stage.dashboard.config.clone();
    let other = stage.restarted(config, MasterKeys::ephemeral(&[1])).await;
    let (tenant, _) = stage.tenant("owner@example.com").await;
    let yearly = PlanTerms {
        name: "Yearly".to_owned(),
        max_connections: 1,
        max_documents: 1,
        max_users_per_doc: 1,
        ops_per_minute: 1,
        price_cents: 98_765,
        currency: "USD".to_owned(),
        period: Cadence::Year,
    };
    plans::create(&stage.dashboard, &stage.operator, "yearly", yearly).await.unwrap();
    let mut apps = Vec::new();
    for _ in 0..3 {
        let credentials = stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
        apps.push(AppId { tenant, app: credentials.app });
    }
    let plans = ["free", "starter", "pro", "business", "yearly"];
    let mut dice = Dice(SEED);
    for n in 0..STEPS {
        let (app, plan) = (*dice.of(&apps), *dice.of(&plans));
        let side = if dice.below(2) == 0 { &stage.dashboard } else { &other.dashboard };
        let (actor, what) = (&stage.operator, dice.below(12));
        let step = format!("seed {SEED:#x}, step {n} ({what})");
        match what {
            0..=3 => match subscriptions::preview(side, actor, app, plan).await {
                Ok(preview) => {
                    tolerate(&step, subscriptions::pick(side, actor, app, plan, Some(preview.quote)).await);
                }
                refused => tolerate(&step, refused),
            },
            4 => {
                let second = *dice.of(&plans);
                let (a, b) = tokio::join!(
                    subscriptions::pick(&stage.dashboard, actor, app, plan, None),
                    subscriptions::pick(&other.dashboard, actor, app, second, None),
                );
                tolerate(&step, a);
                tolerate(&step, b);
            }
            5 => tolerate(&step, subscriptions::cancel(side, actor, app).await),
            6 => tolerate(&step, subscriptions::uncancel(side, actor, app).await),
            7 if dice.below(3) == 0 => tolerate(&step, subscriptions::end_now(side, actor, app).await),
            7..=9 => pay_some(&stage, tenant, &mut dice).await,
            _ => {
                stage.clock.advance(i64::try_from(dice.below(20 * 86_400)).unwrap());
                let (a, b) = tokio::join!(
                    subscriptions::upkeep(&stage.dashboard),
                    subscriptions::upkeep(&other.dashboard)
                );
                a.unwrap();
                b.unwrap();
            }
        }
        check(&stage, &step).await;
    }
    assert!(sum(&stage, "SELECT COUNT(*) AS n FROM invoices").await > 10, "a history that is worth the name");
    wiresocket::dashboard::audit::verify(&stage.dashboard.home).await.unwrap();
}
