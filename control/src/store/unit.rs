//! A unit of work: several reads and changes of one request as one transaction.
//!
//! A request may ask for more than its own change: that the object is still the one it knows, or that its answer is kept
//! with the change. So the transaction begins before the request is looked at, and everything that the request's handler
//! asks of the store goes through it. Each change in it is under a savepoint, so one that fails leaves no rows behind.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::observe::Observed;
use super::sql::{self, Connection, Session};
use super::{Result, Store, StoreError};

tokio::task_local! {
    static UNIT: Arc<Mutex<Slot>>;
}

/// The transaction of a unit, lent to one connection at a time.
pub(super) struct Slot {
    pub(super) session: Session,
    /// Whether this is a change of another unit, which has a savepoint of its own.
    inner: bool,
    /// Whether a change has begun, and was not made.
    unfinished: bool,
    /// The account's revision after the last change in it.
    revision: Option<i64>,
}

/// Several reads and changes that become durable together, or not at all: dropped, they never happened.
pub struct Unit {
    store: Store,
    slot: Arc<Mutex<Slot>>,
}

impl Store {
    /// Waits for its turn among all changes, and begins. Nobody else changes anything until this ends.
    pub async fn unit(&self) -> Result<Unit> {
        let Connection { session, .. } = self.begin().await?;
        let inner = matches!(session, Session::Unit(_));
        let slot = Slot { session, inner, unfinished: false, revision: None };
        Ok(Unit { store: self.clone(), slot: Arc::new(Mutex::new(slot)) })
    }
}

impl Unit {
    /// Runs `work`, whose reads see the changes of this unit and whose changes are parts of it. It may not leave its task.
    pub async fn run<F: Future>(&self, work: F) -> F::Output {
        UNIT.scope(self.slot.clone(), work).await
    }

    /// Makes every change durable, then tells whoever waits on [`Store::changes`].
    pub async fn commit(self) -> Result<()> {
        let observed = self.store.inner.shared.observed.clone();
        let mut guard = lend(&self.slot)?;
        guard.settle(&observed).await?;
        drop(guard);
        let Ok(slot) = Arc::try_unwrap(self.slot) else { return Err(lent()) };
        let Slot { session, revision, .. } = slot.into_inner();
        let mut connection = Connection { session, observed };
        // Inside another unit nothing is durable yet: whoever woke now would read the state before, and take it for this.
        let handed_on = revision.is_some_and(|revision| note(&mut connection, revision));
        connection.commit().await?;
        if let Some(revision) = revision.filter(|_| !handed_on) {
            self.store.inner.shared.raise(revision.unsigned_abs());
        }
        Ok(())
    }

    /// A connection in this unit.
    pub(super) async fn connection(&self) -> Result<Connection> {
        let observed = self.store.inner.shared.observed.clone();
        let mut guard = lend(&self.slot)?;
        guard.settle(&observed).await?;
        Ok(Connection { session: Session::Unit(guard), observed })
    }
}

impl Slot {
    /// Takes back a change that began and was dropped.
    async fn settle(&mut self, observed: &Arc<Observed>) -> Result<()> {
        if self.unfinished {
            let back = if self.inner { "ROLLBACK TO SAVEPOINT part" } else { "ROLLBACK TO SAVEPOINT change" };
            savepoint(self, observed, back).await?;
            release(self, observed).await?;
            self.unfinished = false;
        }
        Ok(())
    }
}

/// The connection of the unit this task is in, for reading; none outside of one, and none while it is in use.
pub(super) async fn reader(observed: &Arc<Observed>) -> Result<Option<Connection>> {
    let Some(Ok(mut guard)) = current() else { return Ok(None) };
    guard.settle(observed).await?;
    Ok(Some(Connection { session: Session::Unit(guard), observed: observed.clone() }))
}

/// The connection of the unit this task is in, for a change; none outside of one.
pub(super) async fn change(observed: &Arc<Observed>) -> Result<Option<Connection>> {
    let Some(lent) = current() else { return Ok(None) };
    let mut guard = lent?;
    guard.settle(observed).await?;
    let begin = if guard.inner { "SAVEPOINT part" } else { "SAVEPOINT change" };
    savepoint(&mut guard, observed, begin).await?;
    guard.unfinished = true;
    Ok(Some(Connection { session: Session::Unit(guard), observed: observed.clone() }))
}

/// What a change in a unit does instead of a commit.
pub(super) async fn made(mut guard: OwnedMutexGuard<Slot>, observed: &Arc<Observed>) -> Result<()> {
    // A connection that only read has no savepoint.
    if guard.unfinished {
        release(&mut guard, observed).await?;
        guard.unfinished = false;
    }
    Ok(())
}

/// Notes the revision that a change made, and whether it is in a unit at all.
pub(super) fn note(connection: &mut Connection, revision: i64) -> bool {
    match &mut connection.session {
        Session::Unit(guard) => {
            guard.revision = Some(revision);
            true
        }
        _ => false,
    }
}

/// Whether this task is in a unit.
pub(super) fn is_within() -> bool {
    UNIT.try_with(|_| ()).is_ok()
}

