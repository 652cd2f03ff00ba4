//! The device flow (RFC 8628) on behalf of machines that do not reach the provider: control begins it and asks what became of it,
//! and a person agrees with any browser.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant as Now};

use reqwest::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::Provider;
use super::keys::{Discovery, FRESH, GAP, STALE, body};
use crate::buckets::Buckets;

/// How long to wait between two questions where the provider does not say (section 3.2), in seconds.
const INTERVAL: u64 = 5;
/// The longest that a provider can make us wait between two questions, in seconds.
const INTERVAL_MAX: u64 = 60;
/// Errors after which no question helps: those of RFC 6749, section 5.2, and RFC 8628, section 3.5, and what Entra says in the place of
/// `access_denied`.
const FINAL: [&str; 9] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "access_denied",
    "expired_token",
    "authorization_declined",
];
/// Longest text of the provider that is passed on, in characters.
const TEXT_MAX: usize = 300;

/// What the provider gave to begin with.
#[derive(Clone, Debug, Deserialize)]
pub struct Begun {
    /// By which control asks what became of it; whoever has it gets the person's token.
    pub device_code: String,
    /// What the person types.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same address with the code in it.
    #[serde(default)]
    pub verification_uri_complete: String,
    /// Seconds that it is good for.
    pub expires_in: u64,
    /// Seconds between two questions.
    #[serde(default = "interval")]
    pub interval: u64,
}

fn interval() -> u64 {
    INTERVAL
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Nobody has agreed yet.
    Pending,
    /// The provider wants to be asked less often, or could not be asked.
    Slower,
    /// The ID token of whoever agreed.
    Token(String),
    /// It is over: the error's code (RFC 6749, section 5.2; RFC 8628, section 3.5), or what is wrong with the answer.
    Over(String),
}

/// Logins that are begun at the provider at once, and how many per second after that: strangers begin them.
const BEGIN: (f64, f64) = (50.0, 5.0);
/// Questions at once about what became of one, and how many per second after that.
const ASK: (f64, f64) = (200.0, 50.0);
/// How long a machine that begins waits for each of the provider's answers: it has a code of control's own to go on with.
const BEGIN_WITHIN: Duration = Duration::from_secs(3);

/// The endpoints, as the provider said last, and how often it is asked in all.
pub(super) struct Endpoints {
    known: Mutex<Known>,
    /// Held while they are fetched: one asks, and the others wait for the answer.
    fetching: tokio::sync::Mutex<()>,
    begins: Buckets<()>,
    asks: Buckets<()>,
}

#[derive(Default)]
struct Known {
    found: Option<(Instant, Discovery)>,
    /// When the last attempt failed, and why.
    failed: Option<(Instant, String)>,
}

impl Default for Endpoints {
    fn default() -> Self {
        Endpoints {
            known: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            begins: Buckets::new(BEGIN.0, BEGIN.1),
            asks: Buckets::new(ASK.0, ASK.1),
        }
    }
}

impl Provider {
    /// Begins the flow; `None` where the provider does not know it. An error is for the log, not for strangers.
    pub async fn begin_device(&self) -> Result<Option<Begun>, String> {
        let counted = self.endpoints.begins.attempt((), Now::now());
        counted.map_err(|_| "too many logins are begun at the identity provider".to_owned())?;
        let found = self.endpoints().await?;
        let (Some(endpoint), Some(_)) = (&found.device_authorization_endpoint, &found.token_endpoint) else {
            return Ok(None);
        };
        let form = [("client_id", self.options.client_id.as_str()), ("scope", &self.options.scopes)];
        let begun: Begun = in_time(self.begin_within(), post(&self.client, endpoint, &form)).await?.1;
        let shown = |text: &str| crate::text::printable(text, TEXT_MAX);
        Ok(Some(Begun {
            user_code: shown(&begun.user_code),
            verification_uri: shown(&begun.verification_uri),
            verification_uri_complete: shown(&begun.verification_uri_complete),
            interval: begun.interval.clamp(1, INTERVAL_MAX),
            ..begun
        }))
    }

