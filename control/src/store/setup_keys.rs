//! Setup keys: what a machine shows to become a peer.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::FromRow;

use super::error::{invalid, not_found};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Store, groups, text};
use crate::ids::{new_id, now};
use crate::secret::{SecretHash, mask_setup_key, new_setup_key, setup_key_hash};

/// A stored setup key; its text is known only to whoever created it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetupKey {
    /// Setup key id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// The first characters of its text.
    pub masked: String,
    /// False for a one-off key.
    pub reusable: bool,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
    /// Unix milliseconds; `None` never expires.
    pub expires_at: Option<i64>,
    /// Whether an operator took it back.
    pub revoked: bool,
    /// Peers it made.
    pub used_times: i64,
    /// Unix milliseconds.
    pub last_used: Option<i64>,
    /// Peers it may make; 0 is any number.
    pub usage_limit: i64,
    /// Whether its peers are removed some time after they left.
    pub ephemeral: bool,
    /// Whether its peers may ask for DNS labels beside the one made of their name.
    pub allow_extra_dns_labels: bool,
    /// Group ids its peers are put into.
    pub auto_groups: Vec<String>,
}

/// Whether a setup key makes peers, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupKeyState {
    /// It does.
    Valid,
    /// Used as often as it may be.
    Overused,
    /// Past its expiry.
    Expired,
    /// Taken back.
    Revoked,
}

impl SetupKeyState {
    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            SetupKeyState::Valid => "valid",
            SetupKeyState::Overused => "overused",
            SetupKeyState::Expired => "expired",
            SetupKeyState::Revoked => "revoked",
        }
    }
}

impl SetupKey {
    /// Its state at a time in Unix milliseconds.
    pub fn state(&self, now: i64) -> SetupKeyState {
        if self.revoked {
            SetupKeyState::Revoked
        } else if self.expires_at.is_some_and(|at| at <= now) {
            SetupKeyState::Expired
        } else if self.usage_limit > 0 && self.used_times >= self.usage_limit {
            SetupKeyState::Overused
        } else {
            SetupKeyState::Valid
        }
    }
}

/// What a setup key is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSetupKey {
    /// Display name.
    pub name: String,
    /// False for a one-off key.
    pub reusable: bool,
    /// Seconds from now; 0 never expires.
    pub expires_in: i64,
    /// Peers it may make; 0 is any number, and for a one-off key one.
    pub usage_limit: i64,
    /// Whether its peers are removed some time after they left.
    pub ephemeral: bool,
    /// Whether its peers may ask for DNS labels beside the one made of their name.
    pub allow_extra_dns_labels: bool,
    /// Group ids.
    pub auto_groups: Vec<String>,
}

impl Store {
    /// Every setup key, by id.
    pub async fn setup_keys(&self) -> Result<Vec<SetupKey>> {
        let mut tx = self.read().await?;
        let rows: Vec<Row> = sql::query_as("SELECT * FROM setup_keys ORDER BY id").fetch_all(&mut tx).await?;
        let members: Vec<(String, String)> =
            sql::query_as("SELECT setup_key_id, group_id FROM setup_key_groups").fetch_all(&mut tx).await?;
        let mut groups = HashMap::<String, Vec<String>>::new();
        for (key, group) in members {
            groups.entry(key).or_default().push(group);
        }
        Ok(rows
            .into_iter()
            .map(|row| {
                let groups = groups.remove(&row.id).unwrap_or_default();
                row.key(groups)
            })
            .collect())
    }

    /// One setup key.
    pub async fn setup_key(&self, id: &str) -> Result<SetupKey> {
        let mut tx = self.read().await?;
        key(&mut tx, id).await
    }

