//! Users: people and service users, and what they may become.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::ToSchema;

use super::error::{corrupt, duplicate, invalid, not_found};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Store, StoreError, groups, inherit, join_keys, peers, text, tokens};
use crate::ids::new_id;
use crate::text::is_invisible;

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UserRole {
    /// Its own peers and tokens.
    User,
    /// Reads everything.
    Auditor,
    /// Reads everything, changes networks, groups and policies.
    NetworkAdmin,
    /// Changes everything but the owner.
    Admin,
    /// Changes everything. There is exactly one.
    Owner,
}

impl UserRole {
    const ALL: [UserRole; 5] =
        [UserRole::User, UserRole::Auditor, UserRole::NetworkAdmin, UserRole::Admin, UserRole::Owner];

    /// Its name in the store and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            UserRole::User => "user",
            UserRole::Auditor => "auditor",
            UserRole::NetworkAdmin => "network_admin",
            UserRole::Admin => "admin",
            UserRole::Owner => "owner",
        }
    }

    /// The role of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// User id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// E-mail address; empty for service users.
    pub email: String,
    /// What it may do.
    pub role: UserRole,
    /// Whether it is a program rather than a person.
    pub is_service_user: bool,
    /// A blocked user's tokens open nothing.
    pub blocked: bool,
    /// Whether it was invited and has not come yet.
    pub invited: bool,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub last_login: Option<i64>,
    /// Group ids its peers are put into.
    pub auto_groups: Vec<String>,
    /// The identity provider that knows it; empty for a service user, and before the first login.
    pub issuer: String,
    /// Who it is there.
    pub subject: String,
    /// Whether somebody has to approve it before it may do anything.
    pub pending_approval: bool,
}

impl User {
    /// This user as the one who asks.
    pub fn actor(&self) -> Actor {
        Actor { id: self.id.clone(), name: self.name.clone(), email: self.email.clone() }
    }

    /// Whether it may do anything at all.
    pub fn is_admitted(&self) -> bool {
        !self.blocked && !self.pending_approval
    }
}

/// A user to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// Display name.
    pub name: String,
    /// E-mail address.
    pub email: String,
    /// What it may do.
    pub role: UserRole,
    /// Whether it is a program.
    pub is_service_user: bool,
    /// Group ids.
    pub auto_groups: Vec<String>,
}

/// What a user is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserChange {
    /// What it may do.
    pub role: UserRole,
    /// Whether its tokens open nothing; `None` leaves it as it is.
    pub blocked: Option<bool>,
    /// Group ids.
    pub auto_groups: Vec<String>,
}

impl Store {
    /// Every user, by id.
    pub async fn users(&self) -> Result<Vec<User>> {
        let mut tx = self.read().await?;
        let rows: Vec<Row> = sql::query_as("SELECT * FROM users ORDER BY id").fetch_all(&mut tx).await?;
        let members: Vec<(String, String)> =
            sql::query_as("SELECT user_id, group_id FROM user_groups").fetch_all(&mut tx).await?;
        let mut groups = HashMap::<String, Vec<String>>::new();
        for (user, group) in members {
            groups.entry(user).or_default().push(group);
        }
        rows.into_iter()
            .map(|row| {
                let groups = groups.remove(&row.id).unwrap_or_default();
                row.user(groups)
            })
            .collect()
    }

    /// One user.
    pub async fn user(&self, id: &str) -> Result<User> {
        let mut tx = self.read().await?;
        user(&mut tx, id).await
    }

