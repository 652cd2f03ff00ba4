//! Why the store did not do what it was asked.

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
    /// No space is left for the store's file.
    #[error("the disk of the data directory is full: free some space there and try again")]
    Full,
    /// SQLite refused or failed: damaged file, a broken disk, a bug.
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

/// SQLITE_FULL: the disk, or the limit of pages, is reached. SQLite has rolled the transaction back by then.
const SQLITE_FULL: &str = "13";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        if code.as_deref() == Some(SQLITE_FULL) { StoreError::Full } else { StoreError::Database(error) }
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
