//! Invitations of built-in users: a link with a secret in it, by which somebody sets a password. It makes a new user, or gives one
//! that is there a password: who was invited without a link, or has forgotten it.

use serde::Serialize;
use sqlx::FromRow;
use subtle::ConstantTimeEq;

use super::attempts::{Source, now_known};
use super::credentials::{CredentialState, LOCAL, credential_of, login, set_password, state_of};
use super::error::{corrupt, duplicate, invalid, not_found};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Store, StoreError, User, UserRole, groups, text, users};
use crate::ids::{new_id, now};
use crate::passwords;
use crate::secret::{SecretHash, invite_hash, new_invite};

/// Seconds that an invitation may be good for.
const SECONDS: std::ops::RangeInclusive<i64> = 3600..=30 * 24 * 3600;
/// How long it is where nothing is said: three days.
const DEFAULT: i64 = 72 * 3600;

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invite {
    /// Its id.
    pub id: String,
    /// Whose password it sets; `None` if it makes a new user.
    pub user_id: Option<String>,
    /// Whom it is for.
    pub email: String,
    /// Display name.
    pub name: String,
    /// What the user may do.
    pub role: UserRole,
    /// Group ids.
    pub auto_groups: Vec<String>,
    /// The id of who invited.
    pub created_by: String,
    /// The name of who invited.
    pub invited_by: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub expires_at: i64,
}

/// Who accepts an invitation, as events tell of it.
#[derive(Serialize)]
struct Accepting<'a> {
    #[serde(flatten)]
    user: &'a User,
    credential: Option<CredentialState>,
}

/// An invitation to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewInvite {
    /// Whom it is for.
    pub email: String,
    /// Display name.
    pub name: String,
    /// What the user may do.
    pub role: UserRole,
    /// Group ids.
    pub auto_groups: Vec<String>,
    /// Seconds that it is good for.
    pub expires_in: Option<i64>,
}

impl Store {
    /// Invites somebody in the name of `caller`; beside the invitation the secret of its link, which is not kept.
    pub async fn create_invite(&self, caller: &User, new: NewInvite) -> Result<(Invite, String)> {
        let (name, email) = (text::name("user", &new.name)?, new.email.trim());
        if !users::is_email(email) {
            return invalid(format!("email: {email:?} is no e-mail address"));
        }
        if new.role == UserRole::Owner {
            return invalid("there is one owner: hand the role over by changing an existing user");
        }
        let seconds = seconds(new.expires_in)?;
        let mut write = self.write(&caller.actor()).await?;
        may(write.db(), &caller.id, new.role).await?;
        free(write.db(), email).await?;
        let groups = groups::assignable(write.db(), "auto_groups", &new.auto_groups).await?;
        let made = insert(&mut write, caller, None, (email, &name, new.role), seconds).await?;
        for group in groups {
            sql::query("INSERT INTO invite_groups (invite_id, group_id) VALUES ($1, $2)")
                .bind(&made.0)
                .bind(group)
                .execute(write.db())
                .await?;
        }
        let invite = invite(write.db(), &made.0).await?;
        write.event(Activity::InviteLinkCreate, &invite.id, Meta::name(&name).after(&invite)).await?;
        write.commit().await?;
        Ok((invite, made.1))
    }

    /// A link by which a user who is there sets a password: one that was invited and has not come, or a built-in one who has
    /// forgotten it. The link before, if there is one, opens nothing any more.
    pub async fn invite_user(&self, caller: &User, id: &str) -> Result<(Invite, String)> {
        let mut write = self.write(&caller.actor()).await?;
        let user = users::user(write.db(), id).await?;
        may(write.db(), &caller.id, user.role).await?;
        if user.is_service_user || user.email.is_empty() {
            return invalid("only a person with an e-mail address can be invited");
        }
        let known = credential_of(write.db(), id).await?;
        if known.is_none() && !user.subject.is_empty() {
            return invalid("this user logs in at the identity provider, and has no password here");
        }
        if known.is_none() {
            free_of_others(write.db(), id, &user.email).await?;
        }
        sql::query("DELETE FROM invites WHERE user_id = $1").bind(id).execute(write.db()).await?;
        let name = if user.name.is_empty() { &user.email } else { &user.name };
        let made = insert(&mut write, caller, Some(id), (&user.email, name, user.role), DEFAULT).await?;
        let invite = invite(write.db(), &made.0).await?;
        write.event(Activity::UserInvite, id, Meta::name(name).after(&invite)).await?;
        write.commit().await?;
        Ok((invite, made.1))
    }

    /// Every invitation that nobody has accepted, by id.
    pub async fn invites(&self) -> Result<Vec<Invite>> {
        let mut db = self.read().await?;
        let ids: Vec<String> =
            sql::query_scalar("SELECT id FROM invites ORDER BY id").fetch_all(&mut db).await?;
        let mut invites = Vec::new();
        for id in ids {
            invites.push(invite(&mut db, &id).await?);
        }
        Ok(invites)
    }

