//! Logins by which a person lets a machine in, or back in: the machine holds a secret and waits, and the person agrees at the
//! identity provider, or here by a code that is typed.
//!
//! What waits is in the store, so that any replica can answer. It is no part of the account until somebody agrees, and bounded:
//! anybody who reaches the agents' port may begin one.

use std::net::IpAddr;

use sqlx::FromRow;

use super::enroll::{self, EnrollError, EnrolledPeer, Enrollment, enroll_as, log_in};
use super::error::{StoreError, invalid, not_found};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Role, Store, User, peers, sign_in, users};
use crate::buckets::source;
use crate::ids::now;
use crate::secret::{SecretHash, machine_login_hash, new_user_code, user_code};
use crate::text::fingerprint;

/// Newcomers that may wait at a time. Peers whose login is renewed are not among them: each has a place of its own.
pub const WAITING: i64 = 4_096;
/// Those of one address; of IPv6, of its /64.
pub const WAITING_OF_SOURCE: i64 = 16;
/// How long somebody may take to agree, in milliseconds.
const LIFETIME: i64 = 600_000;
/// How long a machine that was let in may take to join, in milliseconds.
const JOIN_WITHIN: i64 = 600_000;
/// Machines that one user may have let in and that have not joined yet.
const ADMITTED: i64 = 20;
/// For how long whoever asks the provider may take until somebody else does, in milliseconds: longer than any answer is waited for.
const ASKING: i64 = 60_000;
/// The longest gap between two questions to the provider, in milliseconds.
const GAP_MAX: i64 = 60_000;
/// For how long a machine that was turned away can still ask why, in milliseconds.
const TOLD_WITHIN: i64 = 120_000;

/// What a machine brings to begin.
#[derive(Clone, Debug)]
pub struct NewMachineLogin {
    /// The machine's secret, as it is kept.
    pub hash: SecretHash,
    /// As in [`Enrollment`].
    pub identity_key: [u8; 32],
    /// As in [`Enrollment`].
    pub wireguard_public_key: [u8; 32],
    /// Gateway or peer.
    pub role: Role,
    /// The name the machine gives itself.
    pub hostname: String,
    /// Operating system.
    pub os: String,
    /// Where the request came from.
    pub from: Option<IpAddr>,
    /// The peer that it is already, where it is one.
    pub peer: Option<String>,
    /// The identity provider's device code, where it gave one.
    pub device: Option<Sealed>,
}

/// A device code of the identity provider, which nobody can read who has only the store.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Encrypted with the machine's secret.
    pub code: Vec<u8>,
    /// Milliseconds between two questions.
    pub gap: i64,
    /// Milliseconds that it is good for.
    pub lifetime: i64,
}

/// A machine that waits for somebody to agree, or has been let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineLogin {
    /// What a person types.
    pub code: String,
    /// What became of it.
    pub state: MachineLoginState,
    /// SHA-256 of the machine's public key (SubjectPublicKeyInfo, DER).
    pub identity_key: Vec<u8>,
    /// Gateway or peer.
    pub role: Role,
    /// The name the machine gives itself.
    pub hostname: String,
    /// Operating system.
    pub os: String,
    /// The address it asks from; empty where that is not known.
    pub address: String,
    /// The peer that it is already; empty to join.
    pub peer_id: String,
    /// Unix milliseconds.
    pub expires_at: i64,
}

/// What became of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineLoginState {
    /// Nobody has agreed yet.
    Waiting,
    /// Somebody has: the machine may join, or its login is as of now.
    Admitted,
    /// It was turned away, and why.
    Refused(String),
}

/// Why a login was not begun.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// Too many of one address.
    #[error(
        "{WAITING_OF_SOURCE} machines from this address wait for somebody to log in: wait until those are done"
    )]
    Here,
    /// Too many in all.
    #[error("too many machines wait for somebody to log in; try again in some minutes")]
    Everywhere,
    /// The peer is not of a user.
    #[error("this agent joined by a setup key: it has no login, and none that expires")]
    NoLogin,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(FromRow)]
