//! The pools behind the store: one writer and some readers of a file, or one pool of a PostgreSQL database.
//!
//! Changes come one after the other, whoever makes them: in SQLite there is one writing connection, in PostgreSQL every
//! change begins by taking one advisory lock. So revisions and audit events are given out in the order in which changes
//! become visible, and a change sees all of those before it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Postgres, Sqlite, Transaction};

use super::location::Location;
use super::observe::{Observed, Operation};
use super::replica::CHANNEL;
use super::sql::{self, Connection, Session};
use super::{OpenError, Result, lock};

/// Readers of a file at once; more only queue on the disk.
const READERS: u32 = 4;
/// Connections to PostgreSQL for requests and agents; two more are kept to follow it (see `replica.rs`).
const CONNECTIONS: u32 = 10;
/// How long a writer waits for another process (a backup, a shell) to let go of the file.
const BUSY: Duration = Duration::from_secs(5);
/// How long anybody waits for a free connection, or for one to be made.
const ACQUIRE: Duration = Duration::from_secs(5);
/// The advisory lock of whoever changes anything: "sluicega" in ASCII.
pub(super) const WRITER_LOCK: i64 = 0x736c_7569_6365_6761;
/// The oldest PostgreSQL that its makers support, as `server_version_num`.
const POSTGRES_MIN: i32 = 140_000;

static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");

/// Either database, open and with the schema of this program.
pub(super) enum Database {
    Sqlite { reader: SqlitePool, writer: SqlitePool },
    Postgres { pool: PgPool, options: Box<PgConnectOptions> },
}

impl Database {
    /// Opens what is at `location`, and brings its schema up to this program's.
    pub(super) async fn open(location: &Location) -> Result<Self, OpenError> {
        match location {
            Location::Sqlite(path) => {
                // SQLite gives its journal the rights of the file itself: hashes of secrets are for the owner's eyes.
                lock::owners_file(path)
                    .map_err(|cause| OpenError::NotWritable { path: path.clone(), cause })?;
                open_sqlite(location, sqlite_options(path)).await
            }
            Location::Postgres(options) => open_postgres(location, options).await,
        }
    }

    /// `sqlite` or `postgres`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Database::Sqlite { .. } => "sqlite",
            Database::Postgres { .. } => "postgres",
        }
    }

    /// A connection whose statements all see one state.
    pub(super) async fn snapshot(&self, observed: &Arc<Observed>) -> Result<Connection> {
        self.session(observed, async || match self {
            // A deferred transaction in WAL mode reads one snapshot from its first statement on.
            Database::Sqlite { reader, .. } => Ok(Session::SqliteTransaction(reader.begin().await?)),
            Database::Postgres { pool, .. } => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                Ok(Session::PostgresTransaction(pool.begin_with(begin).await?))
            }
        })
        .await
    }

    /// A connection for one statement that reads.
    pub(super) async fn reader(&self, observed: &Arc<Observed>) -> Result<Connection> {
        self.session(observed, async || match self {
            Database::Sqlite { reader, .. } => Ok(Session::Sqlite(reader.acquire().await?)),
            Database::Postgres { pool, .. } => Ok(Session::Postgres(pool.acquire().await?)),
        })
        .await
    }

    /// A connection for one statement that writes, beside the order of changes.
    pub(super) async fn writer(&self, observed: &Arc<Observed>) -> Result<Connection> {
        self.session(observed, async || match self {
            Database::Sqlite { writer, .. } => Ok(Session::Sqlite(writer.acquire().await?)),
            Database::Postgres { pool, .. } => Ok(Session::Postgres(pool.acquire().await?)),
        })
        .await
    }

    /// Waits for its turn and begins a change.
    pub(super) async fn change(&self, observed: &Arc<Observed>) -> Result<Connection> {
        self.session(observed, async || match self {
            Database::Sqlite { writer, .. } => Ok(Session::SqliteTransaction(begin_sqlite(writer).await?)),
            Database::Postgres { pool, .. } => Ok(Session::PostgresTransaction(begin_postgres(pool).await?)),
        })
        .await
    }

    /// Begins a transaction that is no change of the account, and takes no turn among them where writers need none.
    pub(super) async fn aside(&self, observed: &Arc<Observed>) -> Result<Connection> {
        self.session(observed, async || match self {
            Database::Sqlite { writer, .. } => Ok(Session::SqliteTransaction(begin_sqlite(writer).await?)),
            Database::Postgres { pool, .. } => {
                let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
                Ok(Session::PostgresTransaction(pool.begin_with(begin).await?))
            }
        })
        .await
    }

    /// Tells the other replicas of the revision that a change makes, at the moment the change becomes durable.
    pub(super) async fn announce(&self, change: &mut Connection, revision: i64) -> Result<()> {
        if let Database::Postgres { .. } = self {
            sql::query("SELECT pg_notify($1, $2)")
                .bind(CHANNEL)
                .bind(revision.to_string())
                .execute(change)
                .await?;
        }
        Ok(())
    }

    /// Ends every connection.
    pub(super) async fn close(&self) {
        match self {
            Database::Sqlite { reader, writer } => {
                reader.close().await;
                writer.close().await;
            }
            Database::Postgres { pool, .. } => pool.close().await,
        }
    }

    async fn session(
        &self,
        observed: &Arc<Observed>,
        begin: impl AsyncFnOnce() -> sqlx::Result<Session>,
    ) -> Result<Connection> {
        let started = Instant::now();
        let session = observed.done(Operation::Begin, started, begin().await)?;
        Ok(Connection { session, observed: observed.clone() })
    }
}

