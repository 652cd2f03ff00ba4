//! An operator on the REST API.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, Method};
use serde_json::Value;

use crate::control::Control;

/// A start compiles the whole account before it is ready.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client with the owner's token.
#[derive(Clone)]
pub(crate) struct Operator {
    client: Client,
    base: String,
    token: Result<String, String>,
}

impl Operator {
    /// An operator of that process.
    pub(crate) fn new(control: &Control) -> Self {
        let token = control.token().map_err(|error| format!("{error:#}"));
        Self { client: Client::new(), base: format!("http://{}", control.http()), token }
    }

    /// Waits until control says that it can do its work.
    pub(crate) async fn ready(&self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let answer = self.client.get(format!("{}/readyz", self.base)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("control is not ready after {PATIENCE:?}: see {}/readyz", self.base)
    }

    /// Reads an address, to its last byte.
    pub(crate) async fn get(&self, path: &str) -> Result<()> {
        self.request(Method::GET, path, None).await
    }

    /// Replaces what is at an address.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<()> {
        self.request(Method::PUT, path, Some(body)).await
    }

    /// The revision of the account that the images stand for.
    pub(crate) async fn compiled(&self) -> Result<u64> {
        const NAME: &str = "sluicegate_control_compiled_revision ";

        let page = self.client.get(format!("{}/metrics", self.base)).send().await?.text().await?;
        let value = page.lines().find_map(|line| line.strip_prefix(NAME)?.parse().ok());
        value.with_context(|| format!("no {NAME}in the metrics of control"))
    }

    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<()> {
        let token = self.token.as_ref().map_err(|reason| anyhow::anyhow!("no token: {reason}"))?;
        let url = format!("{}{path}", self.base);
        let mut request =
            self.client.request(method.clone(), &url).header("Authorization", format!("Token {token}"));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| format!("{method} {url}"))?;
        let status = answer.status();
        let bytes = answer.bytes().await.with_context(|| format!("{method} {url}"))?;
        if !status.is_success() {
            bail!("{method} {url}: {status}: {}", String::from_utf8_lossy(&bytes));
        }
        Ok(())
    }
}
