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
    #[error("data directory {} cannot be written: {source}: create it, or give this user the right to write there", .path.display())]
    NotWritable {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A bootstrap token lies there that no account of this store has issued.
    #[error("{} is there but {} holds no account: the store was removed; move the token file away to start afresh", .0.display(), .1.display())]
    ForeignToken(PathBuf, PathBuf),
    /// The file is not a store, or of a newer version.
    #[error("the store {} cannot be opened: {source}", .path.display())]
    Migrate {
        /// The store's file.
        path: PathBuf,
        /// What the migrator said.
        source: sqlx::migrate::MigrateError,
    },
    /// Reading or writing failed.
    #[error("the store {} cannot be opened: {source}", .path.display())]
    Store {
        /// The store's file.
        path: PathBuf,
        /// What failed.
        source: StoreError,
    },
}

impl Store {
    /// Opens the store in `directory`, creating directory, store, account and bootstrap token where they are not there.
    pub async fn open(directory: &Path) -> Result<Self, OpenError> {
        let lock = lock(directory)?;
        let path = directory.join(FILE);
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An answered change survives a power cut: a revoked key must not come back.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);

        let failed = |source: sqlx::Error| OpenError::Store { path: path.clone(), source: source.into() };
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        sqlx::migrate!("./migrations/sqlite")
            .run(&writer)
            .await
            .map_err(|source| OpenError::Migrate { path: path.clone(), source })?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true).create_if_missing(false))
            .await
            .map_err(failed)?;

        let inner = Inner { reader, writer, revision: watch::Sender::new(0), _lock: lock };
        let store = Store { inner: Arc::new(inner) };
        store.bootstrap(directory).await?;
        let revision = async {
            sqlx::query("UPDATE peers SET connected = 0").execute(&store.inner.writer).await?;
            store.revision().await
        };
        let revision = revision.await.map_err(|source| OpenError::Store { path: path.clone(), source })?;
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
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

    let not_writable = |source| OpenError::NotWritable { path: directory.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(not_writable)?;

    let path = directory.join(LOCK_FILE);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(not_writable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::NotWritable { path, source }),
    }
}
