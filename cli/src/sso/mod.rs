//! Logins at an identity provider: by a browser on this machine (code flow with PKCE, RFC 7636 and RFC 8252), or by a code
//! that is typed anywhere (RFC 8628). Either gives an ID token, for which control gives a login.

mod browser;
mod callback;
mod device;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub(crate) use browser::by_browser;
pub(crate) use device::by_device;

use crate::error::Failure;

/// How long somebody may take to log in at the provider.
const PATIENCE: Duration = Duration::from_secs(600);

/// What control says of the provider (`GET /api/login`).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Offer {
    issuer: String,
    client_id: String,
    scopes: String,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Proof {
    /// The ID token.
    pub(crate) token: String,
    /// What must be in it, where the login was begun with one.
    pub(crate) nonce: Option<String>,
}

/// A provider whose endpoints are known.
#[derive(Debug)]
pub(crate) struct Provider {
    http: Client,
    offer: Offer,
    found: Discovery,
}

/// What of the discovery document is used (OpenID Connect Discovery 1.0, RFC 8628 section 4).
#[derive(Debug, Deserialize)]
struct Discovery {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    device_authorization_endpoint: Option<String>,
}

impl Provider {
    /// Reads the provider's discovery document.
    pub(crate) async fn discover(offer: Offer, timeout: Duration) -> Result<Self, Failure> {
        let wrong = |why: String| {
            Failure::failed(format!("cannot log in at {}", offer.issuer))
                .why(why)
                .next("check [oidc] issuer of control, and that this machine reaches it")
        };
        let issuer = Url::parse(&offer.issuer).map_err(|error| wrong(error.to_string()))?;
        let here = is_here(&issuer);
        if issuer.scheme() != "https" && !here {
            return Err(wrong("its address is not https".into()));
        }
        let mut client = Client::builder()
            .timeout(timeout)
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            // A code must not follow where somebody sends it.
            .redirect(reqwest::redirect::Policy::none());
        if here {
            client = client.no_proxy();
        }
        if issuer.scheme() == "http" {
            // On this machine, without TLS: no certificates are needed.
            client = client.tls_certs_only([]);
        }
        let http = client.build().map_err(|error| wrong(error.to_string()))?;
        let url = format!("{}/.well-known/openid-configuration", offer.issuer.trim_end_matches('/'));
        let answered = async { http.get(&url).send().await?.error_for_status()?.json().await };
        let found: Discovery = answered.await.map_err(|error: reqwest::Error| wrong(error.to_string()))?;
        if found.issuer != offer.issuer {
            return Err(wrong(format!("what answers there calls itself {}", found.issuer)));
        }
        let endpoints = [Some(&found.authorization_endpoint), Some(&found.token_endpoint)];
        let endpoints = endpoints.into_iter().chain([found.device_authorization_endpoint.as_ref()]).flatten();
        for endpoint in endpoints {
            let url = Url::parse(endpoint).map_err(|error| wrong(format!("{endpoint}: {error}")))?;
            if url.scheme() != "https" && !(issuer.scheme() == "http" && is_here(&url)) {
                return Err(wrong(format!("it leads to {endpoint}, which is not https")));
            }
        }
        Ok(Provider { http, offer, found })
    }

    /// Posts a form to the token endpoint: the ID token, or the error's code (RFC 6749, section 5.2).
    async fn exchange(&self, form: &[(&str, &str)]) -> Result<Result<String, String>, Failure> {
        let failed = |why: String| Failure::failed(format!("{} gave no token", self.offer.issuer)).why(why);
        let sent = self.http.post(&self.found.token_endpoint).form(form).send().await;
        let answer = sent.map_err(|error| failed(error.without_url().to_string()))?;
        let status = answer.status();
        let body: Value = answer.json().await.map_err(|_| failed(format!("it answered {status}")))?;
        if let Some(token) = body.get("id_token").and_then(Value::as_str)
            && status.is_success()
        {
            return Ok(Ok(token.to_owned()));
        }
        match body.get("error").and_then(Value::as_str) {
            Some(code) => Ok(Err(code.to_owned())),
            None => Err(failed("there is no ID token in its answer".into())
                .next("scopes of [oidc] in control must contain openid")),
        }
    }

    fn refused(&self, code: &str) -> Failure {
        let shown: String = code.chars().filter(|char| !char.is_control()).take(200).collect();
        Failure::failed(format!("{} did not log you in", self.offer.issuer)).why(shown)
    }
}

/// A secret of 256 random bits, as text.
fn secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// What of a verifier is shown before the verifier itself is (RFC 7636, section 4.2).
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_rfc_7636() {
        // Appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(secret().len() == 43 && secret() != secret());
    }

    #[tokio::test]
    async fn a_provider_without_tls_elsewhere_is_not_spoken_to() {
        let offer =
            Offer { issuer: "http://idp.example".into(), client_id: "c".into(), scopes: "openid".into() };
        let failure = Provider::discover(offer, Duration::from_secs(1)).await.unwrap_err();
        assert!(failure.why.unwrap().contains("https"));
    }
}
