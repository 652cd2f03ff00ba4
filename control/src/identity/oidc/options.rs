//! `[oidc]` of the configuration.

use std::net::IpAddr;

use jsonwebtoken::Algorithm;
use reqwest::Url;
use serde::Deserialize;

/// Signatures by a key of which only the public half is known here.
const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];
/// Most clocks are within a minute of each other; more is a clock to be set.
const LEEWAY_MAX: u64 = 300;

/// The identity provider.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcOptions {
    /// Its issuer, exactly as its tokens have it.
    pub issuer: String,
    /// The client that command lines are at the provider: a public one, with PKCE.
    pub client_id: String,
    /// What `aud` of a token must name one of; without it the client's id.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Algorithms of signatures.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<String>,
    /// Seconds that the provider's clock may be away from ours.
    #[serde(default = "default_leeway")]
    pub leeway_seconds: u64,
    /// Where the keys are; without it, what the provider's discovery document says.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// What is asked for at a login.
    #[serde(default = "default_scopes")]
    pub scopes: String,
    /// The claim by which the provider tells users apart.
    #[serde(default = "default_user_id")]
    pub user_id_claim: String,
    /// The claim with the display name.
    #[serde(default = "default_name")]
    pub name_claim: String,
    /// The claim with the e-mail address.
    #[serde(default = "default_email")]
    pub email_claim: String,
    /// Whether an e-mail address counts although `email_verified` is not true: only for a provider whose users cannot
    /// choose theirs.
    #[serde(default)]
    pub trust_email: bool,
}

fn default_algorithms() -> Vec<String> {
    ["RS256", "PS256", "ES256", "EdDSA"].map(String::from).into()
}

fn default_leeway() -> u64 {
    60
}

fn default_scopes() -> String {
    "openid profile email".into()
}

fn default_user_id() -> String {
    "sub".into()
}

fn default_name() -> String {
    "name".into()
}

fn default_email() -> String {
    "email".into()
}

impl OidcOptions {
    /// A provider with the defaults.
    pub fn new(issuer: &str, client_id: &str) -> Self {
        OidcOptions {
            issuer: issuer.into(),
            client_id: client_id.into(),
            audience: Vec::new(),
            algorithms: default_algorithms(),
            leeway_seconds: default_leeway(),
            jwks_url: None,
            scopes: default_scopes(),
            user_id_claim: default_user_id(),
            name_claim: default_name(),
            email_claim: default_email(),
            trust_email: false,
        }
    }

    /// What is wrong, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, url) in [("issuer", Some(&self.issuer)), ("jwks_url", self.jwks_url.as_ref())] {
            let Some(url) = url else { continue };
            let parsed = Url::parse(url).map_err(|error| format!("{name} = {url:?} is no URL: {error}"))?;
            match parsed.scheme() {
                "https" => {}
                "http" if is_here(&parsed) => {}
                _ => {
                    return Err(format!(
                        "{name} = {url:?} must be https: keys that anybody could change prove nothing"
                    ));
                }
            }
        }
        for name in &self.algorithms {
            if !ALGORITHMS.iter().any(|(known, _)| known == name) {
                let known = ALGORITHMS.map(|(known, _)| known).join(", ");
                return Err(format!("algorithms: {name:?} is none of {known}"));
            }
        }
        if self.algorithms.is_empty() {
            return Err("algorithms must not be empty".into());
        }
        if self.client_id.is_empty() {
            return Err("client_id must not be empty".into());
        }
        if self.audiences().iter().any(String::is_empty) {
            return Err("audience must not be empty".into());
        }
        if self.leeway_seconds > LEEWAY_MAX {
            return Err(format!("leeway_seconds must be at most {LEEWAY_MAX}: set the clock instead"));
        }
        Ok(())
    }

    /// The algorithms a token may be signed with.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let known = ALGORITHMS.iter().filter(|(name, _)| self.algorithms.iter().any(|own| own == name));
        known.map(|(_, algorithm)| *algorithm).collect()
    }

    /// Whether a token's `azp` may be this client.
    pub(super) fn authorizes(&self, party: &str) -> bool {
        party == self.client_id || self.audience.iter().any(|own| own == party)
    }

    /// What a token's `aud` must name one of.
    pub(super) fn audiences(&self) -> Vec<String> {
        if self.audience.is_empty() { vec![self.client_id.clone()] } else { self.audience.clone() }
    }

    /// Whether the provider is on this host and speaks without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.issuer.starts_with("http:")
    }
}

fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_trusts_too_much_is_refused() {
        let good = || OidcOptions::new("https://idp.example", "sluicegate");
        good().check().unwrap();
        OidcOptions::new("http://127.0.0.1:9400", "x").check().unwrap();
        let wrong = [
            (OidcOptions { issuer: "http://idp.example".into(), ..good() }, "https"),
            (OidcOptions { issuer: "idp".into(), ..good() }, "no URL"),
            (OidcOptions { jwks_url: Some("http://192.0.2.1/jwks".into()), ..good() }, "jwks_url"),
            (OidcOptions { algorithms: vec!["HS256".into()], ..good() }, "HS256"),
            (OidcOptions { algorithms: vec!["none".into()], ..good() }, "none"),
            (OidcOptions { algorithms: vec![], ..good() }, "empty"),
            (OidcOptions { audience: vec![String::new()], ..good() }, "audience"),
            (OidcOptions { client_id: String::new(), ..good() }, "client_id"),
            (OidcOptions { leeway_seconds: 3600, ..good() }, "leeway"),
        ];
        for (options, word) in wrong {
            let error = options.check().unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(good().audiences(), ["sluicegate"]);
    }
}
