//! What is known of machines that flow events tell of, beside their names and addresses.

use std::collections::HashMap;

use sqlx::FromRow;

use super::account::account;
use super::{Result, Store, sql};

/// A peer as those see it who read of its flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Operating system; empty when the agent has not said, or there is none.
    pub os: String,
    /// Its name in the peers' zone.
    pub dns_name: String,
    /// The country its connection comes from, ISO 3166-1 alpha-2; empty when that is not known.
    pub country_code: String,
    /// The city, by its English name; empty when that is not known.
    pub city_name: String,
    /// Whose it is; none of a machine that joined by a setup key.
    pub user: Option<Owner>,
}

/// A user whose machine it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub id: String,
    /// E-mail address, empty where there is none.
    pub email: String,
    /// Display name.
    pub name: String,
}

#[derive(FromRow)]
struct Row {
    id: String,
    os: String,
    dns_label: String,
    user_id: Option<String>,
    email: Option<String>,
    name: Option<String>,
    country_code: Option<String>,
    city_name: Option<String>,
}

impl Store {
    /// Every peer as flow events tell of it, by its id.
    pub async fn machines(&self) -> Result<HashMap<String, Machine>> {
        let mut db = self.read().await?;
        let settings = account(&mut db).await?.settings;
        let rows: Vec<Row> = sql::query_as(
            "SELECT p.id, p.os, p.dns_label, u.id AS user_id, u.email, u.name, f.country_code, f.city_name FROM peers p
             LEFT JOIN users u ON u.id = p.user_id LEFT JOIN peer_facts f ON f.peer_id = p.id",
        )
        .fetch_all(&mut db)
        .await?;
        let machine = |row: Row| {
            let owner =
                |id| Owner { id, email: row.email.unwrap_or_default(), name: row.name.unwrap_or_default() };
            let machine = Machine {
                os: row.os,
                dns_name: format!("{}.{}", row.dns_label, settings.dns_domain()),
                country_code: row.country_code.unwrap_or_default(),
                city_name: row.city_name.unwrap_or_default(),
                user: row.user_id.map(owner),
            };
            (row.id, machine)
        };
        Ok(rows.into_iter().map(machine).collect())
    }
}
