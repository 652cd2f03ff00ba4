//! An OpenID Connect provider: its keys, and tokens that it has signed.
//!
//! What is trusted is what the configuration names: one issuer, the audiences, the algorithms. Of a token's header only the
//! key's id and the algorithm are read, and an algorithm that is not configured is refused before any key is looked for;
//! `none` and those with a shared secret cannot be configured at all.

mod claims;
mod device;
mod keys;
mod options;

use std::collections::HashSet;
use std::time::Duration;

use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value};

pub use claims::Claims;
use device::Endpoints;
pub use device::{Begun, Polled};
use keys::Keys;
pub use options::{Dashboard, OidcOptions};

/// Longer than any token in use; more is not looked at.
const TOKEN_MAX: usize = 32 * 1024;
/// How long the provider may take to give its keys.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The provider that the configuration names.
pub struct Provider {
    options: OidcOptions,
    keys: Keys,
    client: reqwest::Client,
    endpoints: Endpoints,
    timeout: Duration,
}

/// Why the provider's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A value is wrong.
    #[error("[oidc] {0}")]
    Option(String),
    /// No HTTP client.
    #[error("the identity provider cannot be spoken to: {0}")]
    Client(#[from] reqwest::Error),
}

/// Why a token says nothing.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No provider is configured.
    #[error(
        "no identity provider is configured here; send a personal access token as `Authorization: Token nbp_…`"
    )]
    NoProvider,
    /// Not three parts of base64url with JSON in them.
    #[error("it is no JWT")]
    Malformed,
    /// The header's algorithm is not among the configured ones.
    #[error("its algorithm is not among those that [oidc] algorithms allows")]
    Algorithm,
    /// None of the provider's keys.
    #[error("it is signed with a key that the identity provider does not publish")]
    UnknownKey,
    /// Signature, issuer, audience or time.
    #[error("{0}")]
    Refused(&'static str),
    /// A claim that must be there is not.
    #[error("its claim {0:?} is missing or no text")]
    Claim(String),
    /// The provider's keys could not be fetched. The reason is in the log, and not in the text: strangers read that.
    #[error(
        "the identity provider's keys could not be fetched; try again in some seconds, and see control's log"
    )]
    Unavailable(String),
}

impl Provider {
    /// Checks the options.
    pub fn new(options: OidcOptions) -> Result<Self, SetupError> {
        Self::with_timeout(options, TIMEOUT)
    }

    fn with_timeout(options: OidcOptions, timeout: Duration) -> Result<Self, SetupError> {
        options.check().map_err(SetupError::Option)?;
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("sluicegate-control/", env!("CARGO_PKG_VERSION")))
            // Keys come from where the configuration says, or not at all.
            .redirect(reqwest::redirect::Policy::none());
        if options.is_plain() {
            // On this host only, see `OidcOptions::check`: no certificates are needed, and no proxy is.
            client = client.tls_certs_only([]).no_proxy();
        }
        let client = client.build()?;
        let keys = Keys::new(client.clone(), &options, timeout);
        Ok(Provider { options, keys, client, endpoints: Endpoints::default(), timeout })
    }

    /// What the configuration says.
    pub fn options(&self) -> &OidcOptions {
        &self.options
    }

    /// Whom `token` is about, if the provider has signed it for us and it is in force.
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_MAX {
            return Err(TokenError::Malformed);
        }
        // An algorithm that is unknown to the library, `none` among them, is an error of the header.
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        if !self.options.algorithms().contains(&header.alg) {
            return Err(TokenError::Algorithm);
        }
        let key = self.keys.find(header.kid.as_deref(), header.alg).await?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = self.options.leeway_seconds;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_audience(&self.options.audiences());
        validation.required_spec_claims = HashSet::from(["exp", "iss", "aud", "sub"].map(String::from));
        let token = decode::<Map<String, Value>>(token, &key, &validation)
            .map_err(|error| TokenError::Refused(why(error.kind())))?;
        // A logout token (OpenID Connect Back-Channel Logout 1.0, section 2.4) is for nobody's coming in.
        if token.claims.contains_key("events") {
            return Err(TokenError::Refused("it is a logout token"));
        }
        self.check_party(&token.claims)?;
        Claims::read(&token.claims, &self.options)
    }

    /// Whether the token was made for one of our clients (OpenID Connect Core 1.0, 3.1.3.7, steps 4 and 5): a token for
    /// several says in `azp` which of them has it, or, where it is an access token, in `client_id` (RFC 9068, 2.2).
    fn check_party(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let several = claims.get("aud").and_then(Value::as_array).is_some_and(|list| list.len() > 1);
        match claims.get("azp").or_else(|| claims.get("client_id").filter(|_| several)) {
            Some(Value::String(party)) if self.options.authorizes(party) => Ok(()),
            Some(_) => Err(TokenError::Refused("its authorized party (azp) is another client")),
            None if several => {
                Err(TokenError::Refused("it is for several audiences and names no authorized party (azp)"))
            }
            None => Ok(()),
        }
    }
}

fn why(kind: &jsonwebtoken::errors::ErrorKind) -> &'static str {
    use jsonwebtoken::errors::ErrorKind::*;
    match kind {
        InvalidSignature => "its signature is wrong",
        ExpiredSignature => "it is expired",
        ImmatureSignature => "it is not in force yet",
        InvalidIssuer => "its issuer is another one",
        InvalidAudience => "it is for another audience",
        MissingRequiredClaim(_) => "it lacks one of exp, iss, aud and sub",
        _ => "it cannot be verified",
    }
}

#[cfg(test)]
mod tests;
