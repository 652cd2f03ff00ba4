//! The device flow (RFC 8628) on behalf of machines that do not reach the provider: control begins it and asks what became of it,
//! and a person agrees with any browser.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::Provider;
use super::keys::{Discovery, FRESH, body};

/// How long to wait between two questions where the provider does not say (section 3.2), in seconds.
const INTERVAL: u64 = 5;
/// The longest that a provider can make us wait between two questions, in seconds.
const INTERVAL_MAX: u64 = 60;
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

/// The endpoints, as the provider said last.
#[derive(Default)]
pub(super) struct Endpoints(Mutex<Option<(Instant, Discovery)>>);

impl Provider {
    /// Begins the flow; `None` where the provider does not know it. An error is for the log, not for strangers.
    pub async fn begin_device(&self) -> Result<Option<Begun>, String> {
        let found = self.in_time(self.endpoints()).await?;
        let (Some(endpoint), Some(_)) = (&found.device_authorization_endpoint, &found.token_endpoint) else {
            return Ok(None);
        };
        let form = [("client_id", self.options.client_id.as_str()), ("scope", &self.options.scopes)];
        let begun: Begun = self.in_time(post(&self.client, endpoint, &form)).await?.1;
        let shown = |text: &str| crate::text::printable(text, TEXT_MAX);
        Ok(Some(Begun {
            user_code: shown(&begun.user_code),
            verification_uri: shown(&begun.verification_uri),
            verification_uri_complete: shown(&begun.verification_uri_complete),
            interval: begun.interval.min(INTERVAL_MAX),
            ..begun
        }))
    }

    /// Asks what became of it.
    pub async fn poll_device(&self, device_code: &str) -> Polled {
        #[derive(Deserialize)]
        struct Answer {
            id_token: Option<String>,
            error: Option<String>,
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
        match self.in_time(asked).await {
            Ok((200, Answer { id_token: Some(token), .. })) => Polled::Token(token),
            Ok((_, Answer { error: Some(code), .. })) => match code.as_str() {
                "authorization_pending" => Polled::Pending,
                "slow_down" => Polled::Slower,
                code => Polled::Over(crate::text::printable(code, TEXT_MAX)),
            },
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

    async fn in_time<T>(&self, what: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let timeout: Duration = self.timeout;
        tokio::time::timeout(timeout, what)
            .await
            .unwrap_or_else(|_| Err(format!("no answer for {timeout:?}")))
    }

    async fn endpoints(&self) -> Result<Discovery, String> {
        let known = || self.endpoints.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, found)) = &*known()
            && at.elapsed() < FRESH
        {
            return Ok(found.clone());
        }
        let found = self.keys.discover().await?;
        let plain = self.options.is_plain();
        for endpoint in [&found.token_endpoint, &found.device_authorization_endpoint].into_iter().flatten() {
            if !plain && !endpoint.starts_with("https:") {
                return Err(format!("the provider leads to {endpoint}, which is not https"));
            }
        }
        *known() = Some((Instant::now(), found.clone()));
        Ok(found)
    }
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
