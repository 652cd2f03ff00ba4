//! How people prove who they are: identity providers, whose tokens are verified here, and whether there are built-in users.

pub mod oidc;

use std::sync::Arc;
use std::time::{Duration, Instant};

use oidc::{Claims, OidcOptions, Provider, SetupError, TokenError};
use serde::Deserialize;

use crate::buckets::Buckets;

/// How users prove who they are; clones share it.
#[derive(Clone, Default)]
pub struct Identity {
    provider: Option<Arc<Provider>>,
    local: LocalUsers,
    codes: Arc<CodeLimit>,
}

/// Codes of machines that one user may type wrong at once, and how many per second after that. Of 25,600,000,000 codes 4,096 are
/// good at most.
const CODES: (f64, f64) = (10.0, 1.0 / 60.0);

/// Attempts at codes of machines, by user id; here, not at other replicas.
pub(crate) struct CodeLimit(Buckets<String>);

impl Default for CodeLimit {
    fn default() -> Self {
        CodeLimit(Buckets::new(CODES.0, CODES.1))
    }
}

impl CodeLimit {
    /// Counts an attempt before it is looked at; when there were too many, how long to wait.
    pub(crate) fn attempt(&self, user: &str) -> Result<(), Duration> {
        self.0.attempt(user.to_owned(), Instant::now())
    }

    /// The code was good: the attempt does not count.
    pub(crate) fn was_good(&self, user: &str) {
        self.0.give_back(&user.to_owned());
    }
}

/// Built-in users, with passwords.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalUsers {
    /// Whether there are any.
    pub enabled: bool,
    /// Whether anybody who reaches the REST API before there is a person may make the first one, the owner.
    pub open_setup: bool,
}

/// What the configuration says of users' identity.
#[derive(Clone, Debug, Default)]
pub struct IdentityOptions {
    /// The identity provider, where there is one.
    pub oidc: Option<OidcOptions>,
    /// Built-in users.
    pub local_users: LocalUsers,
}

impl Identity {
    /// Reads the options; nothing is asked of the provider before its first token comes.
    pub fn new(options: &IdentityOptions) -> Result<Self, SetupError> {
        let provider = options.oidc.as_ref().map(|options| Provider::new(options.clone())).transpose()?;
        Ok(Identity { provider: provider.map(Arc::new), local: options.local_users, codes: Arc::default() })
    }

    /// The identity provider, if there is one.
    pub fn provider(&self) -> Option<&Arc<Provider>> {
        self.provider.as_ref()
    }

    /// How often users may type codes of machines.
    pub(crate) fn codes(&self) -> &CodeLimit {
        &self.codes
    }

    /// What is said of built-in users.
    pub fn local_users(&self) -> LocalUsers {
        self.local
    }

    /// Whom a JWT is about, if the provider has signed it for us and it is in force.
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        match &self.provider {
            Some(provider) => provider.verify(token).await,
            None => Err(TokenError::NoProvider),
        }
    }
}
