//! Why the store did not do what it was asked.

use std::str::FromStr;

use crate::passwords::HashError;

/// Why a read or a change did not happen. Nothing is ever half applied.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object named does not exist.
    #[error("{kind} {id} not found")]
    NotFound {
        /// What was looked for, in lower case.
        kind: &'static str,
        /// The id asked for.
        id: String,
    },
    /// Another object has this name.
    #[error("{0}")]
    Duplicate(String),
    /// The request contradicts the model.
    #[error("{0}")]
    Invalid(String),
    /// The object cannot be deleted while another refers to it.
    #[error("{kind} has been linked to {link}: {name}")]
    InUse {
        /// What was to be deleted.
        kind: &'static str,
        /// What kind of object refers to it.
        link: &'static str,
        /// The name of that object.
        name: String,
    },
    /// The caller may not do this.
    #[error("{0}")]
    Denied(String),
    /// The password is right, but the account asks for a one-time code, and the user has none yet.
    #[error(
        "login refused: one-time codes are asked of everybody here, and this user has none yet: POST /api/login/password/totp \
         makes a secret for them, and a code of it logs in"
    )]
    NeedsCodes,
    /// Passwords are looked at one after the other, and too many wait.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// No space is left for the database.
    #[error("the disk of the store's database is full: free some space there and try again")]
    Full,
    /// The database answers, and takes no changes: a standby, or a file of somebody else's.
    #[error(
        "the store's database is read-only: if it is a standby, name the primary in [store] url; a file must be writable"
    )]
    ReadOnly,
    /// The database does not answer. What was asked did not happen, unless the connection was lost while it was being made
    /// durable.
    #[error("the store's database cannot be reached: {0}")]
    Unavailable(sqlx::Error),
    /// The database refused or failed: a damaged file, a broken disk, a bug.
    #[error("the store failed: {0}")]
    Database(sqlx::Error),
    /// A stored value is not what was once written.
    #[error("the store holds an unreadable value in {column}: {source}")]
    Corrupt {
        /// Table and column.
        column: &'static str,
        /// What the parser said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Labels of `store_errors_total`.
    pub(super) const REASONS: [&str; 4] = ["full", "read_only", "unavailable", "failed"];

    /// The label of a failure of the database; none where the request was at fault.
    pub(super) fn reason(&self) -> Option<&'static str> {
        match self {
            StoreError::Full => Some("full"),
            StoreError::ReadOnly => Some("read_only"),
            StoreError::Unavailable(_) => Some("unavailable"),
            StoreError::Database(_) | StoreError::Corrupt { .. } => Some("failed"),
            _ => None,
        }
    }
}

/// SQLITE_FULL: the disk, or the limit of pages, is reached; SQLite has rolled the transaction back by then. And
/// `disk_full`, `insufficient_resources` of PostgreSQL (Appendix A of its manual).
const FULL: [&str; 3] = ["13", "53100", "53000"];
/// SQLITE_READONLY with what it is extended by (`_RECOVERY`, `_CANTLOCK`, `_ROLLBACK`, `_DBMOVED`, `_DIRECTORY`), and
/// `read_only_sql_transaction` of PostgreSQL.
const READ_ONLY: [&str; 7] = ["8", "264", "520", "776", "1032", "1544", "25006"];
/// PostgreSQL is starting, stopping, or has no connection left: classes 08 and 57P, and `too_many_connections`.
const UNAVAILABLE: [&str; 3] = ["08", "57P", "53300"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error::{Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
        if matches!(error, Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed) {
            return StoreError::Unavailable(error);
        }
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
        if FULL.contains(&&*code) {
            StoreError::Full
        } else if READ_ONLY.contains(&&*code) {
            StoreError::ReadOnly
        } else if code.len() == 5 && UNAVAILABLE.iter().any(|class| code.starts_with(class)) {
            StoreError::Unavailable(error)
        } else {
            StoreError::Database(error)
        }
    }
}

/// The store's result.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

pub(crate) fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(StoreError::Invalid(message.into()))
}

pub(crate) fn duplicate<T>(message: impl Into<String>) -> Result<T> {
    Err(StoreError::Duplicate(message.into()))
}

pub(crate) fn not_found<T>(kind: &'static str, id: &str) -> Result<T> {
    Err(StoreError::NotFound { kind, id: id.to_owned() })
}

pub(crate) fn corrupt(
    column: &'static str,
) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    move |source| StoreError::Corrupt { column, source }
}

/// Reads what a column holds as text.
pub(super) fn parse<T: FromStr>(column: &'static str, text: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error: T::Err| corrupt(column)(Box::new(error)))
}
