//! Who users are: identity providers, whose tokens are verified here.

pub mod oidc;

use std::sync::Arc;

use oidc::{Claims, OidcOptions, Provider, SetupError, TokenError};

/// How users prove who they are; clones share it.
#[derive(Clone, Default)]
pub struct Identity {
    provider: Option<Arc<Provider>>,
}

/// What the configuration says of users' identity.
#[derive(Clone, Debug, Default)]
pub struct IdentityOptions {
    /// The identity provider, where there is one.
    pub oidc: Option<OidcOptions>,
}

impl Identity {
    /// Reads the options; nothing is asked of the provider before its first token comes.
    pub fn new(options: &IdentityOptions) -> Result<Self, SetupError> {
        let provider = options.oidc.as_ref().map(|options| Provider::new(options.clone())).transpose()?;
        Ok(Identity { provider: provider.map(Arc::new) })
    }

    /// The identity provider, if there is one.
    pub fn provider(&self) -> Option<&Arc<Provider>> {
        self.provider.as_ref()
    }

    /// Whom a JWT is about, if the provider has signed it for us and it is in force.
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        match &self.provider {
            Some(provider) => provider.verify(token).await,
            None => Err(TokenError::NoProvider),
        }
    }
}
