//! Backups of an SQLite store: taken while control runs, and put back while it does not.

use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::database::newest_schema;
use super::{Location, OpenError, lock};
use crate::ids::now;

/// Why there is no backup, or why it was not put back. What was there before is there still.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// PostgreSQL has its own tools.
    #[error(
        "the store {0} is a PostgreSQL database: back it up with `pg_dump --format=custom --file=FILE DATABASE`, and put it \
         back, with every replica stopped, with `pg_restore --clean --if-exists --single-transaction --dbname=DATABASE FILE`"
    )]
    Postgres(String),
    /// Nothing is ever overwritten.
    #[error("{} is there already: choose another name, or move it away", .0.display())]
    Exists(PathBuf),
    /// The file is no backup that can be used.
    #[error("{} is no store that can be put back: {reason}", .file.display())]
    Unfit {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    #[error("{action} {}: {cause}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// SQLite failed.
    #[error("{action} {}: {cause}", .path.display())]
    Database {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What failed.
        cause: sqlx::Error,
    },
    /// The data directory cannot be used, or control runs.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Number of changes.
    pub revision: u64,
    /// The authority that its agents pin, SHA-256 in hex; empty when control had never started with it.
    pub authority: String,
}

/// Writes the store at `location` as it is at this moment to `file`, which must not exist. Control goes on meanwhile.
pub async fn backup(location: &Location, file: &Path) -> Result<Contents, BackupError> {
    let store = sqlite(location)?;
    refuse_existing(file)?;
    let beside = beside(file);
    remove(&beside)?;
    // Made for its owner's eyes before SQLite fills it: it takes an empty file for a new one.
    lock::owners_file(&beside).map_err(failed("cannot write", &beside))?;
    let copied = async {
        let options = SqliteConnectOptions::new().filename(store).read_only(true);
        let mut db = options.connect().await.map_err(database("cannot open", store))?;
        let target = beside.to_string_lossy().into_owned();
        sqlx::query("VACUUM INTO $1")
            .bind(target)
            .execute(&mut db)
            .await
            .map_err(database("cannot copy", store))?;
        db.close().await.map_err(database("cannot close", store))?;
        let contents = inspect(&beside).await?;
        publish(&beside, file)?;
        Ok(contents)
    };
    let copied = copied.await;
    if copied.is_err() {
        remove(&beside)?;
    }
    copied
}

/// Makes the backup `file` the store at `location`. Control must be stopped; the data directory's authority, SHA-256 in hex
/// where there is one, must be the one that the backup's agents pin. A store that is there is kept under another name, which
/// is returned.
pub async fn restore(
    location: &Location,
    directory: &Path,
    authority: Option<&str>,
    file: &Path,
) -> Result<(Contents, Option<PathBuf>), BackupError> {
    let store = sqlite(location)?;
    let _locks = lock::both(store, directory)?;
    let contents = inspect(file).await?;
    let unfit = |reason: String| BackupError::Unfit { file: file.to_owned(), reason };
    if let Some(authority) = authority
        && !contents.authority.is_empty()
        && contents.authority != authority
    {
        return Err(unfit(format!(
            "its agents trust the authority sha256:{}, and {} holds sha256:{authority}: put back the ca.pem and ca.key that \
             were saved with it first",
            contents.authority,
            directory.display()
        )));
    }
    let incoming = beside(store);
    remove(&incoming)?;
    let copied = copy(file, &incoming).and_then(|()| aside(store));
    let kept = match copied {
        Ok(kept) => kept,
        Err(error) => {
            remove(&incoming)?;
            return Err(error);
        }
    };
    publish(&incoming, store)?;
    Ok((contents, kept))
}

