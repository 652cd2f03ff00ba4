//! What has been touched since an earlier look, as the database itself has written it down.
//!
//! Lines come by triggers (migrations 0010, 0015 and 0018), in the transaction of the change. In SQLite they become visible in the order of `seq`. In
//! PostgreSQL so do those of changes, which take turns; a statement beside the order of changes may become visible later than lines
//! of a higher `seq`, so lines of every transaction that was not over at the last look are looked at once more.

use std::collections::{BTreeMap, BTreeSet};

use super::super::sql::{self, Connection, Driver};
use super::super::{Result, Store};

/// Lines kept. Who has not looked for longer reads everything.
const KEPT: i64 = 100_000;
/// Lines are read on one by one up to a quarter of what there is, within these bounds: with more of them, reading everything is no
/// slower.
const READ_ON: (usize, usize) = (100, 5_000);

/// Up to where the lines have been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The highest `seq` seen; 0 before the first.
    seq: i64,
    /// In PostgreSQL, transactions from this one on may not have been over.
    tx: i64,
}

/// What is to be read anew, by id.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) peers: BTreeSet<String>,
    pub(super) users: BTreeSet<String>,
    pub(super) groups: BTreeSet<String>,
    /// Peers that entered or left, by group.
    pub(super) members: BTreeMap<String, BTreeSet<String>>,
    /// Groups that resources entered or left.
    pub(super) holds: BTreeSet<String>,
    pub(super) networks: BTreeSet<String>,
    pub(super) routers: BTreeSet<String>,
    /// Of which addresses were learned.
    pub(super) resources: BTreeSet<String>,
    pub(super) policies: BTreeSet<String>,
    pub(super) rules: BTreeSet<String>,
    pub(super) routes: BTreeSet<String>,
    /// With their records.
    pub(super) zones: BTreeSet<String>,
    pub(super) nameservers: BTreeSet<String>,
    /// Groups whose peers' DNS is managed now, or not any more.
    pub(super) unmanaged: BTreeSet<String>,
}

impl Position {
    /// Where the lines are now, and whether all those after `self` are still there.
    async fn look(db: &mut Connection, since: Option<Self>) -> Result<(Self, bool)> {
        const SQLITE: &str = "SELECT coalesce((SELECT max(seq) FROM touched), 0), coalesce((SELECT min(seq) FROM touched), 0), 0";
        const POSTGRES: &str = "SELECT coalesce((SELECT max(seq) FROM touched), 0), \
             coalesce((SELECT min(seq) FROM touched), 0), pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
        let text = match db.driver() {
            Driver::Sqlite(_) => SQLITE,
            Driver::Postgres(_) => POSTGRES,
        };
        let (newest, oldest, tx): (i64, i64, i64) = sql::query_as(text).fetch_one(db).await?;
        // A database that went back, or another one, has other lines by these numbers.
        let whole = since.is_some_and(|since| {
            newest >= since.seq && tx >= since.tx && oldest <= since.seq.saturating_add(1)
        });
        Ok((Self { seq: newest, tx }, whole))
    }

    /// Where the lines are now.
    pub(super) async fn now(db: &mut Connection) -> Result<Self> {
        Ok(Self::look(db, None).await?.0)
    }

    /// What was touched after this, and where the lines are now; `None` where everything is to be read: as well where that is no
    /// slower, by how many `objects` there are.
    pub(super) async fn since(self, objects: usize, db: &mut Connection) -> Result<Option<(Touched, Self)>> {
        const SQLITE: &str = "SELECT DISTINCT kind, id, member FROM touched WHERE seq > $1 LIMIT $2";
        // No transaction that is over has a number from the snapshot's upper bound on: a line that says so came with a dump of
        // another cluster, whose numbers were higher, and was seen by its `seq`.
        const POSTGRES: &str = "SELECT DISTINCT kind, id, member FROM touched WHERE seq > $1 \
             OR (tx >= $3 AND tx < pg_snapshot_xmax(pg_current_snapshot())::text::bigint) LIMIT $2";
        let most = (objects / 4).clamp(READ_ON.0, READ_ON.1);
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let (now, whole) = Self::look(db, Some(self)).await?;
        if !whole {
            return Ok(None);
        }
        let query = match db.driver() {
            Driver::Sqlite(_) => sql::query_as(SQLITE).bind(self.seq).bind(limit),
            Driver::Postgres(_) => sql::query_as(POSTGRES).bind(self.seq).bind(limit).bind(self.tx),
        };
        let lines: Vec<(String, String, String)> = query.fetch_all(db).await?;
        let many = lines.len() > most;
        Ok((!many).then(|| Touched::of(lines)).flatten().map(|touched| (touched, now)))
    }
}

impl Touched {
    /// Sorts lines by kind; `None` where one is of a kind that is not known here, or touches everybody.
    fn of(lines: Vec<(String, String, String)>) -> Option<Self> {
        let mut touched = Self::default();
        for (kind, id, member) in lines {
            let ids = match kind.as_str() {
                "peer" => &mut touched.peers,
                "user" => &mut touched.users,
                "group" => &mut touched.groups,
                "member" => {
                    touched.members.entry(id).or_default().insert(member);
                    continue;
                }
                "holds" => &mut touched.holds,
                "network" => &mut touched.networks,
                "router" => &mut touched.routers,
                "resource" => &mut touched.resources,
                "policy" => &mut touched.policies,
                "rule" => &mut touched.rules,
                "route" => &mut touched.routes,
                "zone" => &mut touched.zones,
                "nameservers" => &mut touched.nameservers,
                "unmanaged" => &mut touched.unmanaged,
                // Every machine is judged anew by a posture check that changes.
                _ => return None,
            };
            ids.insert(id);
        }
        Some(touched)
    }
}

impl Store {
    /// Removes lines that nobody is expected to look at any more; how many.
    pub async fn forget_touched(&self) -> Result<u64> {
        let mut db = self.begin().await?;
        let done = sql::query("DELETE FROM touched WHERE seq <= (SELECT max(seq) FROM touched) - $1")
            .bind(KEPT)
            .execute(&mut db)
            .await?;
        db.commit().await?;
        Ok(done.rows_affected())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_here_is_not_passed_over() {
        let line = |kind: &str| (kind.to_owned(), "x".to_owned(), String::new());
        for kind in [
            "peer",
            "user",
            "group",
            "member",
            "holds",
            "network",
            "router",
            "resource",
            "policy",
            "rule",
            "route",
            "zone",
            "nameservers",
            "unmanaged",
        ] {
            let touched = Touched::of(vec![line(kind)]).unwrap_or_default();
            assert_ne!(touched, Touched::default(), "{kind}");
        }
        for kind in ["posture", "something new", ""] {
            assert_eq!(Touched::of(vec![line("peer"), line(kind)]), None, "{kind}");
        }
    }
}
