//! The device flow (RFC 8628): a code that is typed into any browser.

use std::time::Duration;

use serde::Deserialize;

use super::{Proof, Provider};
use crate::error::Failure;
use crate::terminal::Terminal;

/// How long to wait between two questions where the provider does not say (section 3.2).
const INTERVAL: u64 = 5;
/// By how much that grows when the provider asks for it (section 3.5).
const SLOWER: u64 = 5;
/// The longest that a provider can make us wait between two questions, in seconds.
const INTERVAL_MAX: u64 = 60;
/// The longest that a code is good for, in seconds.
const LIFETIME_MAX: u64 = 1800;

#[derive(Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    #[serde(default = "interval")]
    interval: u64,
}

fn interval() -> u64 {
    INTERVAL
}

/// Logs in by a browser that may be anywhere.
pub(crate) async fn by_device(provider: &Provider, terminal: &mut Terminal<'_>) -> Result<Proof, Failure> {
    let failed = |why: String| {
        Failure::failed(format!("{} gives no code to log in with", provider.offer.issuer)).why(why)
    };
    let Some(endpoint) = &provider.found.device_authorization_endpoint else {
        return Err(failed("it does not know the device flow".into())
            .next("log in with a browser: leave --device out"));
    };
    let form = [("client_id", &provider.offer.client_id), ("scope", &provider.offer.scopes)];
    let sent =
        async { provider.http.post(endpoint).form(&form).send().await?.error_for_status()?.json().await };
    let begun: Begun = sent.await.map_err(|error: reqwest::Error| failed(error.without_url().to_string()))?;
    let shown = |text: &str| text.chars().filter(|char| !char.is_control()).take(300).collect::<String>();
    terminal.note(format!(
        "Open {} in any browser and type\n\n  {}\n",
        shown(&begun.verification_uri),
        shown(&begun.user_code)
    ));
    if let Some(complete) = &begun.verification_uri_complete {
        terminal.note(format!("or open {}, which has the code in it.", shown(complete)));
    }
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("device_code", begun.device_code.as_str()),
        ("client_id", provider.offer.client_id.as_str()),
    ];
    let lifetime = Duration::from_secs(begun.expires_in.min(LIFETIME_MAX));
    let polled = async {
        let mut interval = begun.interval.min(INTERVAL_MAX);
        loop {
            tokio::time::sleep(Duration::from_secs(interval)).await;
            match provider.exchange(&form).await? {
                Ok(token) => return Ok(Proof { token, nonce: None }),
                Err(code) if code == "authorization_pending" => {}
                Err(code) if code == "slow_down" => interval = (interval + SLOWER).min(INTERVAL_MAX),
                Err(code) => return Err(provider.refused(&code)),
            }
        }
    };
    match tokio::time::timeout(lifetime, polled).await {
        Ok(done) => done,
        Err(_) => Err(provider.refused("the code was not used in time")),
    }
}
