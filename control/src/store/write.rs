//! One change: a transaction that knows who asks, and that publishes the new revision once it is durable.

use serde::Serialize;

use super::sql::{self, Connection};
use super::{Activity, Result, Store, audit, unit};
use crate::ids::now;

/// Who asks for a change, as the audit events name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// User id, setup key id or peer id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// E-mail address, empty where there is none.
    pub email: String,
}

impl Actor {
    /// Control itself: first start, expiry.
    pub fn system() -> Self {
        Actor { id: "sys".into(), name: "system".into(), email: String::new() }
    }
}

/// A change under way. Dropped without [`Write::commit`] it never happened.
pub(crate) struct Write {
    transaction: Connection,
    store: Store,
    actor: Actor,
    at: i64,
    changed: bool,
}

impl Store {
    /// Waits for its turn and begins a change in the name of `actor`.
    pub(crate) async fn write(&self, actor: &Actor) -> Result<Write> {
        let transaction = self.begin().await?;
        Ok(Write { transaction, store: self.clone(), actor: actor.clone(), at: now(), changed: false })
    }

    /// Waits for its turn and begins a transaction that is no change of the account.
    pub(super) async fn begin(&self) -> Result<Connection> {
        let observed = &self.inner.shared.observed;
        match unit::change(observed).await? {
            Some(part) => Ok(part),
            None => self.inner.database.change(observed).await,
        }
    }
}

impl Write {
    /// The connection the change's statements go through.
    pub(crate) fn db(&mut self) -> &mut Connection {
        &mut self.transaction
    }

    /// From here on it is `actor` who makes the change: a user whom the change itself found or made.
    pub(crate) fn act_as(&mut self, actor: Actor) {
        self.actor = actor;
    }

    /// The store that is changed.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// When the change began, Unix milliseconds.
    pub(crate) fn at(&self) -> i64 {
        self.at
    }

    /// Appends an audit event, which makes this a change that raises the revision.
    pub(crate) async fn event(&mut self, activity: Activity, target: &str, meta: Meta) -> Result<()> {
        self.changed = true;
        audit::append(&mut self.transaction, self.at, &self.actor, activity, target, &meta.0).await
    }

    /// Makes the change durable, then tells whoever waits on [`Store::changes`], here and at the other replicas.
    pub(crate) async fn commit(mut self) -> Result<()> {
        if !self.changed {
            return self.transaction.commit().await;
        }
        let revision: i64 =
            sql::query_scalar("UPDATE account SET revision = revision + 1 RETURNING revision")
                .fetch_one(&mut self.transaction)
                .await?;
        self.store.inner.database.announce(&mut self.transaction, revision).await?;
        let in_unit = unit::note(&mut self.transaction, revision);
        self.transaction.commit().await?;
        if in_unit {
            return Ok(());
        }
        // The next change may begin before this line runs, and may have published first.
        self.store.inner.shared.raise(revision.unsigned_abs());
        Ok(())
    }
}

/// What an audit event says beside code and target: names, and the object before and after.
#[derive(Default)]
pub(crate) struct Meta(pub(crate) std::collections::BTreeMap<String, String>);

impl Meta {
    /// The display name of the target.
    pub(crate) fn name(name: &str) -> Self {
        Meta::default().with("name", name)
    }

    /// One more entry.
    pub(crate) fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    /// The object as it was, as JSON text.
    pub(crate) fn before(self, object: &impl Serialize) -> Self {
        self.json("before", object)
    }

    /// The object as it is now, as JSON text.
    pub(crate) fn after(self, object: &impl Serialize) -> Self {
        self.json("after", object)
    }

    fn json(self, key: &str, object: &impl Serialize) -> Self {
        // Only maps with keys that are no text fail to serialise, and no stored object has one.
        let text = serde_json::to_string(object).unwrap_or_default();
        self.with(key, text)
    }
}
