//! The plan catalogue: data, seeded by the migration. A plan is four limits and a price.

use serde_json::{Value, json};
use sqlx::any::AnyRow;

use super::Dashboard;
use super::store::{Columns, StoreError, query};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub id: String,
    pub name: String,
    pub max_connections: i64,
    pub max_documents: i64,
    pub max_users_per_doc: i64,
    pub ops_per_minute: i64,
    /// For one period.
    pub price_cents: i64,
    pub currency: String,
    pub period_days: i64,
    /// Whether it can be newly subscribed to.
    pub is_offered: bool,
}

impl Plan {
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.price_cents == 0
    }

    #[must_use]
    pub fn period_s(&self) -> i64 {
        self.period_days * 86_400
    }

    /// The `limits` claim.
    #[must_use]
    pub fn limits(&self) -> Value {
        json!({
            "maxConnections": self.max_connections,
            "maxDocuments": self.max_documents,
            "maxUsersPerDoc": self.max_users_per_doc,
            "opsPerMinute": self.ops_per_minute,
        })
    }

    /// Of a row whose plan columns have the names of the table.
    pub(super) fn of_row(row: &AnyRow, id: &str) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.text(id)?,
            name: row.text("name")?,
            max_connections: row.int("max_connections")?,
            max_documents: row.int("max_documents")?,
            max_users_per_doc: row.int("max_users_per_doc")?,
            ops_per_minute: row.int("ops_per_minute")?,
            price_cents: row.int("price_cents")?,
            currency: row.text("currency")?,
            period_days: row.int("period_days")?,
            is_offered: row.int("is_offered")? == 1,
        })
    }
}

/// The whole catalogue, cheapest first.
///
/// # Errors
/// [`StoreError`].
pub async fn list(dashboard: &Dashboard) -> Result<Vec<Plan>, StoreError> {
    let rows =
        query("SELECT * FROM plans ORDER BY price_cents, id").fetch_all(dashboard.home.reader()).await?;
    rows.iter().map(|row| Plan::of_row(row, "id")).collect()
}

/// # Errors
/// [`StoreError`].
pub async fn find(dashboard: &Dashboard, id: &str) -> Result<Option<Plan>, StoreError> {
    let row = query("SELECT * FROM plans WHERE id = $1").bind(id.to_owned());
    let row = row.fetch_optional(dashboard.home.reader()).await?;
    row.map(|row| Plan::of_row(&row, "id")).transpose()
}