    /// Asks what became of it; when too many ask, it is as if nobody had agreed yet.
    pub async fn poll_device(&self, device_code: &str) -> Polled {
        #[derive(Deserialize)]
        struct Answer {
            id_token: Option<String>,
            error: Option<String>,
        }
        if self.endpoints.asks.attempt((), Now::now()).is_err() {
            return Polled::Pending;
        }
        let asked = async {
            let found = self.endpoints().await?;
            let endpoint = found.token_endpoint.ok_or("there is no token endpoint")?;
            let form = [
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
                ("device_code", device_code),
                ("client_id", &self.options.client_id),
            ];
            post::<Answer>(&self.client, &endpoint, &form).await
        };
        match in_time(self.timeout, asked).await {
            Ok((200, Answer { id_token: Some(token), .. })) => Polled::Token(token),
            Ok((status, Answer { error: Some(code), .. })) if status != 429 && status < 500 => {
                match code.as_str() {
                    "authorization_pending" => Polled::Pending,
                    "slow_down" => Polled::Slower,
                    code if FINAL.contains(&code) => Polled::Over(code.into()),
                    code => {
                        let code = crate::text::printable(code, TEXT_MAX);
                        tracing::warn!(
                            issuer = self.options.issuer,
                            status,
                            code,
                            "the identity provider is asked about a login again"
                        );
                        Polled::Slower
                    }
                }
            }
            Ok((200, _)) => Polled::Over("no ID token: scopes of [oidc] must contain openid".into()),
            Ok((status, _)) => {
                tracing::warn!(
                    issuer = self.options.issuer,
                    status,
                    "the identity provider gave no answer to a login"
                );
                Polled::Slower
            }
            Err(reason) => {
                tracing::warn!(
                    issuer = self.options.issuer,
                    reason,
                    "the identity provider could not be asked about a login"
                );
                Polled::Slower
            }
        }
    }

    fn begin_within(&self) -> Duration {
        self.timeout.min(BEGIN_WITHIN)
    }

    /// The endpoints; the provider is asked by one at a time, and not again right after it failed.
    async fn endpoints(&self) -> Result<Discovery, String> {
        let known = || self.endpoints.known.lock().unwrap_or_else(PoisonError::into_inner);
        let younger = |than: Duration| match &known().found {
            Some((at, found)) if at.elapsed() < than => Some(found.clone()),
            _ => None,
        };
        if let Some(found) = younger(FRESH) {
            return Ok(found);
        }
        let _turn = self.endpoints.fetching.lock().await;
        if let Some(found) = younger(FRESH) {
            return Ok(found);
        }
        let lately = known().failed.clone().filter(|(at, _)| at.elapsed() < GAP);
        let failed = match lately {
            Some((_, reason)) => reason,
            None => match in_time(self.begin_within(), self.discover()).await {
                Ok(found) => {
                    *known() = Known { found: Some((Instant::now(), found.clone())), failed: None };
                    return Ok(found);
                }
                Err(reason) => {
                    known().failed = Some((Instant::now(), reason.clone()));
                    reason
                }
            },
        };
        younger(STALE).ok_or(failed)
    }

    async fn discover(&self) -> Result<Discovery, String> {
        let found = self.keys.discover().await?;
        let plain = self.options.is_plain();
        for endpoint in [&found.token_endpoint, &found.device_authorization_endpoint].into_iter().flatten() {
            if !plain && !endpoint.starts_with("https:") {
                return Err(format!("the provider leads to {endpoint}, which is not https"));
            }
        }
        Ok(found)
    }
}

async fn in_time<T>(timeout: Duration, what: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(timeout, what).await.unwrap_or_else(|_| Err(format!("no answer for {timeout:?}")))
}

async fn post<T: DeserializeOwned>(
    client: &Client,
    url: &str,
    form: &[(&str, &str)],
) -> Result<(u16, T), String> {
    let sent = client.post(url).form(form).send().await;
    let answer = sent.map_err(|error| format!("{url}: {}", error.without_url()))?;
    let status = answer.status().as_u16();
    let body = body(url, answer).await?;
    let read = serde_json::from_slice(&body);
    read.map(|read| (status, read)).map_err(|error| format!("{url} answers {status}: {error}"))
}
