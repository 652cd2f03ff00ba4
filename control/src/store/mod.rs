//! Everything control keeps, in one SQLite file or a PostgreSQL database.
//!
//! Readers see consistent snapshots and never wait; changes come one after the other. A change is one transaction that alters
//! rows, appends audit events and raises the account's revision, or does none of it. A change that changes nothing
//! writes nothing. Whoever compiles policy waits on [`Store::changes`].

mod account;
mod activity;
mod answers;
mod attempts;
mod audit;
mod authority;
pub mod backup;
mod bootstrap;
mod break_glass;
mod chain;
mod codes;
mod credentials;
mod database;
mod dns_settings;
mod enroll;
mod error;
mod expiry;
mod facts;
mod first_codes;
mod flow_sums;
mod groups;
mod inherit;
mod invites;
mod join_keys;
mod labels;
mod learned;
mod location;
mod lock;
mod machine_logins;
mod machines;
mod nameservers;
mod networks;
mod observe;
mod peers;
mod policies;
mod policy_rows;
mod posture;
mod questions;
mod replica;
mod reset;
mod resources;
mod revisions;
mod routers;
mod routes;
mod sessions;
mod set_up;
mod setup_keys;
mod sign_in;
mod sql;
mod standing;
mod state;
mod temporary;
mod text;
mod tokens;
mod unit;
mod unserved;
mod users;
mod write;
mod zones;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};

use tokio::sync::{broadcast, watch};

pub use account::{Account, DashboardFeatures, ExtraSettings, FlowLog, Settings};
pub use activity::Activity;
pub use answers::KeptAnswer;
pub use attempts::Source;
pub use audit::{EVENTS_LIMIT, Event, EventFilter};
pub use authority::AuthorityError;
pub use bootstrap::TOKEN_FILE;
pub use break_glass::BreakGlass;
pub use chain::ChainPage;
pub use enroll::{EnrollError, EnrolledPeer, Enrollment};
pub use error::{Result, StoreError};
pub use facts::{Told, Turn};
pub use flow_sums::{Added, FlowAmount, FlowBatch, FlowCoverage, FlowDay, FlowKey, FlowVerdict, OF_A_DAY};
pub use groups::{Group, GroupChange, GroupCount, Issued, NamedRef, ResourceRef};
pub use invites::{Invite, NewInvite};
pub use learned::{Learned, Noted};
pub use location::{Location, LocationError};
pub use machine_logins::{
    BeginError, MachineLogin, MachineLoginState, NewMachineLogin, Sealed, WAITING, WAITING_OF_SOURCE,
};
pub use machines::{Machine, Owner};
pub use nameservers::{Nameserver, NameserverGroup, NameserverGroupSpec};
pub use networks::{Network, NetworkChange};
pub use observe::Observed;
pub use peers::{Expired, Peer, PeerChange, PeerFacts, Role};
pub use policies::{Action, End, Policy, PolicyChange, PortRange, Protocol, Rule, RuleChange, RuleSpec};
pub use posture::{PostureCheck, PostureCheckChange};
pub use questions::{Answer, Asking, Question, Questions};
pub use reset::Reset;
pub use resources::{Address, Resource, ResourceChange, ResourceKind};
pub use revisions::{PolicyRevision, RevisionKind};
pub use routers::{Router, RouterChange};
pub use routes::{NetworkRoute, RouteSpec};
pub use sessions::{Session, Via};
pub use set_up::FirstUser;
pub use setup_keys::{NewSetupKey, SetupKey, SetupKeyState};
pub use sign_in::Person;
pub use standing::Failing;
pub use state::{Agent, Ending, Names, Reading, Snapshot};
pub use temporary::{NewTemporaryAccess, TemporaryAccess, TemporaryService};
pub use tokens::Token;
pub use unit::Unit;
pub use users::{NewUser, User, UserChange, UserRole, may_grant};
pub use write::Actor;
pub use zones::{DnsRecord, RecordKind, RecordSpec, Zone, ZoneSpec};

use crate::ids::{new_id, now};
use database::Database;
use replica::{Follower, Shared};
use sql::Connection;

