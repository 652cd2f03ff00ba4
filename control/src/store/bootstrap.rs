//! The first start: account, group `All`, policy `Default`, and an owner whose token is left in a file.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::account::{random_overlay, settings_text};
use super::location::Location;
use super::sql;
use super::write::Meta;
use super::{Activity, Actor, OpenError, Settings, Store, StoreError, tokens, users};
use crate::ids::{DAY, new_id};
use crate::secret::{new_token, token_hash};

/// The file in the data directory that holds the owner's token, written once.
pub const TOKEN_FILE: &str = "bootstrap-token";
/// Where the token waits until the account that knows it is durable.
const PENDING_FILE: &str = ".bootstrap-token.new";
/// The bootstrap token lives as long as any token can.
const TOKEN_DAYS: i64 = 365;

impl Store {
    /// Makes the account unless there is one, and finishes a first start that was cut short.
    ///
    /// The token is on disk under its pending name before the account is durable, and gets its final name after: at
    /// no instant is there an account whose token is lost.
    pub(super) async fn bootstrap(&self, location: &Location, directory: &Path) -> Result<(), OpenError> {
        let file = directory.join(TOKEN_FILE);
        let pending = directory.join(PENDING_FILE);
        let store_error = |cause| OpenError::Store { place: location.name(), cause };
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |cause| OpenError::NotWritable { path, cause }
        };

        if self.has_account().await.map_err(store_error)? {
            return self.finish(location, &file, &pending).await;
        }
        if file.try_exists().map_err(io_error(&file))? {
            return Err(OpenError::ForeignToken { token: file, place: location.name() });
        }
        remove(&pending).map_err(io_error(&pending))?;
        let token = new_token();
        write_secret(&pending, &token).map_err(io_error(&pending))?;
        match self.create_account(&token).await {
            Ok(true) => publish(&pending, &file).map_err(io_error(&file)),
            // Another replica was first; the token is in its directory.
            Ok(false) => remove(&pending).map_err(io_error(&pending)),
            // Lost in the middle, it may be there or not: the next start finds out by the pending file.
            Err(error @ StoreError::Unavailable(_)) => Err(store_error(error)),
            Err(error) => {
                // The token opens nothing; leaving its file would only puzzle.
                let _ = remove(&pending);
                Err(store_error(error))
            }
        }
    }

    async fn has_account(&self) -> Result<bool, StoreError> {
        let accounts: i64 =
            sql::query_scalar("SELECT count(*) FROM account").fetch_one(&mut self.reader().await?).await?;
        Ok(accounts > 0)
    }

    /// A pending token file after the account is durable: the process died in between.
    async fn finish(&self, location: &Location, file: &Path, pending: &Path) -> Result<(), OpenError> {
        let io_error = |cause| OpenError::NotWritable { path: pending.to_owned(), cause };
        let token = match std::fs::read_to_string(pending) {
            Ok(token) => token,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error(error)),
        };
        let known = match token_hash(token.trim()) {
            Some(hash) => self.knows_token(&hash).await,
            None => Ok(false),
        };
        let known = known.map_err(|cause| OpenError::Store { place: location.name(), cause })?;
        if known { publish(pending, file) } else { remove(pending) }.map_err(io_error)
    }

    /// Makes the account; false when there is one.
    async fn create_account(&self, token: &str) -> Result<bool, StoreError> {
        let (v4, v6) = random_overlay();
        let (account, owner, all) = (new_id(), new_id(), new_id());
        let settings = Settings {
            network_range: v4.to_string(),
            network_range_v6: v6.to_string(),
            ipv6_enabled_groups: vec![all.clone()],
            ..Settings::default()
        };

        let mut write = self.write(&Actor::system()).await?;
        let accounts: i64 = sql::query_scalar("SELECT count(*) FROM account").fetch_one(write.db()).await?;
        if accounts > 0 {
            return Ok(false);
        }
        let at = write.at();
        sql::query(
            "INSERT INTO account (only_one, id, domain, created_at, created_by, revision, settings)
             VALUES (1, $1, '', $2, $3, 0, $4)",
        )
        .bind(&account)
        .bind(at)
        .bind(&owner)
        .bind(settings_text(&settings)?)
        .execute(write.db())
        .await?;
        sql::query("INSERT INTO groups (id, name, issued, built_in) VALUES ($1, 'All', 'api', TRUE)")
            .bind(&all)
            .execute(write.db())
            .await?;
        sql::query(
            "INSERT INTO users (id, name, email, role, is_service_user, blocked, invited, created_at)
             VALUES ($1, 'bootstrap', '', 'owner', TRUE, FALSE, FALSE, $2)",
        )
        .bind(&owner)
        .bind(at)
        .execute(write.db())
        .await?;
        let token_id =
            tokens::insert(write.db(), &owner, &owner, "bootstrap", token, at, at + TOKEN_DAYS * DAY).await?;
        default_policy(&mut write, &all).await?;

        write.event(Activity::AccountCreate, &account, Meta::default().after(&settings)).await?;
        let user = users::user(write.db(), &owner).await?;
        write.event(Activity::ServiceUserCreate, &owner, Meta::name("bootstrap").after(&user)).await?;
        let token = tokens::stored(write.db(), &owner, &token_id).await?;
        let meta = Meta::name("bootstrap").with("username", &user.name).with("user_id", &owner).after(&token);
        write.event(Activity::TokenCreate, &token_id, meta).await?;
        write.commit().await?;
        Ok(true)
    }
}

