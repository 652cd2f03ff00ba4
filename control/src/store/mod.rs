//! Everything control keeps, in one SQLite file.
//!
//! Readers see consistent snapshots and never wait; there is one writer. A change is one transaction that alters
//! rows, appends audit events and raises the account's revision, or does none of it. A change that changes nothing
//! writes nothing. Whoever compiles policy waits on [`Store::changes`].

mod account;
mod audit;
mod bootstrap;
mod enroll;
mod error;
mod groups;
mod networks;
mod peers;
mod policies;
mod resources;
mod routers;
mod setup_keys;
mod state;
mod text;
mod tokens;
mod users;
mod write;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::watch;

pub use account::{Account, ExtraSettings, Settings};
pub use audit::{Activity, Event};
pub use bootstrap::TOKEN_FILE;
pub use enroll::{EnrollError, EnrolledPeer, Enrollment};
pub use error::{Result, StoreError};
pub use groups::{Group, GroupChange, GroupCount, Issued, NamedRef, ResourceRef};
pub use networks::{Network, NetworkChange};
pub use peers::{Peer, PeerChange, PeerFacts, Role};
pub use policies::{Action, End, Policy, PolicyChange, PortRange, Protocol, Rule, RuleChange, RuleSpec};
pub use resources::{Address, Resource, ResourceChange, ResourceKind};
pub use routers::{Router, RouterChange};
pub use setup_keys::{NewSetupKey, SetupKey, SetupKeyState};
pub use state::{Agent, Snapshot};
pub use tokens::Token;
pub use users::{NewUser, User, UserChange, UserRole, may_grant};
pub use write::Actor;

/// The file of the store inside the data directory.
const FILE: &str = "control.db";
/// Held while a control process uses the data directory.
const LOCK_FILE: &str = "control.lock";
/// Readers at once; more only queue on the disk.
const READERS: u32 = 4;
/// How long a writer waits for another process (a backup, a shell) to let go of the file.
const BUSY: Duration = Duration::from_secs(5);

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    reader: SqlitePool,
    writer: SqlitePool,
    revision: watch::Sender<u64>,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another control process holds it.
    #[error("data directory {} is in use by another control process: stop that one or choose another --data-dir", .0.display())]
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
    #[error("{} is there but {} holds no account: the store was removed; move the token file away to start afresh", .0.display(), .1.display())]
    ForeignToken(PathBuf, PathBuf),
    /// The file is not a store, or of a newer version.
    #[error("the store {} cannot be opened: {cause}", .path.display())]
    Migrate {
        /// The store's file.
        path: PathBuf,
        /// What the migrator said.
        cause: sqlx::migrate::MigrateError,
    },
    /// Reading or writing failed.
    #[error("the store {} cannot be opened: {cause}", .path.display())]
    Store {
        /// The store's file.
        path: PathBuf,
        /// What failed.
        cause: StoreError,
    },
}

impl Store {
    /// Opens the store in `directory`, creating directory, store, account and bootstrap token where they are not there.
    pub async fn open(directory: &Path) -> Result<Self, OpenError> {
        let lock = lock(directory)?;
        let path = directory.join(FILE);
        // SQLite gives its journal the rights of the file itself: hashes of secrets are for the owner's eyes.
        owners_file(&path).map_err(|cause| OpenError::NotWritable { path: path.clone(), cause })?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            // An answered change survives a power cut: a revoked key must not come back.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);

        let failed = |source: sqlx::Error| OpenError::Store { path: path.clone(), cause: source.into() };
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        sqlx::migrate!("./migrations/sqlite")
            .run(&writer)
            .await
            .map_err(|cause| OpenError::Migrate { path: path.clone(), cause })?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await
            .map_err(failed)?;

        let inner = Inner { reader, writer, revision: watch::Sender::new(0), _lock: lock };
        let store = Store { inner: Arc::new(inner) };
        store.bootstrap(directory).await?;
        let revision = async {
            sqlx::query("UPDATE peers SET connected = 0").execute(&store.inner.writer).await?;
            store.revision().await
        };
        let revision = revision.await.map_err(|cause| OpenError::Store { path: path.clone(), cause })?;
        store.inner.revision.send_replace(revision);
        Ok(store)
    }

    /// The revision of the last change, now and whenever it rises. It is raised after the change is durable.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.revision.subscribe()
    }

    /// The account's revision: the number of changes so far.
    pub async fn revision(&self) -> Result<u64> {
        let revision: i64 =
            sqlx::query_scalar("SELECT revision FROM account").fetch_one(&self.inner.reader).await?;
        Ok(revision.unsigned_abs())
    }

    /// Ends every connection; whatever was answered is in the file.
    pub async fn close(&self) {
        self.inner.reader.close().await;
        self.inner.writer.close().await;
    }

    fn reader(&self) -> &SqlitePool {
        &self.inner.reader
    }
}

/// Makes the directory (0700) and takes its lock, which the system frees when the process ends, however it ends.
fn lock(directory: &Path) -> Result<File, OpenError> {
    use std::os::unix::fs::DirBuilderExt;

    let not_writable = |cause| OpenError::NotWritable { path: directory.to_owned(), cause };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(not_writable)?;
    let path = directory.join(LOCK_FILE);
    let file = owners_file(&path).map_err(not_writable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_owned())),
        Err(TryLockError::Error(cause)) => Err(OpenError::NotWritable { path, cause }),
    }
}

/// Opens a file, made with 0600 where it is not there.
fn owners_file(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
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
        let pages: i64 =
            sqlx::query_scalar("PRAGMA page_count").fetch_one(&store.inner.writer).await.unwrap();
        let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(limit).execute(&store.inner.writer).await.unwrap();
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

        sqlx::query("PRAGMA max_page_count = 4294967294").execute(&store.inner.writer).await.unwrap();
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
