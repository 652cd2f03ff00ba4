//! The first person of an account: the service user that the first start made hands the owner's role over.

use super::credentials::set_password;
use super::error::invalid;
use super::sql::{self, Connection};
use super::write::Meta;
use super::{Activity, Actor, Result, Store, User, UserRole, invites, text, tokens, users};
use crate::ids::{DAY, new_id};
use crate::passwords;
use crate::secret::new_token;

/// The first person.
#[derive(Clone, Debug)]
pub struct FirstUser {
    /// E-mail address.
    pub email: String,
    /// Display name; the address where it is empty.
    pub name: String,
    /// Password.
    pub password: String,
    /// Days that a personal access token lives which is made as well.
    pub token_days: Option<i64>,
}

impl Store {
    /// Whether there is no person yet.
    pub async fn needs_set_up(&self) -> Result<bool> {
        nobody(&mut self.reader().await?).await
    }

    /// Makes the first person, who becomes the owner, in the name of `actor`; beside it the text of its token, if one was
    /// asked for. `None` if there is a person already.
    pub async fn set_up(&self, actor: &Actor, first: FirstUser) -> Result<Option<(User, Option<String>)>> {
        let email = first.email.trim();
        if !users::is_email(email) {
            return invalid(format!("email: {email:?} is no e-mail address"));
        }
        let name = match first.name.trim() {
            "" => email.to_owned(),
            name => text::name("user", name)?,
        };
        if let Some(why) = passwords::objection(&first.password, email) {
            return invalid(why);
        }
        if let Some(days) = first.token_days.filter(|days| !(1..=365).contains(days)) {
            return invalid(format!("pat_expire_in: {days} days is not between 1 and 365"));
        }
        if !self.needs_set_up().await? {
            return Ok(None);
        }
        let hash = passwords::hash(first.password).await?;
        let mut write = self.write(actor).await?;
        if !nobody(write.db()).await? {
            return Ok(None);
        }
        let owners: Vec<String> = sql::query_scalar("SELECT id FROM users WHERE role = 'owner' ORDER BY id")
            .fetch_all(write.db())
            .await?;
        let (id, at) = (new_id(), write.at());
        for owner in owners {
            let before = users::user(write.db(), &owner).await?;
            sql::query("UPDATE users SET role = 'admin' WHERE id = $1")
                .bind(&owner)
                .execute(write.db())
                .await?;
            let after = users::user(write.db(), &owner).await?;
            let meta = Meta::name(&after.name).before(&before).after(&after);
            write.event(Activity::UserRoleUpdate, &owner, meta).await?;
        }
        invites::insert_user(&mut write, &id, &name, email, UserRole::User).await?;
        set_password(&mut write, &id, email, &hash).await?;
        let came = users::user(write.db(), &id).await?;
        write.event(Activity::UserJoin, &id, Meta::name(&name).with("email", email).after(&came)).await?;
        sql::query("UPDATE users SET role = 'owner' WHERE id = $1").bind(&id).execute(write.db()).await?;
        let user = users::user(write.db(), &id).await?;
        let meta = Meta::name(&name).before(&came).after(&user);
        write.event(Activity::OwnerTransfer, &id, meta).await?;
        let mut text = None;
        if let Some(days) = first.token_days {
            let secret = new_token();
            let token = tokens::insert(write.db(), &id, &id, "setup", &secret, at, at + days * DAY).await?;
            let stored = tokens::stored(write.db(), &id, &token).await?;
            let meta = Meta::name("setup").with("username", &name).with("user_id", &id).after(&stored);
            write.event(Activity::TokenCreate, &token, meta).await?;
            text = Some(secret);
        }
        write.commit().await?;
        Ok(Some((user, text)))
    }
}

async fn nobody(db: &mut Connection) -> Result<bool> {
    let people: i64 =
        sql::query_scalar("SELECT count(*) FROM users WHERE NOT is_service_user").fetch_one(db).await?;
    Ok(people == 0)
}
