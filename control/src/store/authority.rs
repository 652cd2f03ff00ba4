//! Which certificate authority the account's agents pin. Its key is never in the store: whoever reads a backup of the
//! database must not be able to make agents. So every replica has the key in its own data directory, and the store says
//! which key that is to be.

use super::database::Database;
use super::{Result, Store, StoreError, sql};

/// Why this control service may not serve the account's agents.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The agents pin another authority.
    #[error(
        "this account's agents trust the authority sha256:{pinned} and the data directory holds {found}: copy ca.pem and \
         ca.key from the data directory of a replica that runs; or, to begin a new authority, with which every agent has \
         to join again, stop every replica and run in the database: UPDATE account SET authority = ''"
    )]
    Other {
        /// SHA-256 of the certificate, in hex.
        pinned: String,
        /// What is in the data directory.
        found: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Makes `fingerprint` (SHA-256 of the certificate in hex; `None` when there is no certificate yet) the authority that
    /// the account's agents pin, or checks that it is. The file of a single control service follows its data directory.
    pub async fn pin_authority(&self, fingerprint: Option<&str>) -> Result<(), AuthorityError> {
        let mut write = self.begin().await?;
        let pinned: String = sql::query_scalar("SELECT authority FROM account").fetch_one(&mut write).await?;
        let alone = matches!(self.inner.database, Database::Sqlite { .. });
        match fingerprint {
            None if alone || pinned.is_empty() => Ok(()),
            Some(found) if found == pinned => Ok(()),
            Some(found) if alone || pinned.is_empty() => {
                sql::query("UPDATE account SET authority = $1").bind(found).execute(&mut write).await?;
                Ok(write.commit().await?)
            }
            found => {
                let found = found.map_or_else(|| "none".to_owned(), |found| format!("sha256:{found}"));
                Err(AuthorityError::Other { pinned, found })
            }
        }
    }
}
