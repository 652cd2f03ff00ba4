//! People who come with an identity provider's word for who they are.
//!
//! Whoever is unknown is made a user of the lowest role, or becomes the user that was invited under the address which the
//! provider has verified. Groups in the provider's token become groups here, and take their members with them when they go;
//! those that an operator made stay the operator's, whatever their name.

use std::collections::BTreeSet;

use super::account::account;
use super::error::StoreError;
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Settings, Store, User, UserRole, groups, inherit, text, users};
use crate::ids::{new_id, now};

/// How often the time of a user's login is written at most, in milliseconds.
const LOGIN_RESOLUTION: i64 = 60_000;

/// Who somebody is by the word of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The provider.
    pub issuer: String,
    /// Who it is there.
    pub subject: String,
    /// Display name; may be empty.
    pub name: String,
    /// E-mail address; may be empty.
    pub email: String,
    /// Whether the address is the person's by the word of the provider.
    pub email_verified: bool,
    /// When the provider said so, Unix milliseconds; 0 when it did not say.
    pub at: i64,
}

impl Store {
    /// The user that a person is, after the word of a provider has been verified. `claim` gives the groups in a claim of that
    /// word, `None` when that says nothing of groups, which then stay as they are. Who may not come in is [`StoreError::Denied`].
    pub async fn sign_in(
        &self,
        person: &Person,
        claim: impl Fn(&str) -> Option<Vec<String>>,
    ) -> Result<User> {
        let mut db = self.read().await?;
        let settings = account(&mut db).await?.settings;
        let claimed = claim(settings.groups_claim());
        check_allowed(&settings, claimed.as_deref())?;
        if let Some(user) = by_subject(&mut db, person).await? {
            admit(&user)?;
            if claimed.is_none() || !is_news(&mut db, &settings, &user, person).await? {
                drop(db);
                return self.note_login(user, person).await;
            }
        }
        drop(db);
        let mut write = self.write(&Actor::system()).await?;
        let user = match by_subject(write.db(), person).await? {
            Some(user) => user,
            None => join(&mut write, person, &settings).await?,
        };
        // A newcomer who has to wait is there to be approved; what the token says of groups is read when that has been done.
        if let Some(claimed) = &claimed
            && user.is_admitted()
            && is_news(write.db(), &settings, &user, person).await?
        {
            write.act_as(user.actor());
            follow(&mut write, &user, claimed).await?;
            // Also where nothing is different: an older token must not come after this one.
            sql::query("UPDATE users SET groups_at = $1 WHERE id = $2")
                .bind(person.at)
                .bind(&user.id)
                .execute(write.db())
                .await?;
        }
        write.commit().await?;
        let user = self.user(&user.id).await?;
        admit(&user)?;
        self.note_login(user, person).await
    }

    /// Notes when the provider has last vouched for a user.
    async fn note_login(&self, mut user: User, person: &Person) -> Result<User> {
        let at = if person.at == 0 { now() } else { person.at.min(now()) };
        if user.last_login.is_none_or(|last| last + LOGIN_RESOLUTION <= at) {
            let noted = async {
                let query = sql::query("UPDATE users SET last_login = $1 WHERE id = $2");
                query.bind(at).bind(&user.id).execute(&mut self.writer().await?).await
            };
            match noted.await {
                Ok(_) => user.last_login = Some(at),
                Err(error) => tracing::warn!(user = user.id, %error, "the time of a login was not kept"),
            }
        }
        Ok(user)
    }
}

/// Refuses who may do nothing, and says why.
pub(super) fn admit(user: &User) -> Result<()> {
    let why = match (user.blocked, user.pending_approval) {
        (true, _) => "this user is blocked",
        (false, true) => "this user waits for the approval of an administrator",
        (false, false) => return Ok(()),
    };
    Err(StoreError::Denied(why.into()))
}

fn check_allowed(settings: &Settings, claimed: Option<&[String]>) -> Result<()> {
    let allowed = &settings.jwt_allow_groups;
    if allowed.is_empty() || claimed.unwrap_or_default().iter().any(|group| allowed.contains(group)) {
        return Ok(());
    }
    let claim = settings.groups_claim();
    Err(StoreError::Denied(format!("the claim {claim:?} of the token names no group that may log in")))
}

/// Whether the groups of a token are news: an older token must not bring back what a newer one has taken, and of several tokens of
/// one login only the first counts. A token that does not say when it was issued is never news.
async fn is_news(db: &mut Connection, settings: &Settings, user: &User, person: &Person) -> Result<bool> {
    if !settings.jwt_groups_enabled {
        return Ok(false);
    }
    let applied: i64 =
        sql::query_scalar("SELECT groups_at FROM users WHERE id = $1").bind(&user.id).fetch_one(db).await?;
    Ok(person.at > applied)
}

async fn by_subject(db: &mut Connection, person: &Person) -> Result<Option<User>> {
    let id: Option<String> = sql::query_scalar("SELECT id FROM users WHERE issuer = $1 AND subject = $2")
        .bind(&person.issuer)
        .bind(&person.subject)
        .fetch_optional(&mut *db)
        .await?;
    match id {
        Some(id) => users::user(db, &id).await.map(Some),
        None => Ok(None),
    }
}

