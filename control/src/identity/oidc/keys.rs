//! The provider's public keys: fetched, kept, and fetched again when one is unknown, but not more often than is good.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use reqwest::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{OidcOptions, TokenError};

/// Keys are fetched again after this, so that one that the provider withdrew is not trusted for long.
pub(super) const FRESH: Duration = Duration::from_secs(300);
/// While the provider cannot be reached, its keys stand for this long.
pub(super) const STALE: Duration = Duration::from_secs(24 * 3600);
/// Between two fetches: tokens with made-up key ids must not make us a load on the provider.
pub(super) const GAP: Duration = Duration::from_secs(10);
/// Largest document that is read, in bytes.
const DOCUMENT_MAX: usize = 1 << 20;

/// The keys.
pub(super) struct Keys {
    client: Client,
    issuer: String,
    jwks_url: Option<String>,
    known: Mutex<Known>,
    /// Held while they are fetched: one asks, and the others wait for the answer.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    keys: Vec<Jwk>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

/// What of the discovery document is used (OpenID Connect Discovery 1.0, section 3).
#[derive(Clone, Debug, Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Keys {
    pub(super) fn new(client: Client, options: &OidcOptions) -> Self {
        let (issuer, jwks_url) = (options.issuer.clone(), options.jwks_url.clone());
        Keys { client, issuer, jwks_url, known: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// The key of this id for signatures by `algorithm`; without an id, the provider's only such key.
    pub(super) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, TokenError> {
        let (known, age) = self.look(id, algorithm);
        if let (Some(key), Some(age)) = (&known, age)
            && age < FRESH
        {
            return decoding(key);
        }
        let fetched = self.fetch_once().await;
        match (self.look(id, algorithm), fetched) {
            ((Some(key), Some(age)), _) if age < STALE => decoding(&key),
            (_, Err(reason)) => Err(TokenError::Unavailable(reason)),
            _ => Err(TokenError::UnknownKey),
        }
    }

    fn look(&self, id: Option<&str>, algorithm: Algorithm) -> (Option<Jwk>, Option<Duration>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fits = known.keys.iter().filter(|key| {
            id.is_none_or(|id| key.common.key_id.as_deref() == Some(id)) && suits(key, algorithm)
        });
        let key = match (fits.next(), fits.next()) {
            // Without an id, several that could be meant are none.
            (Some(key), another) if id.is_some() || another.is_none() => Some(key.clone()),
            _ => None,
        };
        (key, known.fetched.map(|at| at.elapsed()))
    }

    /// Fetches the keys, unless that was tried a moment ago: then what came of that stands.
    async fn fetch_once(&self) -> Result<(), String> {
        let asked = Instant::now();
        let _one = self.fetching.lock().await;
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            // Somebody else's fetch, for which this one waited, or one just before.
            if known.tried.is_some_and(|tried| tried >= asked || tried.elapsed() < GAP) {
                return match known.fetched {
                    Some(_) => Ok(()),
                    None => Err("the last attempt failed; it is made again in some seconds".into()),
                };
            }
            known.tried = Some(Instant::now());
        }
        let fetched = self.fetch().await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match fetched {
            Ok(keys) => {
                known.keys = keys;
                known.fetched = Some(Instant::now());
                Ok(())
            }
            Err(reason) => {
                tracing::warn!(
                    issuer = self.issuer,
                    reason,
                    "the identity provider's keys could not be fetched"
                );
                Err(reason)
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Jwk>, String> {
        let url = match &self.jwks_url {
            Some(url) => url.clone(),
            None => self.discover().await?.jwks_uri,
        };
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = self.read(&url).await?;
        // A key of a kind that is unknown here does no harm to the others.
        let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let JwkSet { keys } = JwkSet { keys: keys.collect() };
        Ok(keys)
    }

    /// The discovery document. It must be of the issuer that is configured (section 4.3), and keep to TLS where that does.
    async fn discover(&self) -> Result<Discovery, String> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let document: Discovery = self.read(&url).await?;
        if document.issuer != self.issuer {
            return Err(format!("{url} is of the issuer {:?}, not of {:?}", document.issuer, self.issuer));
        }
        if self.issuer.starts_with("https:") && !document.jwks_uri.starts_with("https:") {
            return Err(format!("{url} leads to {}, which is not https", document.jwks_uri));
        }
        Ok(document)
    }

    async fn read<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let failed = |error: reqwest::Error| format!("{url}: {}", error.without_url());
        let mut response = self.client.get(url).send().await.map_err(failed)?;
        if response.status() != 200 {
            return Err(format!("{url} answers {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > DOCUMENT_MAX {
                return Err(format!("{url} is longer than {DOCUMENT_MAX} bytes"));
            }
        }
        serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
    }
}

/// Whether the key is for signatures by `algorithm`. A shared secret among public keys is never one.
fn suits(key: &Jwk, algorithm: Algorithm) -> bool {
    let common = &key.common;
    if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return false;
    }
    if common.key_algorithm.is_some_and(|own: KeyAlgorithm| own.to_string() != format!("{algorithm:?}")) {
        return false;
    }
    let Ok(decoding) = DecodingKey::from_jwk(key) else { return false };
    decoding.family() != AlgorithmFamily::Hmac && decoding.family() == algorithm.family()
}

fn decoding(key: &Jwk) -> Result<DecodingKey, TokenError> {
    DecodingKey::from_jwk(key).map_err(|_| TokenError::UnknownKey)
}
