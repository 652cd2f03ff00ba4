//! One set of queries for both databases.
//!
//! A query is written once, in the SQL that SQLite and PostgreSQL share, with `$1`, `$2`… for its values, which both
//! understand. Values and rows go through the databases' own drivers, so that each column has its natural type there:
//! a flag is a number in SQLite and a boolean in PostgreSQL, and here a `bool`.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{FromRow, Postgres, Sqlite, Transaction};
use tokio::sync::OwnedMutexGuard;

use super::Result;
use super::observe::{Observed, Operation};
use super::unit::{self, Slot};

/// A connection that queries go through. One in a transaction that is dropped rolls it back.
pub(crate) struct Connection {
    pub(super) session: Session,
    pub(super) observed: Arc<Observed>,
}

/// A connection of either database, with or without a transaction.
pub(super) enum Session {
    /// One statement, one change.
    Sqlite(PoolConnection<Sqlite>),
    SqliteTransaction(Transaction<'static, Sqlite>),
    /// One statement, one change.
    Postgres(PoolConnection<Postgres>),
    PostgresTransaction(Transaction<'static, Postgres>),
    /// The transaction of the unit that this task is in.
    Unit(OwnedMutexGuard<Slot>),
}

/// The driver's connection.
pub(super) enum Driver<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

impl Connection {
    pub(super) fn driver(&mut self) -> Driver<'_> {
        self.session.driver()
    }

    /// Makes a transaction durable; in a unit, a part of what the unit makes durable.
    pub(super) async fn commit(self) -> Result<()> {
        let started = Instant::now();
        let done = match self.session {
            Session::SqliteTransaction(transaction) => transaction.commit().await,
            Session::PostgresTransaction(transaction) => transaction.commit().await,
            Session::Sqlite(_) | Session::Postgres(_) => Ok(()),
            Session::Unit(guard) => return unit::made(guard, &self.observed).await,
        };
        self.observed.done(Operation::Commit, started, done)
    }
}

impl Session {
    pub(super) fn driver(&mut self) -> Driver<'_> {
        match self {
            Session::Sqlite(connection) => Driver::Sqlite(connection),
            Session::SqliteTransaction(transaction) => Driver::Sqlite(transaction),
            Session::Postgres(connection) => Driver::Postgres(connection),
            Session::PostgresTransaction(transaction) => Driver::Postgres(transaction),
            Session::Unit(guard) => guard.session.driver(),
        }
    }
}

/// What a row becomes, from either database. `#[derive(FromRow)]` and tuples do it.
pub(crate) trait Record:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> Record for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

/// A value of a query.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Flag(bool),
    Number(Option<i64>),
    Text(Option<String>),
    Bytes(Vec<u8>),
}

/// What becomes of a row that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// It is among the rows.
    Take,
    /// It is not.
    Skip,
    /// It is not, and no further one is read.
    Stop,
}

/// A query under way, whose rows become `T`.
pub(crate) struct Query<T> {
    text: &'static str,
    values: Vec<Value>,
    row: PhantomData<fn() -> T>,
}

/// A query of one column.
pub(crate) struct ScalarQuery<T>(Query<(T,)>);

/// A statement without rows.
pub(crate) fn query(text: &'static str) -> Query<()> {
    query_as(text)
}

/// A query whose rows become `T`.
pub(crate) fn query_as<T>(text: &'static str) -> Query<T> {
    Query { text, values: Vec::new(), row: PhantomData }
}

/// A query of one column.
pub(crate) fn query_scalar<T>(text: &'static str) -> ScalarQuery<T> {
    ScalarQuery(query_as(text))
}

/// Runs a statement without values that is no change by itself, as those about savepoints.
pub(super) async fn statement(
    driver: Driver<'_>,
    observed: &Arc<Observed>,
    text: &'static str,
) -> Result<()> {
    let started = Instant::now();
    let done = match driver {
        Driver::Sqlite(c) => sqlx::query::<Sqlite>(text).execute(c).await.map(drop),
        Driver::Postgres(c) => sqlx::query::<Postgres>(text).execute(c).await.map(drop),
    };
    observed.done(Operation::Write, started, done)
}

/// How many rows a statement changed.
pub(crate) struct Done {
    rows: u64,
}

impl Done {
    pub(crate) fn rows_affected(&self) -> u64 {
        self.rows
    }
}

impl<T> Query<T> {
    /// The next value.
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs a statement; how much it changed.
    pub(crate) async fn execute(self, db: &mut Connection) -> Result<Done> {
        let (started, kind) = (Instant::now(), self.kind());
        let rows = match db.driver() {
            Driver::Sqlite(c) => self.sqlite().execute(c).await.map(|done| done.rows_affected()),
            Driver::Postgres(c) => self.postgres().execute(c).await.map(|done| done.rows_affected()),
        };
        db.observed.done(kind, started, rows).map(|rows| Done { rows })
    }

    fn kind(&self) -> Operation {
        if self.text.trim_start().starts_with("SELECT") { Operation::Read } else { Operation::Write }
    }

