//! Groups whose peers keep their resolver as it is.

use std::collections::BTreeSet;

use super::sql::{self, Connection};
use super::write::Meta;
use super::{Activity, Actor, Result, Store, account, groups};

impl Store {
    /// Ids of the groups whose peers' DNS is not managed.
    pub async fn dns_disabled_groups(&self) -> Result<BTreeSet<String>> {
        disabled(&mut self.read().await?).await
    }

    /// Replaces them.
    pub async fn set_dns_disabled_groups(
        &self,
        actor: &Actor,
        wanted: BTreeSet<String>,
    ) -> Result<BTreeSet<String>> {
        let mut write = self.write(actor).await?;
        let before = disabled(write.db()).await?;
        groups::must_exist(write.db(), &wanted).await?;
        if before == wanted {
            return Ok(before);
        }
        sql::query("DELETE FROM dns_disabled_groups").execute(write.db()).await?;
        for group in &wanted {
            sql::query("INSERT INTO dns_disabled_groups (group_id) VALUES ($1)")
                .bind(group)
                .execute(write.db())
                .await?;
        }
        let account = account::account(write.db()).await?.id;
        let added = wanted.difference(&before).map(|group| (Activity::DnsDisabledGroupAdd, group));
        let removed = before.difference(&wanted).map(|group| (Activity::DnsDisabledGroupDelete, group));
        for (activity, group) in added.chain(removed) {
            let name = groups::name(write.db(), group).await?;
            let meta =
                Meta::default().with("group", name).with("group_id", group).before(&before).after(&wanted);
            write.event(activity, &account, meta).await?;
        }
        write.commit().await?;
        Ok(wanted)
    }
}

/// Ids of the groups whose peers' DNS is not managed, as the connection's transaction sees them.
pub(super) async fn disabled(db: &mut Connection) -> Result<BTreeSet<String>> {
    let ids: Vec<String> =
        sql::query_scalar("SELECT group_id FROM dns_disabled_groups").fetch_all(db).await?;
    Ok(ids.into_iter().collect())
}
