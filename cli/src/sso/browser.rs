//! The code flow: the browser goes to the provider, and comes back to this process with a code.

use std::process::{Command, Stdio};

use reqwest::Url;
use tokio::net::TcpListener;

use super::{PATIENCE, Proof, Provider, callback, challenge, secret};
use crate::error::Failure;
use crate::terminal::Terminal;

/// Logs in by a browser on this machine.
pub(crate) async fn by_browser(provider: &Provider, terminal: &mut Terminal<'_>) -> Result<Proof, Failure> {
    let failed = |why: String| Failure::failed("cannot wait for the browser").why(why);
    // By address, not by name (RFC 8252, section 8.3).
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| failed(error.to_string()))?;
    let port = listener.local_addr().map_err(|error| failed(error.to_string()))?.port();
    let redirect = format!("http://127.0.0.1:{port}{}", callback::PATH);
    let (verifier, state, nonce) = (secret(), secret(), secret());
    let mut url =
        Url::parse(&provider.found.authorization_endpoint).map_err(|error| failed(error.to_string()))?;
    url.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", &provider.offer.client_id),
        ("redirect_uri", &redirect),
        ("scope", &provider.offer.scopes),
        ("state", &state),
        ("nonce", &nonce),
        ("code_challenge", &challenge(&verifier)),
        ("code_challenge_method", "S256"),
    ]);
    terminal.note(format!("Log in with a browser on this machine:\n\n  {url}\n"));
    open(url.as_str());
    let code = match tokio::time::timeout(PATIENCE, callback::code(&listener, &state)).await {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => return Err(provider.refused(&error)),
        Err(_) => {
            return Err(failed(format!("nobody logged in within {} minutes", PATIENCE.as_secs() / 60))
                .next("on a machine without a browser use --device"));
        }
    };
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", &redirect),
        ("client_id", &provider.offer.client_id),
        ("code_verifier", &verifier),
    ];
    match provider.exchange(&form).await? {
        Ok(token) => Ok(Proof { token, nonce: Some(nonce) }),
        Err(error) => Err(provider.refused(&error)),
    }
}

/// Opens an address where there is a screen; it has been printed anyway.
fn open(url: &str) {
    if ["DISPLAY", "WAYLAND_DISPLAY"].iter().all(|name| std::env::var_os(name).is_none()) {
        return;
    }
    let mut command = Command::new("xdg-open");
    let spawned = command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if let Ok(mut child) = spawned {
        // Nobody waits for a browser, but somebody has to take its end.
        std::thread::spawn(move || child.wait());
    }
}
