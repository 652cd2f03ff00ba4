//! A new password for a built-in user, set at the server: the way back in when nobody is left who could send a link.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection as _};
use tokio::sync::{broadcast, watch};

use super::credentials::{credential_of, login, set_password, state_of};
use super::database::{Database, newest_schema};
use super::error::invalid;
use super::observe::Observed;
use super::write::Meta;
use super::{
    Activity, Actor, Inner, Location, OpenError, Result, Shared, Store, User, questions, sql, users,
};
use crate::ids::{new_id, now};
use crate::passwords;

const SCHEMA: &str = "SELECT max(version) FROM _sqlx_migrations WHERE success";
/// Addresses that a refusal names.
const NAMED: i64 = 20;

/// What was done.
#[derive(Clone, Debug)]
pub struct Reset {
    /// Whose password it is.
    pub user: User,
    /// Whether one-time codes are asked for still.
    pub codes: bool,
    /// Personal access tokens that go on.
    pub tokens: i64,
}

impl Actor {
    /// Somebody on control's host who can write the store, by the number of the host's user.
    pub fn at_server(uid: u32) -> Self {
        Actor { id: "server".into(), name: format!("user {uid} of control's host"), email: String::new() }
    }
}

impl Store {
    /// Opens a store that is there, beside the control that may be serving it: as no replica, without the data directory's lock and
    /// without bringing its schema forward, which is control's. Only single changes are to be made by it.
    pub async fn beside(location: &Location) -> std::result::Result<Self, OpenError> {
        check_schema(location).await?;
        let database = Database::open(location).await?;
        let observed = Arc::new(Observed::new(database.name())?);
        let shared = Arc::new(Shared {
            id: new_id(),
            revision: watch::Sender::new(0),
            leads: watch::Sender::new(false),
            returned: watch::Sender::new(0),
            lost: watch::Sender::new(None),
            notes: broadcast::Sender::new(questions::NOTES),
            observed,
        });
        let (follower, started) = (OnceLock::new(), AtomicI64::new(now()));
        let followed = tokio::sync::Mutex::default();
        let overused = Default::default();
        let inner = Inner { database, shared, follower, started, followed, overused, _locks: Vec::new() };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Gives the built-in user of an address another password; with `end_codes`, one-time codes are off as well. Every login and
    /// every link for a password of that user ends, and what was tried is forgotten.
    pub async fn reset_password(
        &self,
        by: &Actor,
        address: &str,
        password: &str,
        end_codes: bool,
    ) -> Result<Reset> {
        if let Some(why) = passwords::objection(password, address) {
            return invalid(why);
        }
        let hash = passwords::hash(password.to_owned()).await?;
        let mut write = self.write(by).await?;
        let found: Option<String> = sql::query_scalar("SELECT user_id FROM credentials WHERE login = $1")
            .bind(login(address))
            .fetch_optional(write.db())
            .await?;
        let Some(id) = found else {
            let known: Vec<String> =
                sql::query_scalar("SELECT login FROM credentials ORDER BY login LIMIT $1")
                    .bind(NAMED)
                    .fetch_all(write.db())
                    .await?;
            let known = if known.is_empty() { "there are none".into() } else { known.join(", ") };
            return invalid(format!("no built-in user has the address {address:?}; built-in users: {known}"));
        };
        let user = users::user(write.db(), &id).await?;
        let before = state_of(&mut write, &id).await?;
        set_password(&mut write, &id, address, &hash).await?;
        sql::query("DELETE FROM invites WHERE user_id = $1").bind(&id).execute(write.db()).await?;
        let set = state_of(&mut write, &id).await?;
        let meta = Meta::name(&user.name).with("email", &user.email).before(&before).after(&set);
        write.event(Activity::PasswordReset, &id, meta).await?;
        let mut codes = credential_of(write.db(), &id).await?.is_some_and(|own| own.totp_on);
        if end_codes {
            sql::query(
                "UPDATE credentials SET totp_on = FALSE, totp_secret = $1, totp_step = 0 WHERE user_id = $2",
            )
            .bind([].as_slice())
            .bind(&id)
            .execute(write.db())
            .await?;
            if codes {
                let meta = Meta::name(&user.name).before(&set).after(&state_of(&mut write, &id).await?);
                write.event(Activity::OneTimeCodesOff, &id, meta).await?;
            }
            codes = false;
        }
        let tokens: i64 =
            sql::query_scalar("SELECT count(*) FROM tokens WHERE user_id = $1 AND expires_at > $2")
                .bind(&id)
                .bind(now())
                .fetch_one(write.db())
                .await?;
        write.commit().await?;
        Ok(Reset { user, codes, tokens })
    }

    /// Ends the connections of a store that was opened by [`Store::beside`].
    pub async fn close_beside(&self) {
        self.inner.database.close().await;
    }
}

/// Refuses what is no store, or one of another version: whoever serves it brings it forward.
async fn check_schema(location: &Location) -> std::result::Result<(), OpenError> {
    let (place, known) = (location.name(), newest_schema());
    let unfit = |reason: String| OpenError::Unfit { place: place.clone(), reason };
    let failed = |cause: sqlx::Error| match cause {
        sqlx::Error::Database(said) => {
            unfit(format!("it holds no account ({said}); --data-dir, --store or --config name another"))
        }
        cause => OpenError::Store { place: place.clone(), cause: cause.into() },
    };
    let schema: Option<i64> = match location {
        Location::Sqlite(path) => {
            if !path.exists() {
                return Err(unfit(
                    "there is no such file; --data-dir, --store or --config name another".into(),
                ));
            }
            let mut db = SqliteConnectOptions::new().filename(path).connect().await.map_err(failed)?;
            let schema = sqlx::query_scalar(SCHEMA).fetch_one(&mut db).await.map_err(failed)?;
            db.close().await.map_err(failed)?;
            schema
        }
        Location::Postgres(options) => {
            let mut db = options.connect().await.map_err(failed)?;
            let schema = sqlx::query_scalar(SCHEMA).fetch_one(&mut db).await.map_err(failed)?;
            db.close().await.map_err(failed)?;
            schema
        }
    };
    match schema.unwrap_or_default() {
        found if found > known => Err(OpenError::Newer { place, found, known }),
        found if found < known => Err(unfit(format!(
            "its schema is {found}, and this version's is {known}: use the program of the control that serves it, or start this \
             version's control first"
        ))),
        _ => Ok(()),
    }
}