fn current() -> Option<Result<OwnedMutexGuard<Slot>>> {
    UNIT.try_with(lend).ok()
}

fn lend(slot: &Arc<Mutex<Slot>>) -> Result<OwnedMutexGuard<Slot>> {
    slot.clone().try_lock_owned().map_err(|_| lent())
}

/// Waiting would be for ever: whoever holds it is this same request.
fn lent() -> StoreError {
    StoreError::Database(sqlx::Error::Protocol(
        "a change began while another of the same request was read".into(),
    ))
}

/// Two names: to go back to that of the outer unit's change takes back whatever an inner one has done.
async fn release(slot: &mut Slot, observed: &Arc<Observed>) -> Result<()> {
    let done = if slot.inner { "RELEASE SAVEPOINT part" } else { "RELEASE SAVEPOINT change" };
    savepoint(slot, observed, done).await
}

async fn savepoint(slot: &mut Slot, observed: &Arc<Observed>, text: &'static str) -> Result<()> {
    sql::statement(slot.session.driver(), observed, text).await
}

#[cfg(test)]
mod tests {
    use super::super::{Actor, GroupChange};
    use super::*;

    fn group(name: &str) -> GroupChange {
        GroupChange { name: name.into(), ..GroupChange::default() }
    }

    async fn names(store: &Store) -> Vec<String> {
        store.groups().await.unwrap().into_iter().map(|group| group.name).collect()
    }

    #[tokio::test]
    async fn what_a_unit_does_is_seen_in_it_at_once_and_elsewhere_when_it_is_made_or_never() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let actor = Actor::system();
        let before = store.revision().await.unwrap();
        let dropped = store.unit().await.unwrap();
        dropped.run(store.create_group(&actor, group("a"))).await.unwrap();
        assert_eq!(dropped.run(names(&store)).await, ["All", "a"]);
        assert_eq!(names(&store).await, ["All"]);
        drop(dropped);
        assert_eq!((names(&store).await, store.revision().await.unwrap()), (vec!["All".into()], before));

        let made = store.unit().await.unwrap();
        made.run(store.create_group(&actor, group("a"))).await.unwrap();
        made.run(store.create_group(&actor, group("b"))).await.unwrap();
        assert_eq!(*store.changes().borrow(), before);
        made.commit().await.unwrap();
        assert_eq!(names(&store).await, ["All", "a", "b"]);
        assert_eq!(*store.changes().borrow(), before + 2);
        assert_eq!(store.revision().await.unwrap(), before + 2);
    }

    #[tokio::test]
    async fn a_unit_in_a_unit_tells_nobody_before_the_outer_one_is_made_and_never_when_it_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let actor = Actor::system();
        let before = store.revision().await.unwrap();
        let told = || *store.changes().borrow();
        let inner = async || {
            let inner = store.unit().await.unwrap();
            inner.run(store.create_group(&actor, group("a"))).await.unwrap();
            inner.run(store.create_group(&actor, group("b"))).await.unwrap();
            inner.commit().await.unwrap();
        };
        let dropped = store.unit().await.unwrap();
        dropped.run(inner()).await;
        assert_eq!(told(), before);
        drop(dropped);
        assert_eq!((told(), store.revision().await.unwrap()), (before, before));
        assert_eq!(names(&store).await, ["All"]);

        let made = store.unit().await.unwrap();
        made.run(inner()).await;
        assert_eq!((told(), store.revision().await.unwrap()), (before, before));
        made.commit().await.unwrap();
        assert_eq!((told(), store.revision().await.unwrap()), (before + 2, before + 2));
        assert_eq!(names(&store).await, ["All", "a", "b"]);
    }

    #[tokio::test]
    async fn a_unit_in_a_unit_that_is_dropped_leaves_nothing_of_itself() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let gone = GroupChange { peers: vec!["gone".into()], ..group("half") };
        let outer = store.unit().await.unwrap();
        outer
            .run(async {
                store.create_group(&Actor::system(), group("a")).await.unwrap();
                let inner = store.unit().await.unwrap();
                inner.run(store.create_group(&Actor::system(), group("b"))).await.unwrap();
                inner.run(store.create_group(&Actor::system(), gone)).await.unwrap_err();
                drop(inner);
                store.create_group(&Actor::system(), group("c")).await.unwrap();
            })
            .await;
        outer.commit().await.unwrap();
        assert_eq!(names(&store).await, ["All", "a", "c"]);
    }

    #[tokio::test]
    async fn a_change_that_fails_in_a_unit_leaves_nothing_of_itself() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let unit = store.unit().await.unwrap();
        let gone = GroupChange { peers: vec!["gone".into()], ..group("half") };
        unit.run(async {
            store.create_group(&Actor::system(), group("a")).await.unwrap();
            // Its row is written before its members are looked for.
            store.create_group(&Actor::system(), gone).await.unwrap_err();
            store.create_group(&Actor::system(), group("b")).await.unwrap();
        })
        .await;
        unit.commit().await.unwrap();
        assert_eq!(names(&store).await, ["All", "a", "b"]);
    }
}