struct Row {
    hash: Vec<u8>,
    code: String,
    state: String,
    refusal: String,
    user_id: Option<String>,
    peer_id: String,
    identity_key: Vec<u8>,
    wireguard_key: Vec<u8>,
    role: String,
    hostname: String,
    os: String,
    address: String,
    expires_at: i64,
}

const WAITS: &str = "waiting";
const ADMITS: &str = "admitted";
const USED: &str = "used";
const REFUSED: &str = "refused";

macro_rules! select {
    ($of:literal) => {
        concat!(
            "SELECT hash, code, state, refusal, user_id, peer_id, identity_key, wireguard_key, role, hostname, os, address, \
             expires_at FROM machine_logins WHERE ",
            $of,
            " = $1"
        )
    };
}

impl Store {
    /// SHA-256 of the public key that a peer's certificate was made for.
    pub async fn identity_key(&self, peer: &str) -> Result<[u8; 32]> {
        let key: Option<Vec<u8>> = sql::query_scalar("SELECT identity_key FROM peers WHERE id = $1")
            .bind(peer)
            .fetch_optional(&mut self.reader().await?)
            .await?;
        match key.map(TryInto::try_into) {
            Some(Ok(key)) => Ok(key),
            // A peer without an agent has none, and never asks.
            _ => not_found("peer", peer),
        }
    }

    /// Whether one more newcomer may begin, asked before anything is done for it.
    pub async fn room_for_login(&self, from: Option<IpAddr>) -> Result<(), BeginError> {
        room(&mut self.read().await?, &text(from.map(source)), now()).await
    }

    /// Begins a login; its code, and until when it is good, Unix milliseconds.
    pub async fn begin_login(&self, new: &NewMachineLogin) -> Result<(String, i64), BeginError> {
        let mut db = self.begin().await?;
        let (at, source) = (now(), text(new.from.map(source)));
        sql::query("DELETE FROM machine_logins WHERE expires_at <= $1").bind(at).execute(&mut db).await?;
        match &new.peer {
            Some(peer) => {
                if peers::peer(&mut db, peer).await?.user_id.is_empty() {
                    return Err(BeginError::NoLogin);
                }
                // A new one takes the place of the one before.
                sql::query("DELETE FROM machine_logins WHERE peer_id = $1")
                    .bind(peer)
                    .execute(&mut db)
                    .await?;
            }
            None => room(&mut db, &source, at).await?,
        }
        let device = new.device.clone().unwrap_or(Sealed { code: Vec::new(), gap: 0, lifetime: LIFETIME });
        let (code, expires_at) = (new_user_code(), at + device.lifetime.min(LIFETIME));
        sql::query(
            "INSERT INTO machine_logins (hash, code, state, refusal, user_id, peer_id, identity_key, wireguard_key, role,
             hostname, os, address, source, device_code, gap, ask_at, expires_at)
             VALUES ($1, $2, $3, '', NULL, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        )
        .bind(new.hash.as_slice())
        .bind(&code)
        .bind(WAITS)
        .bind(new.peer.as_deref().unwrap_or_default())
        .bind(new.identity_key.as_slice())
        .bind(new.wireguard_public_key.as_slice())
        .bind(new.role.as_str())
        .bind(&new.hostname)
        .bind(&new.os)
        .bind(text(new.from))
        .bind(source)
        .bind(device.code.as_slice())
        .bind(device.gap)
        .bind(at + device.gap)
        .bind(expires_at)
        .execute(&mut db)
        .await?;
        db.commit().await?;
        Ok((code, expires_at))
    }

    /// What became of the login with this secret; `None` when there is none, or it was not agreed to in time.
    pub async fn machine_login(&self, secret: &str) -> Result<Option<MachineLogin>> {
        let Some(hash) = machine_login_hash(secret) else { return Ok(None) };
        let row: Option<Row> = sql::query_as(select!("hash"))
            .bind(hash.as_slice())
            .fetch_optional(&mut self.reader().await?)
            .await?;
        row.filter(|row| row.expires_at > now()).map(Row::login).transpose()
    }