    fn sqlite(self) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
        let query = sqlx::query::<Sqlite>(self.text);
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Flag(value) => query.bind(value),
            Value::Number(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
            Value::Bytes(value) => query.bind(value),
        })
    }

    fn postgres(self) -> sqlx::query::Query<'static, Postgres, PgArguments> {
        let query = sqlx::query::<Postgres>(self.text);
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Flag(value) => query.bind(value),
            Value::Number(value) => query.bind(value),
            Value::Text(value) => query.bind(value.map(without_nul)),
            Value::Bytes(value) => query.bind(value),
        })
    }
}

impl<T: Record> Query<T> {
    /// Every row.
    pub(crate) async fn fetch_all(self, db: &mut Connection) -> Result<Vec<T>> {
        let (started, kind) = (Instant::now(), self.kind());
        let rows = match db.driver() {
            Driver::Sqlite(c) => {
                let rows = self.sqlite().fetch_all(c).await;
                rows.and_then(|rows| rows.iter().map(|row| T::from_row(row)).collect())
            }
            Driver::Postgres(c) => {
                let rows = self.postgres().fetch_all(c).await;
                rows.and_then(|rows| rows.iter().map(|row| T::from_row(row)).collect())
            }
        };
        db.observed.done(kind, started, rows)
    }

    /// The row, if there is one.
    pub(crate) async fn fetch_optional(self, db: &mut Connection) -> Result<Option<T>> {
        let (started, kind) = (Instant::now(), self.kind());
        let row = match db.driver() {
            Driver::Sqlite(c) => {
                let row = self.sqlite().fetch_optional(c).await;
                row.and_then(|row| row.as_ref().map(|row| T::from_row(row)).transpose())
            }
            Driver::Postgres(c) => {
                let row = self.postgres().fetch_optional(c).await;
                row.and_then(|row| row.as_ref().map(|row| T::from_row(row)).transpose())
            }
        };
        db.observed.done(kind, started, row)
    }

    /// The row.
    pub(crate) async fn fetch_one(self, db: &mut Connection) -> Result<T> {
        let observed = db.observed.clone();
        match self.fetch_optional(db).await? {
            Some(row) => Ok(row),
            None => observed.failed(sqlx::Error::RowNotFound),
        }
    }

    /// The rows that `pick` takes, until it ends it.
    pub(crate) async fn fetch_picked(
        self,
        db: &mut Connection,
        mut pick: impl FnMut(&T) -> Pick,
    ) -> Result<Vec<T>> {
        let (started, kind) = (Instant::now(), self.kind());
        let mut rows = match db.driver() {
            Driver::Sqlite(c) => {
                let rows = self.sqlite().fetch(c);
                rows.map(|row| T::from_row(&row?)).boxed()
            }
            Driver::Postgres(c) => {
                let rows = self.postgres().fetch(c);
                rows.map(|row| T::from_row(&row?)).boxed()
            }
        };
        let mut kept = Vec::new();
        let read = loop {
            match rows.try_next().await {
                Ok(Some(row)) => match pick(&row) {
                    Pick::Take => kept.push(row),
                    Pick::Skip => {}
                    Pick::Stop => break Ok(()),
                },
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(rows);
        db.observed.done(kind, started, read).map(|()| kept)
    }
}

impl<T> ScalarQuery<T>
where
    (T,): Record,
{
    /// The next value.
    pub(crate) fn bind(self, value: impl Into<Value>) -> Self {
        ScalarQuery(self.0.bind(value))
    }

    /// Every row's value.
    pub(crate) async fn fetch_all(self, db: &mut Connection) -> Result<Vec<T>> {
        Ok(self.0.fetch_all(db).await?.into_iter().map(|(value,)| value).collect())
    }

    /// The row's value, if there is a row.
    pub(crate) async fn fetch_optional(self, db: &mut Connection) -> Result<Option<T>> {
        Ok(self.0.fetch_optional(db).await?.map(|(value,)| value))
    }

    /// The row's value.
    pub(crate) async fn fetch_one(self, db: &mut Connection) -> Result<T> {
        Ok(self.0.fetch_one(db).await?.0)
    }
}

/// PostgreSQL's text has no U+0000, and refuses the query. What is stored has none either (see `text.rs`), so a text with
/// one is only ever looked for: in vain, as it should be.
fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

macro_rules! values {
    ($($from:ty => |$value:ident| $to:expr,)*) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $to
            }
        })*
    };
}

values! {
    bool => |value| Value::Flag(value),
    i64 => |value| Value::Number(Some(value)),
    Option<i64> => |value| Value::Number(value),
    u16 => |value| Value::Number(Some(value.into())),
    u32 => |value| Value::Number(Some(value.into())),
    String => |value| Value::Text(Some(value)),
    &String => |value| Value::Text(Some(value.clone())),
    &str => |value| Value::Text(Some(value.to_owned())),
    Option<String> => |value| Value::Text(value),
    &Option<String> => |value| Value::Text(value.clone()),
    Option<&String> => |value| Value::Text(value.cloned()),
    Option<&str> => |value| Value::Text(value.map(str::to_owned)),
    &[u8] => |value| Value::Bytes(value.to_vec()),
}