    /// Creates a user in the name of `caller`.
    pub async fn create_user(&self, caller: &User, new: NewUser) -> Result<User> {
        let (name, email) = (&text::optional_name("user", &new.name)?, new.email.trim());
        if new.role == UserRole::Owner {
            return invalid("there is one owner: hand the role over by changing an existing user");
        }
        if new.is_service_user && name.is_empty() {
            return invalid("a service user needs a name");
        }
        if !new.is_service_user && !is_email(email) {
            return invalid(format!("email: {email:?} is no e-mail address"));
        }
        let mut write = self.write(&caller.actor()).await?;
        // What the caller is may have changed while the request waited.
        may_grant(&user(write.db(), &caller.id).await?, new.role)?;
        if !new.is_service_user {
            let others: i64 = sql::query_scalar("SELECT count(*) FROM users WHERE email = $1")
                .bind(email)
                .fetch_one(write.db())
                .await?;
            if others > 0 {
                return duplicate(format!("user with email {email} already exists"));
            }
        }
        let groups = groups::assignable(write.db(), "auto_groups", &new.auto_groups).await?;
        let id = new_id();
        let at = write.at();
        sql::query(
            "INSERT INTO users (id, name, email, role, is_service_user, blocked, invited, created_at)
             VALUES ($1, $2, $3, $4, $5, FALSE, $6, $7)",
        )
        .bind(&id)
        .bind(name)
        .bind(if new.is_service_user { "" } else { email })
        .bind(new.role.as_str())
        .bind(new.is_service_user)
        .bind(!new.is_service_user)
        .bind(at)
        .execute(write.db())
        .await?;
        set_groups(&mut write, &id, groups).await?;
        let after = user(write.db(), &id).await?;
        let activity = if new.is_service_user { Activity::ServiceUserCreate } else { Activity::UserInvite };
        write.event(activity, &id, Meta::name(name).after(&after)).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Changes a user in the name of `caller`; giving away the owner role makes the giver an admin.
    pub async fn update_user(&self, caller: &User, id: &str, change: UserChange) -> Result<User> {
        let mut write = self.write(&caller.actor()).await?;
        let before = user(write.db(), id).await?;
        // What the caller is may have changed while the request waited.
        let caller = user(write.db(), &caller.id).await?;
        let groups = groups::assignable(write.db(), "auto_groups", &change.auto_groups).await?;
        let blocked = change.blocked.unwrap_or(before.blocked);
        if (before.role, before.blocked) == (change.role, blocked) && groups.iter().eq(&before.auto_groups) {
            return Ok(before);
        }
        if caller.id == before.id && (change.role != before.role || blocked) {
            return Err(StoreError::Denied("users cannot change their own role or block themselves".into()));
        }
        if before.role == UserRole::Owner && caller.id != before.id {
            return Err(StoreError::Denied("the owner cannot be changed by others".into()));
        }
        may_grant(&caller, before.role.max(change.role))?;
        let transfer = change.role == UserRole::Owner && before.role != UserRole::Owner;
        if transfer {
            if blocked || before.pending_approval {
                return invalid("a user who is blocked or not approved cannot become owner");
            }
            sql::query("UPDATE users SET role = 'admin' WHERE id = $1")
                .bind(&caller.id)
                .execute(write.db())
                .await?;
        }
        sql::query("UPDATE users SET role = $1, blocked = $2 WHERE id = $3")
            .bind(change.role.as_str())
            .bind(blocked)
            .bind(id)
            .execute(write.db())
            .await?;
        set_groups(&mut write, id, groups).await?;
        let after = user(write.db(), id).await?;
        inherit::follow(&mut write, &before, &after).await?;
        if after.blocked && !before.blocked {
            join_keys::end_unused(&mut write, id).await?;
        }
        for activity in activities(&before, &after, transfer) {
            let meta = Meta::name(&after.name).before(&before).after(&after);
            write.event(activity, id, meta).await?;
        }
        if transfer {
            let now = user(write.db(), &caller.id).await?;
            let meta = Meta::name(&now.name).before(&caller).after(&now);
            write.event(Activity::UserRoleUpdate, &caller.id, meta).await?;
        }
        write.commit().await?;
        Ok(after)
    }

    /// Admits a user who waits for approval.
    pub async fn approve_user(&self, caller: &User, id: &str) -> Result<User> {
        let mut write = self.write(&caller.actor()).await?;
        let before = pending(&mut write, caller, id).await?;
        sql::query("UPDATE users SET pending_approval = FALSE WHERE id = $1")
            .bind(id)
            .execute(write.db())
            .await?;
        let after = user(write.db(), id).await?;
        let meta = Meta::name(&after.name).before(&before).after(&after);
        write.event(Activity::UserApprove, id, meta).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Removes a user who waits for approval.
    pub async fn reject_user(&self, caller: &User, id: &str) -> Result<()> {
        let mut write = self.write(&caller.actor()).await?;
        let before = pending(&mut write, caller, id).await?;
        sql::query("DELETE FROM users WHERE id = $1").bind(id).execute(write.db()).await?;
        write.event(Activity::UserReject, id, Meta::name(&before.name).before(&before)).await?;
        write.commit().await
    }

    /// Deletes a user with its tokens and its peers in the name of `caller`; refused while a router or a rule names one of
    /// the peers.
    pub async fn delete_user(&self, caller: &User, id: &str) -> Result<()> {
        let mut write = self.write(&caller.actor()).await?;
        let before = user(write.db(), id).await?;
        if before.id == caller.id {
            return Err(StoreError::Denied("users cannot delete themselves".into()));
        }
        if before.role == UserRole::Owner {
            return Err(StoreError::Denied("the owner cannot be deleted: hand the role over first".into()));
        }
        // What the caller is may have changed while the request waited.
        may_grant(&user(write.db(), &caller.id).await?, before.role)?;
        let tokens: Vec<String> = sql::query_scalar("SELECT id FROM tokens WHERE user_id = $1 ORDER BY id")
            .bind(id)
            .fetch_all(write.db())
            .await?;
        for token in &tokens {
            let gone = tokens::stored(write.db(), id, token).await?;
            let meta =
                Meta::name(&gone.name).with("username", &before.name).with("user_id", id).before(&gone);
            write.event(Activity::TokenDelete, token, meta).await?;
        }
        let peers: Vec<String> = sql::query_scalar("SELECT id FROM peers WHERE user_id = $1 ORDER BY id")
            .bind(id)
            .fetch_all(write.db())
            .await?;
        for peer in &peers {
            peers::delete(&mut write, peer).await?;
        }
        sql::query("DELETE FROM users WHERE id = $1").bind(id).execute(write.db()).await?;
        let activity =
            if before.is_service_user { Activity::ServiceUserDelete } else { Activity::UserDelete };
        write.event(activity, id, Meta::name(&before.name).before(&before)).await?;
        write.commit().await
    }
}

/// Nobody gives, takes or acts for a role above the own: else a token of an admin would be one of the owner.
pub fn may_grant(caller: &User, role: UserRole) -> Result<()> {
    if caller.role < role {
        let message = format!("role {} cannot act on role {}", caller.role.as_str(), role.as_str());
        return Err(StoreError::Denied(message));
    }
    Ok(())
}

/// One user as the connection's transaction sees it.
pub(super) async fn user(db: &mut Connection, id: &str) -> Result<User> {
    let row: Option<Row> =
        sql::query_as("SELECT * FROM users WHERE id = $1").bind(id).fetch_optional(&mut *db).await?;
    let Some(row) = row else { return not_found("user", id) };
    let groups = sql::query_scalar("SELECT group_id FROM user_groups WHERE user_id = $1 ORDER BY group_id")
        .bind(id)
        .fetch_all(db)
        .await?;
    row.user(groups)
}

/// A user who waits for approval, if `caller` may decide about it.
async fn pending(write: &mut Write, caller: &User, id: &str) -> Result<User> {
    let found = user(write.db(), id).await?;
    // What the caller is may have changed while the request waited.
    may_grant(&user(write.db(), &caller.id).await?, found.role)?;
    if !found.pending_approval {
        return invalid(format!("user {id} does not wait for approval"));
    }
    Ok(found)
}

/// Replaces the groups of a user.
pub(super) async fn set_groups(
    write: &mut Write,
    user: &str,
    groups: impl IntoIterator<Item = String>,
) -> Result<()> {
    sql::query("DELETE FROM user_groups WHERE user_id = $1").bind(user).execute(write.db()).await?;
    for group in groups {
        sql::query("INSERT INTO user_groups (user_id, group_id) VALUES ($1, $2)")
            .bind(user)
            .bind(group)
            .execute(write.db())
            .await?;
    }
    Ok(())
}

/// What a change did, by NetBird's codes.
pub(super) fn activities(before: &User, after: &User, transfer: bool) -> Vec<Activity> {
    let mut activities = Vec::new();
    if transfer {
        activities.push(Activity::OwnerTransfer);
    } else if before.role != after.role {
        activities.push(Activity::UserRoleUpdate);
    }
    match (before.blocked, after.blocked) {
        (false, true) => activities.push(Activity::UserBlock),
        (true, false) => activities.push(Activity::UserUnblock),
        _ => {}
    }
    let (was, is) = (&before.auto_groups, &after.auto_groups);
    if is.iter().any(|group| !was.contains(group)) {
        activities.push(Activity::UserGroupAdd);
    }
    if was.iter().any(|group| !is.contains(group)) {
        activities.push(Activity::UserGroupDelete);
    }
    activities
}

/// Something, an `@`, something, in the 254 characters of RFC 5321; whether it takes mail only mail can tell.
pub(super) fn is_email(text: &str) -> bool {
    let visible = text.len() <= 254 && !text.chars().any(|char| char.is_whitespace() || is_invisible(char));
    visible
        && text
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'))
}

#[derive(FromRow)]
struct Row {
    id: String,
    name: String,
    email: String,
    role: String,
    is_service_user: bool,
    blocked: bool,
    invited: bool,
    created_at: i64,
    last_login: Option<i64>,
    issuer: String,
    subject: String,
    pending_approval: bool,
}

impl Row {
    fn user(self, auto_groups: Vec<String>) -> Result<User> {
        let role = UserRole::parse(&self.role)
            .ok_or_else(|| corrupt("users.role")(format!("{:?} is unknown", self.role).into()))?;
        Ok(User {
            id: self.id,
            name: self.name,
            email: self.email,
            role,
            is_service_user: self.is_service_user,
            blocked: self.blocked,
            invited: self.invited,
            created_at: self.created_at,
            last_login: self.last_login,
            auto_groups,
            issuer: self.issuer,
            subject: self.subject,
            pending_approval: self.pending_approval,
        })
    }
}
