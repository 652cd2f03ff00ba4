//! Posture checks, and the policies that ask for them.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;
use sluicegate_policy::posture::Checks;
use sqlx::FromRow;

use super::error::{corrupt, invalid, not_found};
use super::sql::{self, Connection};
use super::write::Meta;
use super::{Activity, Actor, Result, Store, StoreError, text};
use crate::ids::new_id;

/// A posture check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PostureCheck {
    /// Check id.
    pub id: String,
    /// Display name, unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// What is asked of a machine.
    pub checks: Checks,
}

/// What a posture check is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostureCheckChange {
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// What is asked of a machine.
    pub checks: Checks,
}

impl Store {
    /// Every posture check, by id.
    pub async fn posture_checks(&self) -> Result<Vec<PostureCheck>> {
        all(&mut self.reader().await?).await
    }

    /// One posture check.
    pub async fn posture_check(&self, id: &str) -> Result<PostureCheck> {
        check(&mut self.reader().await?, id).await
    }

    /// Creates a posture check.
    pub async fn create_posture_check(
        &self,
        actor: &Actor,
        change: PostureCheckChange,
    ) -> Result<PostureCheck> {
        let mut write = self.write(actor).await?;
        let after = validate(write.db(), &new_id(), change).await?;
        sql::query("INSERT INTO posture_checks (id, name, description, checks) VALUES ($1, $2, $3, $4)")
            .bind(&after.id)
            .bind(&after.name)
            .bind(&after.description)
            .bind(json(&after.checks)?)
            .execute(write.db())
            .await?;
        write.event(Activity::PostureCheckCreate, &after.id, Meta::name(&after.name).after(&after)).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Replaces a posture check; machines are judged anew at once.
    pub async fn update_posture_check(
        &self,
        actor: &Actor,
        id: &str,
        change: PostureCheckChange,
    ) -> Result<PostureCheck> {
        let mut write = self.write(actor).await?;
        let before = check(write.db(), id).await?;
        let after = validate(write.db(), id, change).await?;
        if after == before {
            return Ok(before);
        }
        sql::query("UPDATE posture_checks SET name = $1, description = $2, checks = $3 WHERE id = $4")
            .bind(&after.name)
            .bind(&after.description)
            .bind(json(&after.checks)?)
            .bind(id)
            .execute(write.db())
            .await?;
        let meta = Meta::name(&after.name).before(&before).after(&after);
        write.event(Activity::PostureCheckUpdate, id, meta).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Deletes a posture check; refused while a policy asks for it.
    pub async fn delete_posture_check(&self, actor: &Actor, id: &str) -> Result<()> {
        let mut write = self.write(actor).await?;
        let before = check(write.db(), id).await?;
        let policy: Option<String> = sql::query_scalar(
            "SELECT p.name FROM policy_posture_checks l JOIN policies p ON p.id = l.policy_id WHERE l.check_id = $1
             ORDER BY p.name LIMIT 1",
        )
        .bind(id)
        .fetch_optional(write.db())
        .await?;
        if let Some(name) = policy {
            return Err(StoreError::InUse { kind: "posture check", link: "policy", name });
        }
        sql::query("DELETE FROM posture_checks WHERE id = $1").bind(id).execute(write.db()).await?;
        write.event(Activity::PostureCheckDelete, id, Meta::name(&before.name).before(&before)).await?;
        write.commit().await
    }
}

/// Every posture check, by id.
pub(super) async fn all(db: &mut Connection) -> Result<Vec<PostureCheck>> {
    let rows: Vec<Row> = sql::query_as("SELECT * FROM posture_checks ORDER BY id").fetch_all(db).await?;
    rows.into_iter().map(Row::check).collect()
}

/// The checks of every policy, or of one, in order, by the policy's id.
pub(super) async fn links(db: &mut Connection, policy: Option<&str>) -> Result<HashMap<String, Vec<String>>> {
    let rows: Vec<(String, String)> = sql::query_as(
        "SELECT policy_id, check_id FROM policy_posture_checks WHERE $1 IS NULL OR policy_id = $1
         ORDER BY policy_id, position",
    )
    .bind(policy)
    .fetch_all(db)
    .await?;
    let mut links = HashMap::<String, Vec<String>>::new();
    for (policy, check) in rows {
        links.entry(policy).or_default().push(check);
    }
    Ok(links)
}

/// Makes these the checks of a policy.
pub(super) async fn link(db: &mut Connection, policy: &str, checks: &[String]) -> Result<()> {
    sql::query("DELETE FROM policy_posture_checks WHERE policy_id = $1")
        .bind(policy)
        .execute(&mut *db)
        .await?;
    for (position, check) in (0i64..).zip(checks) {
        sql::query("INSERT INTO policy_posture_checks (policy_id, position, check_id) VALUES ($1, $2, $3)")
            .bind(policy)
            .bind(position)
            .bind(check)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Leaves each id once, and refuses those that name no posture check: a policy without it would let more through.
pub(super) async fn must_exist(db: &mut Connection, ids: &mut Vec<String>) -> Result<()> {
    let mut seen = BTreeSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    for id in &*ids {
        let found: i64 = sql::query_scalar("SELECT count(*) FROM posture_checks WHERE id = $1")
            .bind(id)
            .fetch_one(&mut *db)
            .await?;
        if found == 0 {
            return invalid(format!("posture check {id} does not exist"));
        }
    }
    Ok(())
}

async fn check(db: &mut Connection, id: &str) -> Result<PostureCheck> {
    let row: Option<Row> =
        sql::query_as("SELECT * FROM posture_checks WHERE id = $1").bind(id).fetch_optional(db).await?;
    match row {
        Some(row) => row.check(),
        None => not_found("posture check", id),
    }
}

async fn validate(db: &mut Connection, id: &str, change: PostureCheckChange) -> Result<PostureCheck> {
    let name = text::name("posture check", &change.name)?;
    text::description("posture check", &change.description)?;
    let checks = change.checks.validated().or_else(|error| invalid(error.to_string()))?;
    let others: i64 = sql::query_scalar("SELECT count(*) FROM posture_checks WHERE name = $1 AND id <> $2")
        .bind(&name)
        .bind(id)
        .fetch_one(db)
        .await?;
    if others > 0 {
        // Not a conflict, as it is for groups: this is what NetBird's clients know.
        return invalid(format!("a posture check named {name} already exists"));
    }
    Ok(PostureCheck { id: id.to_owned(), name, description: change.description, checks })
}

fn json(checks: &Checks) -> Result<String> {
    serde_json::to_string(checks).map_err(|error| corrupt("posture_checks.checks")(error.into()))
}

#[derive(FromRow)]
struct Row {
    id: String,
    name: String,
    description: String,
    checks: String,
}

impl Row {
    fn check(self) -> Result<PostureCheck> {
        let checks = serde_json::from_str(&self.checks)
            .map_err(|error| corrupt("posture_checks.checks")(error.into()))?;
        Ok(PostureCheck { id: self.id, name: self.name, description: self.description, checks })
    }
}
