//! The audit trail: one event per change, written in the change's own transaction.

use std::collections::BTreeMap;

use sqlx::FromRow;

use super::error::corrupt;
use super::sql::{self, Connection};
use super::{Actor, Result, Store};

/// Events returned at most, newest first.
const LIMIT: i64 = 10_000;
/// Their details together at most, in bytes: an event of a policy with a thousand rules has half a megabyte of them.
const BYTES: usize = 16 << 20;

/// An audit event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Rises with every event.
    pub id: i64,
    /// Unix milliseconds.
    pub at: i64,
    /// The account revision the change made.
    pub revision: u64,
    /// What happened, as a code: `policy.add`.
    pub code: String,
    /// What happened, as a sentence.
    pub activity: &'static str,
    /// Who did it.
    pub initiator: Actor,
    /// What it was done to.
    pub target_id: String,
    /// Names, and `before` and `after` as JSON text.
    pub meta: BTreeMap<String, String>,
}

macro_rules! activities {
    ($($variant:ident $code:literal $text:literal,)*) => {
        /// What an audit event can be about; the codes are those NetBird's clients know, where it has one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Activity { $(#[doc = $text] $variant,)* }

        impl Activity {
            /// The stable code.
            pub fn code(self) -> &'static str {
                match self { $(Activity::$variant => $code,)* }
            }

            /// The sentence behind a code; empty for a code of another version.
            pub fn text_of(code: &str) -> &'static str {
                match code { $($code => $text,)* _ => "" }
            }
        }
    };
}

activities! {
    AccountCreate "account.create" "Account created",
    AccountSettingsUpdate "account.settings.update" "Account settings updated",
    AccountNetworkRangeUpdate "account.network.range.update" "Account network range updated",
    GroupAdd "group.add" "Group created",
    GroupUpdate "group.update" "Group updated",
    GroupDelete "group.delete" "Group deleted",
    NetworkCreate "network.create" "Network created",
    NetworkUpdate "network.update" "Network updated",
    NetworkDelete "network.delete" "Network deleted",
    ResourceCreate "network.resource.create" "Network resource created",
    ResourceUpdate "network.resource.update" "Network resource updated",
    ResourceDelete "network.resource.delete" "Network resource deleted",
    RouterCreate "network.router.create" "Network router created",
    RouterUpdate "network.router.update" "Network router updated",
    RouterDelete "network.router.delete" "Network router deleted",
    PeerAdd "peer.setupkey.add" "Peer added with a setup key",
    PeerRename "peer.rename" "Peer renamed",
    PeerUpdate "peer.update" "Peer updated",
    PeerIpUpdate "peer.ip.update" "Peer address updated",
    PeerApprove "peer.approve" "Peer approved",
    PeerApprovalRevoke "peer.approval.revoke" "Peer approval revoked",
    PeerEndpointUpdate "peer.endpoint.update" "Peer endpoint updated",
    PeerDelete "user.peer.delete" "Peer deleted",
    PolicyAdd "policy.add" "Policy created",
    PolicyUpdate "policy.update" "Policy updated",
    PolicyDelete "policy.delete" "Policy deleted",
    SetupKeyAdd "setupkey.add" "Setup key created",
    SetupKeyUpdate "setupkey.update" "Setup key updated",
    SetupKeyRevoke "setupkey.revoke" "Setup key revoked",
    SetupKeyDelete "setupkey.delete" "Setup key deleted",
    TokenCreate "personal.access.token.create" "Personal access token created",
    TokenDelete "personal.access.token.delete" "Personal access token deleted",
    UserInvite "user.invite" "User invited",
    UserUpdate "user.update" "User updated",
    UserRoleUpdate "user.role.update" "User role updated",
    UserBlock "user.block" "User blocked",
    UserUnblock "user.unblock" "User unblocked",
    UserDelete "user.delete" "User deleted",
    OwnerTransfer "transferred.owner.role" "Owner role transferred",
    ServiceUserCreate "service.user.create" "Service user created",
    ServiceUserDelete "service.user.delete" "Service user deleted",
}

impl Store {
    /// The newest events, newest first: as many as one answer holds.
    pub async fn events(&self) -> Result<Vec<Event>> {
        self.newest_events(LIMIT, BYTES).await
    }

    /// The newest events whose details are not longer than `bytes` together, but at least one if there is any.
    async fn newest_events(&self, limit: i64, bytes: usize) -> Result<Vec<Event>> {
        let mut sum = 0;
        let rows: Vec<Row> = sql::query_as(
            "SELECT id, at, revision, code, initiator_id, initiator_name, initiator_email, target_id, meta
             FROM events ORDER BY id DESC LIMIT $1",
        )
        .bind(limit)
        .fetch_while(&mut self.reader().await?, |row: &Row| {
            let first = sum == 0;
            sum += row.meta.len();
            first || sum <= bytes
        })
        .await?;
        rows.into_iter().map(Row::event).collect()
    }
}

/// Appends an event to a change under way, which is going to make the next revision.
pub(super) async fn append(
    db: &mut Connection,
    at: i64,
    actor: &Actor,
    activity: Activity,
    target: &str,
    meta: &BTreeMap<String, String>,
) -> Result<()> {
    let meta = serde_json::to_string(meta).map_err(|error| corrupt("events.meta")(error.into()))?;
    sql::query(
        "INSERT INTO events (at, revision, code, initiator_id, initiator_name, initiator_email, target_id, meta)
         VALUES ($1, (SELECT revision + 1 FROM account), $2, $3, $4, $5, $6, $7)",
    )
    .bind(at)
    .bind(activity.code())
    .bind(&actor.id)
    .bind(&actor.name)
    .bind(&actor.email)
    .bind(target)
    .bind(meta)
    .execute(db)
    .await?;
    Ok(())
}

#[derive(FromRow)]
struct Row {
    id: i64,
    at: i64,
    revision: i64,
    code: String,
    initiator_id: String,
    initiator_name: String,
    initiator_email: String,
    target_id: String,
    meta: String,
}

impl Row {
    fn event(self) -> Result<Event> {
        Ok(Event {
            id: self.id,
            at: self.at,
            revision: self.revision.unsigned_abs(),
            activity: Activity::text_of(&self.code),
            code: self.code,
            initiator: Actor {
                id: self.initiator_id,
                name: self.initiator_name,
                email: self.initiator_email,
            },
            target_id: self.target_id,
            meta: serde_json::from_str(&self.meta).map_err(|error| corrupt("events.meta")(error.into()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NetworkChange;

    #[tokio::test]
    async fn the_newest_events_are_given_until_there_are_too_many_or_they_are_too_long() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        for name in ["a", "b", "c"] {
            let change = NetworkChange { name: name.into(), description: "x".repeat(1000) };
            store.create_network(&Actor::system(), change).await.unwrap();
        }
        let names = async |limit, bytes| -> Vec<String> {
            let events = store.newest_events(limit, bytes).await.unwrap();
            events.into_iter().map(|event| event.meta["name"].clone()).collect()
        };
        assert_eq!(names(2, usize::MAX).await, ["c", "b"]);
        assert_eq!(names(10, 2500).await, ["c", "b"]);
        assert_eq!(names(10, 1).await, ["c"]);
    }
}