    /// One invitation.
    pub async fn invite(&self, id: &str) -> Result<Invite> {
        let mut db = self.read().await?;
        invite(&mut db, id).await
    }

    /// The invitation with this secret.
    pub async fn invite_by_secret(&self, secret: &str) -> Result<Invite> {
        let mut db = self.read().await?;
        let id = by_secret(&mut db, secret).await?;
        invite(&mut db, &id).await
    }

    /// Gives an invitation another secret and time: the link that was sent opens nothing any more.
    pub async fn renew_invite(
        &self,
        caller: &User,
        id: &str,
        expires_in: Option<i64>,
    ) -> Result<(Invite, String)> {
        let seconds = seconds(expires_in)?;
        let mut write = self.write(&caller.actor()).await?;
        let before = invite(write.db(), id).await?;
        may(write.db(), &caller.id, before.role).await?;
        let (secret, at) = (new_invite(), write.at());
        sql::query("UPDATE invites SET hash = $1, expires_at = $2, created_by = $3 WHERE id = $4")
            .bind(hashed(&secret)?.as_slice())
            .bind(at + seconds * 1000)
            .bind(&caller.id)
            .bind(id)
            .execute(write.db())
            .await?;
        let after = invite(write.db(), id).await?;
        let meta = Meta::name(&after.name).before(&before).after(&after);
        write.event(Activity::InviteLinkRegenerate, id, meta).await?;
        write.commit().await?;
        Ok((after, secret))
    }

    /// Takes an invitation back.
    pub async fn delete_invite(&self, caller: &User, id: &str) -> Result<()> {
        let mut write = self.write(&caller.actor()).await?;
        let before = invite(write.db(), id).await?;
        may(write.db(), &caller.id, before.role).await?;
        sql::query("DELETE FROM invites WHERE id = $1").bind(id).execute(write.db()).await?;
        write.event(Activity::InviteLinkDelete, id, Meta::name(&before.name).before(&before)).await?;
        write.commit().await
    }

    /// Sets the password of the user whom an invitation is for, who is made if it is a new one.
    pub async fn accept_invite(&self, from: &Source, secret: &str, password: &str) -> Result<User> {
        // Before any work is done for somebody without one.
        let found = self.invite_by_secret(secret).await?;
        if let Some(why) = passwords::objection(password, &found.email) {
            return invalid(why);
        }
        let hash = passwords::hash(password.to_owned()).await?;
        let mut write = self.write(&Actor::system()).await?;
        let id = by_secret(write.db(), secret).await?;
        let invite = invite(write.db(), &id).await?;
        if invite.expires_at <= write.at() {
            return invalid("the invitation has expired: ask for another one");
        }
        // Who was blocked or lost the role since lets nobody in any more.
        if may(write.db(), &invite.created_by, invite.role).await.is_err() {
            return invalid(
                "whoever sent this invitation may invite nobody like this any more: ask for another one",
            );
        }
        sql::query("DELETE FROM invites WHERE id = $1").bind(&id).execute(write.db()).await?;
        let mut known = None;
        let user = match &invite.user_id {
            Some(user) => {
                let before = users::user(write.db(), user).await?;
                may(write.db(), &invite.created_by, before.role).await?;
                if !before.invited && credential_of(write.db(), user).await?.is_none() {
                    return invalid("this user logs in at the identity provider since");
                }
                if before.invited {
                    sql::query("UPDATE users SET invited = FALSE, issuer = $1, subject = $2 WHERE id = $2")
                        .bind(LOCAL)
                        .bind(user)
                        .execute(write.db())
                        .await?;
                }
                known = Some((before, state_of(&mut write, user).await?));
                user.clone()
            }
            None => {
                free(write.db(), &invite.email).await?;
                let user = new_id();
                insert_user(&mut write, &user, &invite.name, &invite.email, invite.role).await?;
                users::set_groups(&mut write, &user, invite.auto_groups).await?;
                user
            }
        };
        set_password(&mut write, &user, &invite.email, &hash).await?;
        now_known(&mut write, &user, from).await?;
        let made = users::user(write.db(), &user).await?;
        write.act_as(made.actor());
        let mut meta = Meta::name(&made.name);
        if let Some((user, credential)) = known {
            meta = meta.before(&Accepting { user: &user, credential });
        }
        let credential = state_of(&mut write, &user).await?;
        meta = meta.after(&Accepting { user: &made, credential });
        write.event(Activity::InviteLinkAccept, &user, meta).await?;
        write.commit().await?;
        Ok(made)
    }

    /// Lets every invitation end now; for tests of expiry.
    #[doc(hidden)]
    pub async fn expire_invites(&self) -> Result<()> {
        sql::query("UPDATE invites SET expires_at = $1")
            .bind(now())
            .execute(&mut self.writer().await?)
            .await?;
        Ok(())
    }
}