    /// The provider's device code of a login for which it is time to ask; whoever gets it is the only one to ask until the answer is
    /// kept, since what the provider says of somebody who agreed it says once.
    pub async fn due_device_code(&self, secret: &str) -> Result<Option<Vec<u8>>> {
        let Some(hash) = machine_login_hash(secret) else { return Ok(None) };
        sql::query_scalar(
            "UPDATE machine_logins SET ask_at = $2 + $3 WHERE hash = $1 AND state = 'waiting' AND ask_at <= $2
             AND expires_at > $2 AND length(device_code) > 0 RETURNING device_code",
        )
        .bind(hash.as_slice())
        .bind(now())
        .bind(ASKING)
        .fetch_optional(&mut self.writer().await?)
        .await
    }

    /// The provider has answered that nobody agreed yet, and is to be asked less often by so many milliseconds: others may ask now,
    /// when it is time.
    pub async fn device_code_waits(&self, secret: &str, slower: i64) -> Result<()> {
        let Some(hash) = machine_login_hash(secret) else { return Ok(()) };
        sql::query(
            "UPDATE machine_logins SET gap = CASE WHEN gap + $2 > $3 THEN $3 ELSE gap + $2 END, ask_at = $4 + gap + $2
             WHERE hash = $1",
        )
        .bind(hash.as_slice())
        .bind(slower)
        .bind(GAP_MAX)
        .bind(now())
        .execute(&mut self.writer().await?)
        .await?;
        Ok(())
    }

    /// Whoever asked the provider is not done with the answer: nobody else is to ask meanwhile.
    pub async fn hold_device_code(&self, secret: &str) -> Result<()> {
        let Some(hash) = machine_login_hash(secret) else { return Ok(()) };
        sql::query("UPDATE machine_logins SET ask_at = $2 WHERE hash = $1")
            .bind(hash.as_slice())
            .bind(now() + ASKING)
            .execute(&mut self.writer().await?)
            .await?;
        Ok(())
    }

    /// Turns away the machine with this secret: the provider, or control, will not let it in.
    pub async fn fail_login(&self, secret: &str, why: &str) -> Result<()> {
        let Some(hash) = machine_login_hash(secret) else { return Ok(()) };
        turn_away(&mut self.writer().await?, &hash, why, now()).await
    }

    /// The machine that waits under a code, as somebody typed it.
    pub async fn waiting_machine(&self, typed: &str) -> Result<MachineLogin> {
        let Some(code) = user_code(typed) else { return unknown() };
        waiting(&mut self.reader().await?, &code, now()).await?.login()
    }

    /// Lets the machine in that waits under a code, as one of `user`.
    pub async fn admit_machine(&self, user: &User, typed: &str) -> Result<MachineLogin> {
        let Some(code) = user_code(typed) else { return unknown() };
        let mut write = self.write(&user.actor()).await?;
        let at = write.at();
        let row = waiting(write.db(), &code, at).await?;
        let after = admit(&mut write, user, row, "code").await?;
        write.commit().await?;
        after.login()
    }

    /// Turns away the machine that waits under a code.
    pub async fn refuse_machine(&self, user: &User, typed: &str) -> Result<MachineLogin> {
        let Some(code) = user_code(typed) else { return unknown() };
        let mut write = self.write(&user.actor()).await?;
        sign_in::admit(&users::user(write.db(), &user.id).await?)?;
        let at = write.at();
        let row = waiting(write.db(), &code, at).await?;
        turn_away(write.db(), &row.hash, "somebody turned it away", at).await?;
        write.event(Activity::PeerLoginRefuse, &user.id, row.meta()).await?;
        let after = by_hash(write.db(), &row.hash).await?;
        write.commit().await?;
        after.login()
    }

    /// Lets the machine with this secret in, as one of `user`, for whom the identity provider has vouched.
    pub async fn admit_by_provider(&self, user: &User, secret: &str) -> Result<()> {
        let Some(hash) = machine_login_hash(secret) else { return unknown() };
        let mut write = self.write(&user.actor()).await?;
        let row = by_hash(write.db(), &hash).await?;
        if row.state != WAITS || row.expires_at <= write.at() {
            return unknown();
        }
        admit(&mut write, user, row, "oidc").await?;
        write.commit().await
    }

