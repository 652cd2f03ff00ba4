//! Revisions of what policy files describe: after each one that was applied, and of what was there before.

use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::FromRow;

use super::error::not_found;
use super::sql;
use super::write::Meta;
use super::{Activity, Actor, Result, Store};

/// How a revision came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RevisionKind {
    /// A file was applied.
    Apply,
    /// An earlier revision was brought back.
    Rollback,
    /// Changes by other means, found when the next file was applied.
    Elsewhere,
}

/// What policy files describe, as it was at one time.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct PolicyRevision {
    /// From 1, without gaps.
    pub number: i64,
    /// When it was kept, Unix milliseconds.
    pub at: i64,
    /// `apply`, `rollback` or `elsewhere`.
    pub kind: String,
    /// Who made it; for `elsewhere` nobody in particular.
    pub actor: String,
    /// What the actor said about it.
    pub message: String,
    /// The whole of it as a policy file; left out of lists.
    pub file: String,
}

/// What events tell of a revision; its file is as long as the account has policies.
#[derive(Serialize)]
struct RevisionState<'a> {
    number: i64,
    kind: &'a str,
    /// SHA-256 of the file, in hex.
    file_sha256: String,
}

impl<'a> RevisionState<'a> {
    fn new(number: i64, kind: &'a str, file: &str) -> Self {
        let hash = Sha256::digest(file);
        RevisionState { number, kind, file_sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect() }
    }
}

impl RevisionKind {
    /// Its name in the store and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            RevisionKind::Apply => "apply",
            RevisionKind::Rollback => "rollback",
            RevisionKind::Elsewhere => "elsewhere",
        }
    }
}

impl Store {
    /// Keeps a revision; its number.
    pub async fn keep_policy_revision(
        &self,
        actor: &Actor,
        kind: RevisionKind,
        message: &str,
        file: &str,
    ) -> Result<i64> {
        let mut write = self.write(actor).await?;
        let last: Option<PolicyRevision> =
            sql::query_as("SELECT * FROM policy_revisions ORDER BY number DESC LIMIT 1")
                .fetch_optional(write.db())
                .await?;
        let number = last.as_ref().map_or(0, |last| last.number) + 1;
        let by = if kind == RevisionKind::Elsewhere { "" } else { actor.name.as_str() };
        let at = write.at();
        sql::query(
            "INSERT INTO policy_revisions (number, at, kind, actor, message, file) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(number)
        .bind(at)
        .bind(kind.as_str())
        .bind(by)
        .bind(message)
        .bind(file)
        .execute(write.db())
        .await?;
        let activity = match kind {
            RevisionKind::Apply => Some(Activity::PolicyFileApply),
            RevisionKind::Rollback => Some(Activity::PolicyFileRollback),
            RevisionKind::Elsewhere => None,
        };
        if let Some(activity) = activity {
            // None before the first.
            let before = last.as_ref().map(|last| RevisionState::new(last.number, &last.kind, &last.file));
            let meta = Meta::name(&format!("revision {number}"))
                .with("message", message)
                .before(&before)
                .after(&RevisionState::new(number, kind.as_str(), file));
            write.event(activity, &number.to_string(), meta).await?;
        }
        write.commit().await?;
        Ok(number)
    }

    /// At most `limit` revisions before `before`, newest first, without their files.
    pub async fn policy_revisions(&self, before: Option<i64>, limit: i64) -> Result<Vec<PolicyRevision>> {
        sql::query_as(
            "SELECT number, at, kind, actor, message, '' AS file FROM policy_revisions WHERE number < $1
             ORDER BY number DESC LIMIT $2",
        )
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(&mut self.reader().await?)
        .await
    }

    /// One revision, whole.
    pub async fn policy_revision(&self, number: i64) -> Result<PolicyRevision> {
        let row = sql::query_as("SELECT * FROM policy_revisions WHERE number = $1")
            .bind(number)
            .fetch_optional(&mut self.reader().await?)
            .await?;
        match row {
            Some(revision) => Ok(revision),
            None => not_found("policy revision", &number.to_string()),
        }
    }

    /// The newest revision, whole; none before the first file was applied.
    pub async fn last_policy_revision(&self) -> Result<Option<PolicyRevision>> {
        sql::query_as("SELECT * FROM policy_revisions ORDER BY number DESC LIMIT 1")
            .fetch_optional(&mut self.reader().await?)
            .await
    }
}
