//! Policies for emergencies: off, and on for a time with one command.

use serde::Serialize;

use super::error::invalid;
use super::policies::policy;
use super::sql;
use super::write::{Meta, Write};
use super::{Activity, Actor, Policy, Result, Store, text};

/// What makes a policy a break-glass policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BreakGlass {
    /// The longest it may be on at once, in seconds.
    pub max_seconds: i64,
    /// While it is on: when it ends, Unix milliseconds.
    pub until: Option<i64>,
    /// While it is on: why.
    pub reason: String,
}

impl Store {
    /// Makes a policy a break-glass policy, which is off, or one that may be on for longer or shorter; or with `None` an
    /// ordinary one, as it was switched last.
    pub async fn limit_break_glass(
        &self,
        actor: &Actor,
        id: &str,
        max_seconds: Option<u32>,
    ) -> Result<Policy> {
        let mut write = self.write(actor).await?;
        let before = policy(write.db(), id).await?;
        let had = before.break_glass.as_ref().map(|glass| glass.max_seconds);
        if had == max_seconds.map(i64::from) {
            return Ok(before);
        }
        sql::query("UPDATE policies SET break_glass = $1 WHERE id = $2")
            .bind(max_seconds.map(i64::from))
            .bind(id)
            .execute(write.db())
            .await?;
        if had.is_none() || max_seconds.is_none() {
            switch(&mut write, id, None, "").await?;
        }
        let after = policy(write.db(), id).await?;
        let meta = Meta::name(&after.name).before(&before).after(&after);
        write.event(Activity::PolicyUpdate, id, meta).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Turns a break-glass policy on from now for so long, or for another time when it is on already.
    pub async fn break_glass_on(
        &self,
        actor: &Actor,
        id: &str,
        seconds: u32,
        reason: &str,
    ) -> Result<Policy> {
        let mut write = self.write(actor).await?;
        let before = policy(write.db(), id).await?;
        let Some(glass) = &before.break_glass else {
            return invalid(format!(
                "policy {} is no break-glass policy: give it `break_glass: {{max: TIME}}` in a policy file",
                before.name
            ));
        };
        let reason = reason.trim();
        if reason.is_empty() {
            return invalid("a reason is needed: it is kept in the audit trail");
        }
        text::description("reason", reason)?;
        if seconds == 0 || i64::from(seconds) > glass.max_seconds {
            return invalid(format!(
                "policy {} may be on for at most {} seconds at once, not {seconds}",
                before.name, glass.max_seconds
            ));
        }
        let until = write.at() + i64::from(seconds) * 1000;
        switch(&mut write, id, Some(until), reason).await?;
        let after = policy(write.db(), id).await?;
        let meta = Meta::name(&after.name).with("reason", reason).with("seconds", seconds.to_string());
        write.event(Activity::BreakGlassOn, id, meta.before(&before).after(&after)).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Turns a break-glass policy off.
    pub async fn break_glass_off(&self, actor: &Actor, id: &str) -> Result<Policy> {
        let mut write = self.write(actor).await?;
        let before = policy(write.db(), id).await?;
        if before.break_glass.is_none() {
            return invalid(format!("policy {} is no break-glass policy", before.name));
        }
        if !before.enabled {
            return Ok(before);
        }
        switch(&mut write, id, None, "").await?;
        let after = policy(write.db(), id).await?;
        let meta = Meta::name(&after.name).before(&before).after(&after);
        write.event(Activity::BreakGlassOff, id, meta).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Turns off every break-glass policy whose time has come; their names.
    pub async fn end_break_glass(&self, now: i64) -> Result<Vec<String>> {
        let mut write = self.write(&Actor::system()).await?;
        let ended: Vec<String> = sql::query_scalar(
            "SELECT id FROM policies WHERE break_glass_until IS NOT NULL AND break_glass_until <= $1 ORDER BY id",
        )
        .bind(now)
        .fetch_all(write.db())
        .await?;
        let mut names = Vec::new();
        for id in ended {
            let before = policy(write.db(), &id).await?;
            switch(&mut write, &id, None, "").await?;
            let after = policy(write.db(), &id).await?;
            let meta = Meta::name(&after.name).before(&before).after(&after);
            write.event(Activity::BreakGlassExpire, &id, meta).await?;
            names.push(after.name);
        }
        write.commit().await?;
        Ok(names)
    }

    /// How many break-glass policies are on, and when the first of them ends, Unix milliseconds.
    pub async fn break_glass(&self) -> Result<(i64, Option<i64>)> {
        sql::query_as(
            "SELECT count(*), min(break_glass_until) FROM policies WHERE break_glass_until IS NOT NULL",
        )
        .fetch_one(&mut self.reader().await?)
        .await
    }
}

/// On until a time, or off.
async fn switch(write: &mut Write, id: &str, until: Option<i64>, reason: &str) -> Result<()> {
    sql::query(
        "UPDATE policies SET enabled = $1, break_glass_until = $2, break_glass_reason = $3 WHERE id = $4",
    )
    .bind(until.is_some())
    .bind(until)
    .bind(reason)
    .bind(id)
    .execute(write.db())
    .await?;
    Ok(())
}