    /// Creates a setup key; beside it its text, which is not kept.
    pub async fn create_setup_key(&self, actor: &Actor, new: NewSetupKey) -> Result<(SetupKey, String)> {
        let mut write = self.write(actor).await?;
        let name = &text::name("setup key", &new.name)?;
        if new.expires_in < 0 {
            return invalid("expires_in must not be negative (0 never expires)");
        }
        if new.usage_limit < 0 {
            return invalid("usage_limit must not be negative (0 is any number)");
        }
        if !new.reusable && new.usage_limit > 1 {
            return invalid("usage_limit of a one-off key cannot be more than 1");
        }
        let groups = groups::assignable(write.db(), "auto_groups", &new.auto_groups).await?;
        let (id, text, at) = (new_id(), new_setup_key(), write.at());
        let expires_at = (new.expires_in > 0).then(|| at.saturating_add(new.expires_in.saturating_mul(1000)));

        sql::query(
            "INSERT INTO setup_keys (id, name, hash, masked, reusable, created_at, updated_at, expires_at, revoked,
             used_times, usage_limit, ephemeral, allow_extra_dns_labels)
             VALUES ($1, $2, $3, $4, $5, $6, $6, $7, FALSE, 0, $8, $9, $10)",
        )
        .bind(&id)
        .bind(name)
        .bind(setup_key_hash(&text).as_slice())
        .bind(mask_setup_key(&text))
        .bind(new.reusable)
        .bind(at)
        .bind(expires_at)
        .bind(if new.reusable { new.usage_limit } else { 1 })
        .bind(new.ephemeral)
        .bind(new.allow_extra_dns_labels)
        .execute(write.db())
        .await?;
        set_groups(&mut write, &id, groups).await?;
        let after = key(write.db(), &id).await?;
        write.event(Activity::SetupKeyAdd, &id, Meta::name(name).after(&after)).await?;
        write.commit().await?;
        Ok((after, text))
    }

    /// Replaces the auto groups, and revokes; what is revoked stays so.
    pub async fn update_setup_key(
        &self,
        actor: &Actor,
        id: &str,
        revoked: bool,
        auto_groups: &[String],
    ) -> Result<SetupKey> {
        let mut write = self.write(actor).await?;
        let before = key(write.db(), id).await?;
        if before.revoked && !revoked {
            return invalid("a revoked setup key cannot be made valid again: create a new one");
        }
        let groups = groups::assignable(write.db(), "auto_groups", auto_groups).await?;
        if revoked == before.revoked && groups.iter().eq(&before.auto_groups) {
            return Ok(before);
        }
        sql::query("UPDATE setup_keys SET revoked = $1, updated_at = $2 WHERE id = $3")
            .bind(revoked)
            .bind(write.at())
            .bind(id)
            .execute(write.db())
            .await?;
        set_groups(&mut write, id, groups).await?;
        let after = key(write.db(), id).await?;
        let meta = || Meta::name(&after.name).before(&before).after(&after);
        if after.revoked != before.revoked {
            write.event(Activity::SetupKeyRevoke, id, meta()).await?;
        }
        let (was, is) = (&before.auto_groups, &after.auto_groups);
        let added = is.iter().filter(|group| !was.contains(group));
        let removed = was.iter().filter(|group| !is.contains(group));
        let added = added.map(|group| (Activity::SetupKeyGroupAdd, group));
        for (activity, group) in added.chain(removed.map(|group| (Activity::SetupKeyGroupDelete, group))) {
            let name = groups::name(write.db(), group).await?;
            let meta = meta().with("setupkey", &after.name).with("group", name).with("group_id", group);
            write.event(activity, id, meta).await?;
        }
        write.commit().await?;
        Ok(after)
    }

    /// Deletes a setup key; the peers it made stay.
    pub async fn delete_setup_key(&self, actor: &Actor, id: &str) -> Result<()> {
        let mut write = self.write(actor).await?;
        let before = key(write.db(), id).await?;
        sql::query("DELETE FROM setup_keys WHERE id = $1").bind(id).execute(write.db()).await?;
        write.event(Activity::SetupKeyDelete, id, Meta::name(&before.name).before(&before)).await?;
        write.commit().await
    }

    /// Lets a setup key expire now; for tests of expiry, which a request can only ask for in seconds.
    #[doc(hidden)]
    pub async fn expire_setup_key(&self, id: &str) -> Result<()> {
        sql::query("UPDATE setup_keys SET expires_at = $1 WHERE id = $2")
            .bind(now())
            .bind(id)
            .execute(&mut self.writer().await?)
            .await?;
        Ok(())
    }
}

/// The setup key with this hash.
pub(super) async fn by_hash(db: &mut Connection, hash: &SecretHash) -> Result<Option<SetupKey>> {
    let id: Option<String> = sql::query_scalar("SELECT id FROM setup_keys WHERE hash = $1")
        .bind(hash.as_slice())
        .fetch_optional(&mut *db)
        .await?;
    match id {
        Some(id) => Ok(Some(key(db, &id).await?)),
        None => Ok(None),
    }
}

async fn key(db: &mut Connection, id: &str) -> Result<SetupKey> {
    let row: Option<Row> =
        sql::query_as("SELECT * FROM setup_keys WHERE id = $1").bind(id).fetch_optional(&mut *db).await?;
    let Some(row) = row else { return not_found("setup key", id) };
    let groups =
        sql::query_scalar("SELECT group_id FROM setup_key_groups WHERE setup_key_id = $1 ORDER BY group_id")
            .bind(id)
            .fetch_all(db)
            .await?;
    Ok(row.key(groups))
}

async fn set_groups(write: &mut Write, key: &str, groups: impl IntoIterator<Item = String>) -> Result<()> {
    sql::query("DELETE FROM setup_key_groups WHERE setup_key_id = $1").bind(key).execute(write.db()).await?;
    for group in groups {
        sql::query("INSERT INTO setup_key_groups (setup_key_id, group_id) VALUES ($1, $2)")
            .bind(key)
            .bind(group)
            .execute(write.db())
            .await?;
    }
    Ok(())
}

#[derive(FromRow)]
struct Row {
    id: String,
    name: String,
    masked: String,
    reusable: bool,
    created_at: i64,
    updated_at: i64,
    expires_at: Option<i64>,
    revoked: bool,
    used_times: i64,
    last_used: Option<i64>,
    usage_limit: i64,
    ephemeral: bool,
    allow_extra_dns_labels: bool,
}

impl Row {
    fn key(self, auto_groups: Vec<String>) -> SetupKey {
        SetupKey {
            id: self.id,
            name: self.name,
            masked: self.masked,
            reusable: self.reusable,
            created_at: self.created_at,
            updated_at: self.updated_at,
            expires_at: self.expires_at,
            revoked: self.revoked,
            used_times: self.used_times,
            last_used: self.last_used,
            usage_limit: self.usage_limit,
            ephemeral: self.ephemeral,
            allow_extra_dns_labels: self.allow_extra_dns_labels,
            auto_groups,
        }
    }
}