/// Everybody reaches everybody: what NetBird's accounts begin with, to be switched off once there are rules.
async fn default_policy(write: &mut super::write::Write, all: &str) -> Result<(), StoreError> {
    use super::policies::{Action, End, PolicyChange, Protocol, RuleChange, RuleSpec};
    let spec = RuleSpec {
        name: "Default".into(),
        description: "Every peer may open any flow to every other peer".into(),
        enabled: true,
        action: Action::Accept,
        bidirectional: true,
        protocol: Protocol::All,
        ports: Vec::new(),
        port_ranges: Vec::new(),
        authorized_groups: Default::default(),
        sources: End::Groups(vec![all.to_owned()]),
        destinations: End::Groups(vec![all.to_owned()]),
    };
    let policy = PolicyChange {
        name: "Default".into(),
        description: "Made with the account; switch it off once there are policies of your own".into(),
        enabled: true,
        source_posture_checks: Vec::new(),
        rules: vec![RuleChange { id: None, spec }],
    };
    super::policies::insert(write, policy).await?;
    Ok(())
}

/// Writes a secret for its owner's eyes only, durably. The name must be free.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

/// Gives a file its final name, which must be free, in one step.
fn publish(pending: &Path, file: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(pending, file) {
        Ok(()) => {}
        // Published before the process died; what is there stays.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    std::fs::remove_file(pending)?;
    match file.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_token_is_written_once_for_its_owners_eyes_and_opens_the_account() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TOKEN_FILE);
        let store = Store::open(directory.path()).await.unwrap();
        let token = std::fs::read_to_string(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let owner = store.authenticate(token.trim()).await.unwrap().unwrap();
        assert!(owner.is_service_user && owner.role == crate::store::UserRole::Owner);
        store.close().await;
        drop(store);

        // Taken away by its reader: it is not made again.
        std::fs::remove_file(&path).unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        assert!(!path.exists());
        assert_eq!(store.tokens(&owner.id).await.unwrap().len(), 1);
        assert!(store.authenticate(token.trim()).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_first_start_cut_short_before_the_token_had_its_name_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let (file, pending) = (directory.path().join(TOKEN_FILE), directory.path().join(PENDING_FILE));
        let store = Store::open(directory.path()).await.unwrap();
        store.close().await;
        drop(store);
        std::fs::rename(&file, &pending).unwrap();
        Store::open(directory.path()).await.unwrap();
        assert!(file.exists() && !pending.exists());
    }

    #[tokio::test]
    async fn a_pending_token_of_no_account_is_replaced_and_a_foreign_final_one_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(PENDING_FILE), "nbp_stale\n").unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let token = std::fs::read_to_string(directory.path().join(TOKEN_FILE)).unwrap();
        assert!(store.authenticate(token.trim()).await.unwrap().is_some());

        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join(TOKEN_FILE), "precious\n").unwrap();
        let error = Store::open(other.path()).await.err().unwrap();
        assert!(matches!(error, OpenError::ForeignToken { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(other.path().join(TOKEN_FILE)).unwrap(), "precious\n");
    }
}
