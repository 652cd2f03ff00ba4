//! A real OpenID Connect provider for this test binary: the Python program that `cargo xtask setup` installs.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use reqwest::{Client, Url, redirect};
use serde_json::Value;

/// What control and its command lines are at the provider.
pub(crate) const CLIENT: &str = "sluice";
/// Where the provider sends browsers; nothing listens there.
pub(crate) const REDIRECT: &str = "http://127.0.0.1:9/callback";

/// The provider; it ends with this.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    client: Client,
    process: Child,
}

impl Provider {
    pub(crate) fn start() -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/oidc-provider-mock");
        assert!(program.exists(), "{} is missing: run `cargo xtask setup`", program.display());
        // Free a moment ago; a port of its own it cannot tell.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string()]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = String::new();
        loop {
            match lines.next() {
                Some(line) if line.contains("Uvicorn running") => break,
                Some(line) => said += &format!("{line}\n"),
                None => panic!("the provider did not start:\n{said}"),
            }
        }
        // Read on, so that it does not wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let client = Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap();
        Provider { issuer: format!("http://127.0.0.1:{port}"), client, process }
    }

    /// Lets somebody have an account there, or changes it.
    pub(crate) async fn person(&self, subject: &str, claims: Value) {
        let request = self.client.put(format!("{}/users/{subject}", self.issuer)).json(&claims);
        assert_eq!(request.send().await.unwrap().status(), 204);
    }

    /// The ID token of somebody who logs in now, as a browser and a client get it: by a code.
    pub(crate) async fn token(&self, subject: &str, nonce: &str) -> String {
        let mut url = Url::parse(&format!("{}/oauth2/authorize", self.issuer)).unwrap();
        url.query_pairs_mut().extend_pairs([
            ("client_id", CLIENT),
            ("redirect_uri", REDIRECT),
            ("response_type", "code"),
            ("scope", "openid profile email"),
            ("nonce", nonce),
            ("state", "s"),
        ]);
        let back = self.consent(url.as_str(), subject).await;
        let code = back.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
        // Any secret will do there, but one it wants.
        let form = [
            ("client_secret", "x"),
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", REDIRECT),
            ("client_id", CLIENT),
        ];
        let request = self.client.post(format!("{}/oauth2/token", self.issuer)).form(&form);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["id_token"].as_str().unwrap_or_else(|| panic!("no token in {answer}")).to_owned()
    }

    /// What a person does in the browser at an address where a login begins; where that leads.
    pub(crate) async fn consent(&self, url: &str, subject: &str) -> Url {
        let request = self.client.post(url).form(&[("sub", subject)]);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 302, "{}", response.text().await.unwrap());
        response.headers()["location"].to_str().unwrap().parse().unwrap()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