/// Makes the user of somebody who comes for the first time.
async fn join(write: &mut Write, person: &Person, settings: &Settings) -> Result<User> {
    let name = text::optional_name("user", &person.name).unwrap_or_default();
    let email = if users::is_email(&person.email) { person.email.as_str() } else { "" };
    let invited = if person.email_verified { invited(write.db(), email).await? } else { None };
    let (id, before) = match invited {
        Some(user) => {
            let name = if user.name.is_empty() { &name } else { &user.name };
            sql::query(
                "UPDATE users SET issuer = $1, subject = $2, name = $3, invited = FALSE WHERE id = $4",
            )
            .bind(&person.issuer)
            .bind(&person.subject)
            .bind(name)
            .bind(&user.id)
            .execute(write.db())
            .await?;
            (user.id.clone(), Some(user))
        }
        None => {
            let (id, at) = (new_id(), write.at());
            sql::query(
                "INSERT INTO users (id, name, email, role, is_service_user, blocked, invited, created_at, issuer, subject,
                 pending_approval) VALUES ($1, $2, $3, $4, FALSE, FALSE, FALSE, $5, $6, $7, $8)",
            )
            .bind(&id)
            .bind(&name)
            .bind(email)
            .bind(UserRole::User.as_str())
            .bind(at)
            .bind(&person.issuer)
            .bind(&person.subject)
            .bind(settings.extra.user_approval_required)
            .execute(write.db())
            .await?;
            (id, None)
        }
    };
    let user = users::user(write.db(), &id).await?;
    write.act_as(user.actor());
    let meta = Meta::name(&user.name).with("email", &user.email).after(&user);
    let meta = match &before {
        Some(before) => meta.before(before),
        None => meta,
    };
    write.event(Activity::UserJoin, &id, meta).await?;
    Ok(user)
}

/// The only user who was invited under an address and has not come yet.
async fn invited(db: &mut Connection, email: &str) -> Result<Option<User>> {
    let invited: Vec<(String, String)> = sql::query_as(
        "SELECT id, email FROM users WHERE invited AND subject = '' AND NOT is_service_user AND email <> ''",
    )
    .fetch_all(&mut *db)
    .await?;
    let mut same = invited.iter().filter(|(_, own)| own.eq_ignore_ascii_case(email));
    match (same.next(), same.next()) {
        (Some((id, _)), None) => users::user(db, id).await.map(Some),
        _ => Ok(None),
    }
}

/// What a token's groups change of a user's.
#[derive(Debug, Default)]
struct Difference {
    /// Group ids.
    gone: BTreeSet<String>,
    /// Group ids.
    come: BTreeSet<String>,
    /// Names of groups that are not there yet.
    new: BTreeSet<String>,
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.come.is_empty() && self.new.is_empty()
    }
}

async fn difference(db: &mut Connection, user: &User, claimed: &[String]) -> Result<Difference> {
    let names = claimed.iter().filter_map(|name| text::name("group", name).ok());
    let wanted: BTreeSet<String> = names.collect();
    let have: Vec<(String, String)> = sql::query_as(
        "SELECT g.id, g.name FROM user_groups m JOIN groups g ON g.id = m.group_id WHERE m.user_id = $1 AND g.issued = 'jwt'",
    )
    .bind(&user.id)
    .fetch_all(&mut *db)
    .await?;
    let mut difference = Difference::default();
    for (id, name) in &have {
        if !wanted.contains(name) {
            difference.gone.insert(id.clone());
        }
    }
    for name in wanted.into_iter().filter(|name| !have.iter().any(|(_, own)| own == name)) {
        let known: Option<(String, String)> = sql::query_as("SELECT id, issued FROM groups WHERE name = $1")
            .bind(&name)
            .fetch_optional(&mut *db)
            .await?;
        match known {
            None => drop(difference.new.insert(name)),
            Some((id, issued)) if issued == "jwt" => drop(difference.come.insert(id)),
            // An operator's: a provider puts nobody into it.
            Some(_) => {}
        }
    }
    Ok(difference)
}

async fn follow(write: &mut Write, before: &User, claimed: &[String]) -> Result<()> {
    let difference = difference(write.db(), before, claimed).await?;
    if difference.is_empty() {
        return Ok(());
    }
    let kept = before.auto_groups.iter().filter(|group| !difference.gone.contains(*group));
    let mut wanted: BTreeSet<String> = kept.cloned().chain(difference.come).collect();
    for name in &difference.new {
        wanted.insert(groups::issue(write, name).await?);
    }
    users::set_groups(write, &before.id, wanted).await?;
    let after = users::user(write.db(), &before.id).await?;
    inherit::follow(write, before, &after).await?;
    for activity in users::activities(before, &after, false) {
        write.event(activity, &before.id, Meta::name(&after.name).before(before).after(&after)).await?;
    }
    Ok(())
}