    /// Makes a peer of the user who let this machine in. It may ask again when the answer was lost, while the peer is there.
    pub(super) async fn enroll_by_login(&self, request: &Enrollment) -> Result<EnrolledPeer, EnrollError> {
        let over = || EnrollError::User("this login is over: begin anew".into());
        let Some(hash) = machine_login_hash(&request.setup_key) else { return Err(over()) };
        // Unknown secrets are turned away before they can queue for the writer.
        let known: Option<Row> = sql::query_as(select!("hash"))
            .bind(hash.as_slice())
            .fetch_optional(&mut self.reader().await?)
            .await?;
        if known.is_none() {
            return Err(over());
        }
        let mut write = self.write(&Actor::system()).await?;
        let row = match by_hash(write.db(), &hash).await {
            Ok(row) => row,
            Err(StoreError::NotFound { .. }) => return Err(over()),
            Err(error) => return Err(error.into()),
        };
        let (Some(user), true) = (&row.user_id, row.expires_at > write.at()) else { return Err(over()) };
        if !matches!(row.state.as_str(), ADMITS | USED) || !row.peer_id.is_empty() {
            return Err(over());
        }
        let same = row.identity_key == request.identity_key
            && row.wireguard_key == request.wireguard_public_key
            && row.role == request.role.as_str();
        if !same {
            let why = "somebody let another machine in by this login, or one of another role: begin anew";
            return Err(EnrollError::User(why.into()));
        }
        // What somebody was shown is what joins.
        let (hostname, os) = (row.hostname.clone(), row.os.clone());
        let request = Enrollment { hostname, os, ..request.clone() };
        let peer = enroll_as(&mut write, user, &request).await?;
        if row.state == USED && peer.created {
            // What it made is gone: nothing of this is committed.
            return Err(over());
        }
        sql::query("UPDATE machine_logins SET state = $2 WHERE hash = $1")
            .bind(hash.as_slice())
            .bind(USED)
            .execute(write.db())
            .await?;
        write.commit().await?;
        Ok(peer)
    }

    /// Lets every login end now; for tests of expiry.
    #[doc(hidden)]
    pub async fn expire_machine_logins(&self) -> Result<()> {
        sql::query("UPDATE machine_logins SET expires_at = $1")
            .bind(now())
            .execute(&mut self.writer().await?)
            .await?;
        Ok(())
    }
}

/// Ends what a user's logins could still let in: machines that were let in and have not joined.
pub(super) async fn end_unused(write: &mut Write, user: &str) -> Result<()> {
    sql::query("DELETE FROM machine_logins WHERE user_id = $1 AND state = $2")
        .bind(user)
        .bind(ADMITS)
        .execute(write.db())
        .await?;
    Ok(())
}

async fn admit(write: &mut Write, user: &User, row: Row, how: &str) -> Result<Row> {
    // What the user may do may have changed while the request waited.
    let user = users::user(write.db(), &user.id).await?;
    sign_in::admit(&user)?;
    if user.is_service_user {
        return invalid("machines of service users join with a setup key");
    }
    let (state, until) = if row.peer_id.is_empty() {
        if let Some(why) = enroll::no_gateways(&user, row.role()) {
            return Err(StoreError::Denied(why));
        }
        let admitted: i64 = sql::query_scalar(
            "SELECT count(*) FROM machine_logins WHERE user_id = $1 AND state = 'admitted' AND expires_at > $2",
        )
        .bind(&user.id)
        .bind(write.at())
        .fetch_one(write.db())
        .await?;
        if admitted >= ADMITTED {
            return invalid(format!(
                "{admitted} machines were let in and have not joined yet: wait for those"
            ));
        }
        (ADMITS, write.at() + JOIN_WITHIN)
    } else {
        let peer = match peers::peer(write.db(), &row.peer_id).await {
            Ok(peer) => peer,
            Err(StoreError::NotFound { .. }) => {
                return Err(StoreError::Denied("the peer is no longer there: join anew".into()));
            }
            Err(error) => return Err(error),
        };
        if peer.user_id != user.id {
            let why = "this machine is another user's: only that user can log in on it again";
            return Err(StoreError::Denied(why.into()));
        }
        log_in(write, &peer).await?;
        (USED, row.expires_at)
    };
    sql::query("UPDATE machine_logins SET state = $2, user_id = $3, expires_at = $4 WHERE hash = $1")
        .bind(row.hash.as_slice())
        .bind(state)
        .bind(&user.id)
        .bind(until)
        .execute(write.db())
        .await?;
    write.event(Activity::PeerLoginAdmit, &user.id, row.meta().with("method", how)).await?;
    by_hash(write.db(), &row.hash).await
}