/// Reads a backup's contents, or says why it is none that this program can use.
async fn inspect(file: &Path) -> Result<Contents, BackupError> {
    let unfit = |reason: String| BackupError::Unfit { file: file.to_owned(), reason };
    if let Err(cause) = std::fs::metadata(file) {
        return Err(failed("cannot read", file)(cause));
    }
    // Immutable: nothing is written beside it, and a journal beside it does not count.
    let options = SqliteConnectOptions::new().filename(file).read_only(true).immutable(true);
    let foreign = |cause: sqlx::Error| unfit(format!("it cannot be read as a store ({cause})"));
    let mut db: SqliteConnection = options.connect().await.map_err(foreign)?;
    let sound: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut db).await.map_err(foreign)?;
    if sound != ["ok"] {
        return Err(unfit(format!("it is damaged ({})", sound.first().map_or("", String::as_str))));
    }
    let schema: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
        .fetch_one(&mut db)
        .await
        .map_err(foreign)?;
    let known = newest_schema();
    if schema.is_none_or(|schema| schema > known) {
        return Err(unfit(format!(
            "its schema is {}, and this version of control knows schemas up to {known}: use the version that wrote it",
            schema.unwrap_or_default()
        )));
    }
    let revision: Option<i64> =
        sqlx::query_scalar("SELECT revision FROM account").fetch_optional(&mut db).await.map_err(foreign)?;
    let Some(revision) = revision else { return Err(unfit("it holds no account".into())) };
    let authority = if schema >= Some(2) {
        sqlx::query_scalar("SELECT authority FROM account").fetch_one(&mut db).await.map_err(foreign)?
    } else {
        String::new()
    };
    db.close().await.map_err(foreign)?;
    Ok(Contents { revision: revision.unsigned_abs(), authority })
}

/// Renames a store with its journal out of the way; the new name of the store, when there was one.
fn aside(store: &Path) -> Result<Option<PathBuf>, BackupError> {
    let mut kept = None;
    let suffix = format!(".before-restore-{}", now());
    for journal in ["", "-wal", "-shm"] {
        let from = with_suffix(store, journal);
        let to = with_suffix(&with_suffix(store, &suffix), journal);
        match std::fs::rename(&from, &to) {
            Ok(()) if journal.is_empty() => kept = Some(to),
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => return Err(failed("cannot rename", &from)(cause)),
        }
    }
    Ok(kept)
}

fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let mut source = std::fs::File::open(from).map_err(failed("cannot read", from))?;
    let mut target = lock::owners_file(to).map_err(failed("cannot write", to))?;
    std::io::copy(&mut source, &mut target).map_err(failed("cannot write", to))?;
    target.sync_all().map_err(failed("cannot write", to))
}

/// Gives a complete file its name, which must be free, once its data has reached the disk.
fn publish(from: &Path, to: &Path) -> Result<(), BackupError> {
    let synced = std::fs::File::open(from).and_then(|file| file.sync_all());
    synced.map_err(failed("cannot write", from))?;
    match std::fs::hard_link(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(BackupError::Exists(to.to_owned()));
        }
        linked => linked.map_err(failed("cannot write", to))?,
    }
    std::fs::remove_file(from).map_err(failed("cannot remove", from))?;
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(failed("cannot write", directory))
}

fn sqlite(location: &Location) -> Result<&Path, BackupError> {
    match location {
        Location::Sqlite(path) => Ok(path),
        Location::Postgres(_) => Err(BackupError::Postgres(location.name())),
    }
}

fn refuse_existing(file: &Path) -> Result<(), BackupError> {
    match file.try_exists().map_err(failed("cannot look at", file))? {
        true => Err(BackupError::Exists(file.to_owned())),
        false => Ok(()),
    }
}

fn beside(file: &Path) -> PathBuf {
    with_suffix(file, ".new")
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove(file: &Path) -> Result<(), BackupError> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("cannot remove", file)(error))
        }
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    move |cause| BackupError::File { action, path: path.to_owned(), cause }
}

fn database(action: &'static str, path: &Path) -> impl FnOnce(sqlx::Error) -> BackupError {
    move |cause| BackupError::Database { action, path: path.to_owned(), cause }
}