/// How the file is opened by control itself; see [`super::backup`] for who else does.
pub(super) fn sqlite_options(path: &std::path::Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        // An answered change survives a power cut: a revoked key must not come back.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
}

/// The newest schema that this program knows.
pub(super) fn newest_schema() -> i64 {
    SQLITE.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Brings a file's schema up to date, or says why it is not a store of this program.
pub(super) async fn migrate_sqlite(
    location: &Location,
    db: &mut sqlx::SqliteConnection,
) -> Result<(), OpenError> {
    SQLITE.run(db).await.map_err(|cause| unfit(location, cause))
}

async fn open_sqlite(location: &Location, options: SqliteConnectOptions) -> Result<Database, OpenError> {
    let failed = |cause: sqlx::Error| OpenError::Store { place: location.name(), cause: cause.into() };
    let pool = || SqlitePoolOptions::new().acquire_timeout(ACQUIRE);
    let writer = pool().max_connections(1).connect_with(options.clone()).await.map_err(failed)?;
    let mut db = writer.acquire().await.map_err(failed)?;
    migrate_sqlite(location, &mut db).await?;
    drop(db);
    let reader =
        pool().max_connections(READERS).connect_with(options.read_only(true)).await.map_err(failed)?;
    Ok(Database::Sqlite { reader, writer })
}

async fn open_postgres(location: &Location, options: &PgConnectOptions) -> Result<Database, OpenError> {
    let failed = |cause: sqlx::Error| OpenError::Store { place: location.name(), cause: cause.into() };
    // Not by the pool, which tries again until its time is over and then says only that.
    // "already exists, skipping" is no news at a start.
    let quiet = options.clone().options([("client_min_messages", "warning")]);
    let mut first = match tokio::time::timeout(ACQUIRE, PgConnection::connect_with(&quiet)).await {
        Ok(connected) => connected.map_err(failed)?,
        Err(_) => return Err(failed(std::io::Error::from(std::io::ErrorKind::TimedOut).into())),
    };
    check_postgres(location, &mut first).await?;
    POSTGRES.run(&mut first).await.map_err(|cause| unfit(location, cause))?;
    first.close().await.map_err(failed)?;

    let options = options.clone().options([
        // A replica that hangs in the middle of a change, or whose host is gone, holds up the others only so long.
        ("lock_timeout", "10s"),
        ("statement_timeout", "60s"),
        ("idle_in_transaction_session_timeout", "10s"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "2"),
    ]);
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE)
        .connect_with(options.clone())
        .await
        .map_err(failed)?;
    Ok(Database::Postgres { pool, options: Box::new(options) })
}

/// Whether control can work on this server at all.
async fn check_postgres(location: &Location, db: &mut PgConnection) -> Result<(), OpenError> {
    let facts: (String, String, String, bool) = sqlx::query_as(
        "SELECT current_setting('server_version_num'), current_setting('server_encoding'),
         current_setting('transaction_read_only'), pg_is_in_recovery()",
    )
    .fetch_one(db)
    .await
    .map_err(|cause| OpenError::Store { place: location.name(), cause: cause.into() })?;
    let (version, encoding, read_only, standby) = facts;
    let unfit = |reason: String| Err(OpenError::Unfit { place: location.name(), reason });
    if version.parse::<i32>().unwrap_or_default() < POSTGRES_MIN {
        return unfit(format!(
            "its server's version is {version}, and control needs PostgreSQL {} or later",
            POSTGRES_MIN / 10_000
        ));
    }
    if standby || read_only == "on" {
        return unfit("it is a standby or read-only: name the primary".into());
    }
    if encoding != "UTF8" {
        return unfit(format!(
            "its encoding is {encoding}: create it anew with `CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0`"
        ));
    }
    Ok(())
}

fn unfit(location: &Location, cause: MigrateError) -> OpenError {
    let (place, known) = (location.name(), newest_schema());
    match cause {
        MigrateError::VersionMissing(found) if found > known => OpenError::Newer { place, found, known },
        MigrateError::Execute(cause) => OpenError::Store { place, cause: cause.into() },
        cause => OpenError::Migrate { place, cause },
    }
}

async fn begin_sqlite(writer: &SqlitePool) -> sqlx::Result<Transaction<'static, Sqlite>> {
    // IMMEDIATE: a transaction that first reads and then writes would fail where it finds another writer.
    const BEGIN: &str = "BEGIN IMMEDIATE";
    match writer.begin_with(BEGIN).await {
        // SQLite itself rolled a change back (disk full, I/O error) and the connection's count of open transactions
        // was left behind: a new connection starts from zero.
        Err(sqlx::Error::InvalidSavePointStatement) => {
            writer.acquire().await?.close().await?;
            writer.begin_with(BEGIN).await
        }
        begun => begun,
    }
}

async fn begin_postgres(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    // READ COMMITTED: the statements after the lock see every change that held it before.
    let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(WRITER_LOCK).execute(&mut *transaction).await?;
    Ok(transaction)
}