/// The file of the store inside the data directory.
const FILE: &str = "control.db";

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    shared: Arc<Shared>,
    follower: OnceLock<Follower>,
    /// When this control began to see who comes and goes, Unix milliseconds.
    started: AtomicI64,
    /// The account as readers of lists saw it last.
    followed: tokio::sync::Mutex<Reading>,
    /// Used-up setup keys that somebody tried lately.
    overused: std::sync::Mutex<enroll::Overused>,
    _locks: Vec<File>,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another control process holds the directory or the file.
    #[error("{} is in use by another control process: stop that one, or choose another by --data-dir or [store] url", .0.display())]
    InUse(PathBuf),
    /// It cannot be created or written.
    #[error("data directory {} cannot be written: {cause}: create it, or give this user the right to write there", .path.display())]
    NotWritable {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A bootstrap token lies there that no account of this store has issued.
    #[error(
        "{} is there but {place} holds no account: the store was removed; move the token file away to start afresh",
        .token.display()
    )]
    ForeignToken {
        /// The token's file.
        token: PathBuf,
        /// The store.
        place: String,
    },
    /// A newer version of control has been here.
    #[error(
        "the store {place} was written by a newer version of control (schema {found}, and this one knows schemas up to \
         {known}): start that version, or restore a backup from before the upgrade; schemas are never taken back"
    )]
    Newer {
        /// The store.
        place: String,
        /// Its schema.
        found: i64,
        /// This program's schema.
        known: i64,
    },
    /// What is there is no store, or the schema cannot be brought up to date.
    #[error("the store {place} cannot be brought to the schema of this version: {cause}")]
    Migrate {
        /// The store.
        place: String,
        /// What the migrator said.
        cause: sqlx::migrate::MigrateError,
    },
    /// The server is not one that control can work on.
    #[error("the store {place} cannot be used: {reason}")]
    Unfit {
        /// The store.
        place: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("the store {place} cannot be opened: {cause}")]
    Store {
        /// The store.
        place: String,
        /// What failed.
        cause: StoreError,
    },
    /// The instruments' names contradict each other.
    #[error("the store's metrics could not be made: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Store {
    /// Opens the file in `directory`, creating directory, store, account and bootstrap token where they are not there.
    pub async fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_at(&Location::file_in(directory), directory).await
    }

    /// Opens the store at `location`; what else control keeps is in `directory`, one for each replica.
    pub async fn open_at(location: &Location, directory: &Path) -> Result<Self, OpenError> {
        let locks = match location {
            Location::Sqlite(path) => lock::both(path, directory)?,
            Location::Postgres(_) => vec![lock::directory(directory)?],
        };
        let database = Database::open(location).await?;
        let observed = Arc::new(Observed::new(database.name())?);
        let shared = Arc::new(Shared {
            id: new_id(),
            revision: watch::Sender::new(0),
            leads: watch::Sender::new(matches!(database, Database::Sqlite { .. })),
            returned: watch::Sender::new(0),
            lost: watch::Sender::new(None),
            notes: broadcast::Sender::new(questions::NOTES),
            observed,
        });
        let inner = Inner {
            database,
            shared,
            follower: OnceLock::new(),
            started: AtomicI64::new(now()),
            followed: tokio::sync::Mutex::default(),
            overused: Default::default(),
            _locks: locks,
        };
        let store = Store { inner: Arc::new(inner) };
        let failed = |cause| OpenError::Store { place: location.name(), cause };
        store.link_old_events().await.map_err(failed)?;
        store.bootstrap(location, directory).await?;
        store.arrive().await.map_err(failed)?;
        store.revision().await.map_err(failed)?;
        if let Database::Postgres { options, .. } = &store.inner.database {
            // Only now: what follows expects an account.
            store.inner.shared.observed.leader.set(0);
            store.inner.follower.get_or_init(|| Follower::start(&store.inner.shared, options));
        }
        Ok(store)
    }

    /// The revision of the last change, now and whenever it rises. It is raised after the change is durable.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.shared.revision.subscribe()
    }

    /// The account's revision: the number of changes so far, by whomever.
    pub async fn revision(&self) -> Result<u64> {
        let revision: i64 =
            sql::query_scalar("SELECT revision FROM account").fetch_one(&mut self.reader().await?).await?;
        let revision = revision.unsigned_abs();
        self.inner.shared.raise(revision);
        Ok(revision)
    }

    /// Whether this replica does the work of which there is one, now and whenever that changes.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.inner.shared.leads.subscribe()
    }

    /// Raised when the other replicas had taken this one for gone: they have marked its agents as not connected.
    pub fn returned(&self) -> watch::Receiver<u64> {
        self.inner.shared.returned.subscribe()
    }

    /// Resolves, with the reason, once this process must not go on with what it knows.
    pub async fn lost(&self) -> String {
        let mut lost = self.inner.shared.lost.subscribe();
        let why = match lost.wait_for(Option::is_some).await {
            Ok(why) => why.clone(),
            Err(_) => None,
        };
        why.unwrap_or_default()
    }

    /// The store's instruments.
    pub fn observed(&self) -> &Observed {
        &self.inner.shared.observed
    }

    /// Ends every connection; whatever was answered is in the database.
    pub async fn close(&self) {
        // In vain where the database is gone: then the others find out by themselves.
        let _ = self.leave().await;
        self.inner.database.close().await;
    }

    /// No stream outlives this replica. In the order of changes, as everything that locks many peers.
    async fn leave(&self) -> Result<()> {
        let (mut db, id) = (self.begin().await?, &self.inner.shared.id);
        let left =
            sql::query("UPDATE peers SET connected = FALSE, replica = '', last_seen = $2 WHERE replica = $1");
        left.bind(id).bind(now()).execute(&mut db).await?;
        sql::query("DELETE FROM replicas WHERE id = $1").bind(id).execute(&mut db).await?;
        db.commit().await
    }

    /// Makes this replica known; in a file, as the only one there is.
    async fn arrive(&self) -> Result<()> {
        if let Database::Sqlite { .. } = self.inner.database {
            let mut db = self.inner.database.aside(&self.inner.shared.observed).await?;
            sql::query("DELETE FROM replicas").execute(&mut db).await?;
            sql::query("UPDATE peers SET connected = FALSE, replica = ''").execute(&mut db).await?;
            flow_sums::break_off(&mut db).await?;
            db.commit().await?;
        }
        Ok(())
    }

    /// A connection for one statement that reads.
    async fn reader(&self) -> Result<Connection> {
        let observed = &self.inner.shared.observed;
        match unit::reader(observed).await? {
            Some(part) => Ok(part),
            None => self.inner.database.reader(observed).await,
        }
    }

    /// A connection whose statements all read one state.
    async fn read(&self) -> Result<Connection> {
        let observed = &self.inner.shared.observed;
        match unit::reader(observed).await? {
            Some(part) => Ok(part),
            None => self.inner.database.snapshot(observed).await,
        }
    }

    /// A connection for one statement that writes what is in no audit trail.
    async fn writer(&self) -> Result<Connection> {
        let observed = &self.inner.shared.observed;
        match unit::reader(observed).await? {
            Some(part) => Ok(part),
            None => self.inner.database.writer(observed).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> GroupChange {
        GroupChange { name: name.into(), ..GroupChange::default() }
    }

    #[tokio::test]
    async fn a_full_disk_refuses_the_change_as_a_whole_and_reads_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let Database::Sqlite { writer, .. } = &store.inner.database else { unreachable!() };
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(writer).await.unwrap();
        let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(limit).execute(writer).await.unwrap();
        let network = |name: String| NetworkChange { name, description: "x".repeat(4096) };
        let mut created = 0;
        let error = loop {
            match store.create_network(&Actor::system(), network(created.to_string())).await {
                Ok(_) => created += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Full), "{error}");
        let (revision, events) = (store.revision().await.unwrap(), store.events().await.unwrap());
        assert_eq!(store.networks().await.unwrap().len(), created);
        assert_eq!(events[0].revision, revision, "no event of what did not happen");
        assert_eq!(*store.changes().borrow(), revision);

        sqlx::query("PRAGMA max_page_count = 4294967294").execute(writer).await.unwrap();
        store.create_network(&Actor::system(), network(created.to_string())).await.unwrap();
        assert_eq!(store.revision().await.unwrap(), revision + 1);
    }

    #[tokio::test]
    async fn every_change_raises_the_revision_once_and_wakes_whoever_waits() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let mut changes = store.changes();
        let before = *changes.borrow_and_update();
        store.create_group(&Actor::system(), group("a")).await.unwrap();
        changes.changed().await.unwrap();
        assert_eq!(*changes.borrow_and_update(), before + 1);
        assert_eq!(store.snapshot().await.unwrap().revision, before + 1);
        assert_eq!(store.events().await.unwrap()[0].revision, before + 1);

        let id = store.groups().await.unwrap()[1].id.clone();
        store.update_group(&Actor::system(), &id, group("a")).await.unwrap();
        assert!(!changes.has_changed().unwrap(), "an identical PUT is no change");
    }

    #[tokio::test]
    async fn a_directory_is_used_by_one_store_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let second = Store::open(directory.path()).await.err().unwrap();
        assert!(matches!(second, OpenError::InUse(_)), "{second}");
        store.close().await;
        drop(store);
        Store::open(directory.path()).await.unwrap();
    }
}