/// Writes a built-in user, who has no groups and no password yet.
pub(super) async fn insert_user(
    write: &mut Write,
    id: &str,
    name: &str,
    email: &str,
    role: UserRole,
) -> Result<()> {
    let at = write.at();
    sql::query(
        "INSERT INTO users (id, name, email, role, is_service_user, blocked, invited, created_at, issuer, subject)
         VALUES ($1, $2, $3, $4, FALSE, FALSE, FALSE, $5, $6, $1)",
    )
    .bind(id)
    .bind(name)
    .bind(email)
    .bind(role.as_str())
    .bind(at)
    .bind(LOCAL)
    .execute(write.db())
    .await?;
    Ok(())
}

/// Writes an invitation without groups: its id, and the secret of its link.
async fn insert(
    write: &mut Write,
    caller: &User,
    user: Option<&str>,
    (email, name, role): (&str, &str, UserRole),
    seconds: i64,
) -> Result<(String, String)> {
    let (id, secret, at) = (new_id(), new_invite(), write.at());
    sql::query(
        "INSERT INTO invites (id, hash, user_id, email, name, role, created_by, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&id)
    .bind(hashed(&secret)?.as_slice())
    .bind(user)
    .bind(email)
    .bind(name)
    .bind(role.as_str())
    .bind(&caller.id)
    .bind(at)
    .bind(at + seconds * 1000)
    .execute(write.db())
    .await?;
    Ok((id, secret))
}

/// Refuses who may not let somebody of this role in now: what a caller is may have changed while the request, or the invitation,
/// waited.
async fn may(db: &mut Connection, caller: &str, role: UserRole) -> Result<()> {
    let caller = users::user(db, caller).await?;
    if !caller.is_admitted() || caller.role < UserRole::Admin {
        return Err(StoreError::Denied("only administrators invite users".into()));
    }
    users::may_grant(&caller, role)
}

fn seconds(wanted: Option<i64>) -> Result<i64> {
    let seconds = wanted.filter(|seconds| *seconds != 0).unwrap_or(DEFAULT);
    if !SECONDS.contains(&seconds) {
        return invalid(format!("expires_in: {seconds} seconds are not between an hour and 30 days"));
    }
    Ok(seconds)
}

/// Refuses an address that a user or an invitation has.
async fn free(db: &mut Connection, email: &str) -> Result<()> {
    free_of_others(db, "", email).await
}

/// Refuses an address that a user other than this one has, or an invitation of others.
async fn free_of_others(db: &mut Connection, user: &str, email: &str) -> Result<()> {
    let taken: Vec<String> = sql::query_scalar(
        "SELECT email FROM users WHERE email <> '' AND id <> $1
         UNION ALL SELECT email FROM invites WHERE user_id IS NULL OR user_id <> $1
         UNION ALL SELECT login FROM credentials WHERE user_id <> $1",
    )
    .bind(user)
    .fetch_all(db)
    .await?;
    if taken.iter().any(|own| login(own) == login(email)) {
        return duplicate(format!("user with email {email} already exists"));
    }
    Ok(())
}

fn hashed(secret: &str) -> Result<SecretHash> {
    match invite_hash(secret) {
        Some(hash) => Ok(hash),
        None => not_found("invite", "of this link"),
    }
}

async fn by_secret(db: &mut Connection, secret: &str) -> Result<String> {
    let hash = hashed(secret)?;
    let found: Option<(String, Vec<u8>)> = sql::query_as("SELECT id, hash FROM invites WHERE hash = $1")
        .bind(hash.as_slice())
        .fetch_optional(db)
        .await?;
    match found {
        // The index found it by comparing; what decides takes the same time for every difference.
        Some((id, stored)) if bool::from(stored.ct_eq(&hash)) => Ok(id),
        _ => not_found("invite", "of this link"),
    }
}

async fn invite(db: &mut Connection, id: &str) -> Result<Invite> {
    #[derive(FromRow)]
    struct Row {
        id: String,
        user_id: Option<String>,
        email: String,
        name: String,
        role: String,
        created_by: String,
        invited_by: String,
        created_at: i64,
        expires_at: i64,
    }
    let row: Option<Row> = sql::query_as(
        "SELECT i.id, i.user_id, i.email, i.name, i.role, i.created_by, u.name AS invited_by, i.created_at, i.expires_at
         FROM invites i JOIN users u ON u.id = i.created_by WHERE i.id = $1",
    )
    .bind(id)
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return not_found("invite", id) };
    let auto_groups =
        sql::query_scalar("SELECT group_id FROM invite_groups WHERE invite_id = $1 ORDER BY group_id")
            .bind(id)
            .fetch_all(db)
            .await?;
    let role = UserRole::parse(&row.role);
    let role = role.ok_or_else(|| corrupt("invites.role")(format!("{:?} is unknown", row.role).into()))?;
    Ok(Invite {
        id: row.id,
        user_id: row.user_id,
        email: row.email,
        name: row.name,
        role,
        auto_groups,
        created_by: row.created_by,
        invited_by: row.invited_by,
        created_at: row.created_at,
        expires_at: row.expires_at,
    })
}