/// Whoever is turned away no longer takes a place, and is soon forgotten.
async fn turn_away(db: &mut Connection, hash: &[u8], why: &str, at: i64) -> Result<()> {
    sql::query(
        "UPDATE machine_logins SET state = $2, refusal = $3,
         expires_at = CASE WHEN expires_at > $5 THEN $5 ELSE expires_at END WHERE hash = $1 AND state = $4",
    )
    .bind(hash)
    .bind(REFUSED)
    .bind(why)
    .bind(WAITS)
    .bind(at + TOLD_WITHIN)
    .execute(db)
    .await?;
    Ok(())
}

/// Whether one more newcomer may wait: those that were let in or turned away no longer do, and peers that are there do not count.
async fn room(db: &mut Connection, source: &str, at: i64) -> Result<(), BeginError> {
    let of_source: i64 = sql::query_scalar(
        "SELECT count(*) FROM machine_logins
         WHERE source = $1 AND state = 'waiting' AND peer_id = '' AND expires_at > $2",
    )
    .bind(source)
    .bind(at)
    .fetch_one(&mut *db)
    .await?;
    if of_source >= WAITING_OF_SOURCE {
        return Err(BeginError::Here);
    }
    let all: i64 = sql::query_scalar(
        "SELECT count(*) FROM machine_logins WHERE state = 'waiting' AND peer_id = '' AND expires_at > $1",
    )
    .bind(at)
    .fetch_one(&mut *db)
    .await?;
    if all >= WAITING { Err(BeginError::Everywhere) } else { Ok(()) }
}

async fn by_hash(db: &mut Connection, hash: &[u8]) -> Result<Row> {
    let row = sql::query_as(select!("hash")).bind(hash).fetch_optional(db).await?;
    row.map_or_else(unknown, Ok)
}

async fn waiting(db: &mut Connection, code: &str, at: i64) -> Result<Row> {
    let row: Option<Row> = sql::query_as(select!("code")).bind(code).fetch_optional(db).await?;
    row.filter(|row| row.state == WAITS && row.expires_at > at).map_or_else(unknown, Ok)
}

/// A code is not repeated: what was typed may be anything.
fn unknown<T>() -> Result<T> {
    not_found("machine", "that waits under this code")
}

fn text(address: Option<IpAddr>) -> String {
    address.map(|address| address.to_canonical().to_string()).unwrap_or_default()
}

impl Row {
    fn role(&self) -> Role {
        if self.role == Role::Gateway.as_str() { Role::Gateway } else { Role::Peer }
    }

    fn meta(&self) -> Meta {
        Meta::name(&self.hostname)
            .with("role", &self.role)
            .with("connection_ip", &self.address)
            .with("fingerprint", fingerprint(&self.identity_key))
            .with("peer_id", &self.peer_id)
    }

    fn login(self) -> Result<MachineLogin> {
        let state = match self.state.as_str() {
            WAITS => MachineLoginState::Waiting,
            REFUSED => MachineLoginState::Refused(self.refusal.clone()),
            _ => MachineLoginState::Admitted,
        };
        Ok(MachineLogin {
            role: self.role(),
            code: self.code,
            state,
            identity_key: self.identity_key,
            hostname: self.hostname,
            os: self.os,
            address: self.address,
            peer_id: self.peer_id,
            expires_at: self.expires_at,
        })
    }
}
