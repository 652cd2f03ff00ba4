//! The provider's public keys: fetched, kept, and fetched again when one is unknown, but not more often than is good.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use reqwest::{Client, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::{OidcOptions, TokenError};

/// Keys are fetched again when one is used after this, so that one that the provider withdrew is not trusted for long. Meanwhile
/// those that are known count.
pub(super) const FRESH: Duration = Duration::from_secs(300);
/// While the provider cannot be reached, its keys stand for this long.
pub(super) const STALE: Duration = Duration::from_secs(24 * 3600);
/// Between the end of one fetch and the next: tokens with made-up key ids must not make us a load on the provider.
pub(super) const GAP: Duration = Duration::from_secs(10);
/// Largest document that is read, in bytes.
const DOCUMENT_MAX: usize = 1 << 20;

/// The keys.
pub(super) struct Keys(Arc<Inner>);

struct Inner {
    client: Client,
    issuer: String,
    jwks_url: Option<String>,
    /// How long an attempt may take.
    timeout: Duration,
    known: Mutex<Known>,
    /// Held while they are fetched: one asks, and the others wait for the answer.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Known {
    keys: Vec<Jwk>,
    fetched: Option<Instant>,
    /// When the last attempt ended, and what came of it.
    tried: Option<(Instant, Result<(), String>)>,
}

/// What of the discovery document is used (OpenID Connect Discovery 1.0, section 3; RFC 8628, section 4).
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Discovery {
    issuer: String,
    jwks_uri: String,
    pub(super) token_endpoint: Option<String>,
    pub(super) device_authorization_endpoint: Option<String>,
}

impl Keys {
    pub(super) fn new(client: Client, options: &OidcOptions, timeout: Duration) -> Self {
        let (issuer, jwks_url) = (options.issuer.clone(), options.jwks_url.clone());
        let (known, fetching) = (Mutex::default(), Arc::default());
        Keys(Arc::new(Inner { client, issuer, jwks_url, timeout, known, fetching }))
    }

    /// What the provider says of itself now.
    pub(super) async fn discover(&self) -> Result<Discovery, String> {
        self.0.discover().await
    }

    /// The key of this id for signatures by `algorithm`; without an id, the provider's only such key.
    pub(super) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, TokenError> {
        if let (Some(key), Some(age)) = self.0.look(id, algorithm)
            && age < STALE
        {
            if age >= FRESH {
                // A provider that does not answer must not keep everybody waiting.
                self.0.refresh();
            }
            return decoding(&key);
        }
        let fetched = self.0.fetch_once().await;
        match (self.0.look(id, algorithm), fetched) {
            ((Some(key), Some(age)), _) if age < STALE => decoding(&key),
            (_, Err(reason)) => Err(TokenError::Unavailable(reason)),
            _ => Err(TokenError::UnknownKey),
        }
    }
}

impl Inner {
    fn look(&self, id: Option<&str>, algorithm: Algorithm) -> (Option<Jwk>, Option<Duration>) {
        let known = self.known();
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
    async fn fetch_once(self: &Arc<Self>) -> Result<(), String> {
        let asked = Instant::now();
        let turn = self.fetching.clone().lock_owned().await;
        // Somebody else's attempt, for which this one waited, or one just before.
        if let Some((ended, outcome)) = &self.known().tried
            && (*ended >= asked || ended.elapsed() < GAP)
        {
            return outcome.clone();
        }
        // Whoever asks may go away: an attempt that has begun is made to its end.
        match tokio::spawn(self.clone().attempt(turn)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(error.to_string()),
        }
    }

    /// Has the keys fetched, unless that is being done, or was tried a moment ago.
    fn refresh(self: &Arc<Self>) {
        let Ok(turn) = self.fetching.clone().try_lock_owned() else { return };
        let lately = |(ended, _): &(Instant, _)| ended.elapsed() < GAP;
        if !self.known().tried.as_ref().is_some_and(lately) {
            tokio::spawn(self.clone().attempt(turn));
        }
    }

    async fn attempt(self: Arc<Self>, _turn: OwnedMutexGuard<()>) -> Result<(), String> {
        let fetched = match tokio::time::timeout(self.timeout, self.fetch()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!("no answer for {:?}", self.timeout)),
        };
        let mut known = self.known();
        let outcome = fetched.map(|keys| {
            known.keys = keys;
            known.fetched = Some(Instant::now());
        });
        if let Err(reason) = &outcome {
            tracing::warn!(issuer = self.issuer, reason, "the identity provider's keys could not be fetched");
        }
        known.tried = Some((Instant::now(), outcome.clone()));
        outcome
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
        let sent = self.client.get(url).send().await;
        let response = sent.map_err(|error| format!("{url}: {}", error.without_url()))?;
        if response.status() != 200 {
            return Err(format!("{url} answers {}", response.status()));
        }
        serde_json::from_slice(&body(url, response).await?).map_err(|error| format!("{url}: {error}"))
    }
}

/// The body of an answer, if it is no longer than any should be.
pub(super) async fn body(url: &str, mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| format!("{url}: {}", error.without_url()))?
    {
        body.extend_from_slice(&chunk);
        if body.len() > DOCUMENT_MAX {
            return Err(format!("{url} is longer than {DOCUMENT_MAX} bytes"));
        }
    }
    Ok(body)
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
