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
    /// What `aud` of a token may name beside the clients here.
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
    /// The web page that people log in on, where there is one.
    #[serde(default)]
    pub dashboard: Option<Dashboard>,
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
    /// Whether machines are let in on the provider's page, which does not say which machine that is.
    #[serde(default)]
    pub machine_logins: bool,
}

/// A web page of the account's own: a public client with PKCE, as command lines are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dashboard {
    /// The client that the page is at the provider; without it that of command lines.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Where the provider sends browsers back to, exactly as it knows them.
    pub redirect_uris: Vec<String>,
}

impl Dashboard {
    fn check(&self) -> Result<(), String> {
        if self.client_id.as_ref().is_some_and(String::is_empty) {
            return Err("dashboard: client_id must not be empty".into());
        }
        if self.redirect_uris.is_empty() {
            return Err("dashboard: redirect_uris must name where browsers come back to".into());
        }
        for uri in &self.redirect_uris {
            let parsed = Url::parse(uri).map_err(|error| format!("dashboard: {uri:?} is no URL: {error}"))?;
            let secure = parsed.scheme() == "https" || parsed.scheme() == "http" && is_here(&parsed);
            if !secure {
                return Err(format!(
                    "dashboard: {uri:?} must be https: whoever sees it has the login's code"
                ));
            }
            // RFC 6749, section 3.1.2; and one with a name and password is another host than it looks.
            if parsed.fragment().is_some() || !parsed.username().is_empty() || parsed.password().is_some() {
                return Err(format!("dashboard: {uri:?} must have neither a fragment nor a user's name"));
            }
        }
        Ok(())
    }
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
            dashboard: None,
            user_id_claim: default_user_id(),
            name_claim: default_name(),
            email_claim: default_email(),
            trust_email: false,
            machine_logins: false,
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
        self.dashboard.as_ref().map_or(Ok(()), Dashboard::check)?;
        if self.audiences().iter().any(String::is_empty) {
            return Err("audience must not be empty".into());
        }
        if self.leeway_seconds > LEEWAY_MAX {
            return Err(format!("leeway_seconds must be at most {LEEWAY_MAX}: set the clock instead"));
        }
        Ok(())
    }

    /// The client that the dashboard is, where there is one.
    pub fn dashboard_client(&self) -> Option<&str> {
        let dashboard = self.dashboard.as_ref()?;
        Some(dashboard.client_id.as_deref().unwrap_or(&self.client_id))
    }

    /// The algorithms a token may be signed with.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let known = ALGORITHMS.iter().filter(|(name, _)| self.algorithms.iter().any(|own| own == name));
        known.map(|(_, algorithm)| *algorithm).collect()
    }

    /// Whether a token's `azp` may be this client.
    pub(super) fn authorizes(&self, party: &str) -> bool {
        party == self.client_id
            || self.dashboard_client() == Some(party)
            || self.audience.iter().any(|own| own == party)
    }

    /// What a token's `aud` must name one of: the clients here, or those that are configured.
    pub(super) fn audiences(&self) -> Vec<String> {
        let clients = [Some(self.client_id.as_str()), self.dashboard_client()];
        match self.audience.is_empty() {
            true => clients.into_iter().flatten().map(str::to_owned).collect(),
            // An ID token is for the client that asked for it, whatever access tokens are for.
            false => {
                let own = clients.into_iter().flatten();
                self.audience.iter().map(String::as_str).chain(own).map(str::to_owned).collect()
            }
        }
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
        let dashboard = |client: Option<&str>, uris: &[&str]| {
            let redirect_uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
            let dashboard = Dashboard { client_id: client.map(str::to_owned), redirect_uris };
            OidcOptions { dashboard: Some(dashboard), ..good() }
        };
        for here in ["http://localhost:3000/auth", "http://127.0.0.1:1/", "http://[::1]:1/"] {
            dashboard(None, &[here, "https://dash.example/auth?a=b"]).check().unwrap();
        }
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
            (dashboard(Some(""), &["https://dash.example/"]), "client_id"),
            (dashboard(None, &[]), "redirect_uris"),
            (dashboard(None, &["dash"]), "no URL"),
            (dashboard(None, &["http://dash.example/"]), "https"),
            (dashboard(None, &["https://dash.example/", "https://dash.example/#a"]), "fragment"),
            (dashboard(None, &["https://good.example@evil.example/"]), "user"),
        ];
        for (options, word) in wrong {
            let error = options.check().unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(good().audiences(), ["sluicegate"]);
        let own = dashboard(Some("dash"), &["https://dash.example/"]);
        assert_eq!(own.audiences(), ["sluicegate", "dash"]);
        assert!(own.authorizes("dash") && !good().authorizes("dash"));
        let api = OidcOptions { audience: vec!["api".into()], ..own };
        assert_eq!(api.audiences(), ["api", "sluicegate", "dash"]);
    }
}
