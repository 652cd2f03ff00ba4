//! Control's REST interface, with failures a person can act on.

use std::error::Error as _;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::{Target, shown};
use crate::error::{Failure, Kind};

/// Speaks to one control with one token.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    target: Target,
    timeout: Duration,
}

/// What control found wrong in a request.
#[derive(Clone, Debug)]
pub struct Refused {
    /// 412, 422 or 428.
    pub status: u16,
    /// For a person.
    pub message: String,
    /// All of it.
    pub body: Value,
}

/// What an object was when it was read.
#[derive(Clone, Debug)]
pub struct Version(Option<HeaderValue>);

impl Client {
    /// A client; nothing is sent yet.
    pub fn new(target: Target, timeout: Duration) -> Result<Self, Failure> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timeout)
            // The interface redirects nowhere: a redirect is a wrong address, and the token must not follow it.
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&target.url) {
            builder = builder.no_proxy();
        }
        if target.url.scheme() == "http" {
            // Plain HTTP needs no certificates, and a minimal host has none: do not fail over that.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|error| {
            Failure::failed("cannot prepare TLS")
                .why(causes(&error))
                .next("install the system's CA certificates, or point SSL_CERT_FILE at a PEM file")
        })?;
        Ok(Client { http, target, timeout })
    }

    /// Control's address, for messages.
    pub fn url(&self) -> &str {
        shown(&self.target.url)
    }

    /// Reads `path`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, None).await
    }

    /// Reads `path` with a query string.
    pub async fn query<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Failure> {
        let request = self.request(Method::GET, path).query(query);
        self.answer(&Method::GET, path, request).await
    }

    /// Creates under `path`.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Posts to `path` what control may find wrong in itself: the inner error is what it says to that, with status 412,
    /// 422 or 428.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<Result<T, Refused>, Failure> {
        let request = self.request(Method::POST, path).json(body).timeout(self.timeout);
        let response = request.send().await.map_err(|error| self.unreachable(path, &error))?;
        let status = response.status();
        let said = response.bytes().await.map_err(|error| self.unreachable(path, &error))?;
        if status.is_success() {
            return Ok(Ok(self.parse(&Method::POST, path, &said)?));
        }
        match serde_json::from_slice::<Value>(&said) {
            Ok(body) if matches!(status.as_u16(), 412 | 422 | 428) => {
                let message = body["message"].as_str().unwrap_or_default().to_owned();
                Ok(Err(Refused { status: status.as_u16(), message, body }))
            }
            _ => Err(self.refused(&Method::POST, path, status, &said)),
        }
    }

    /// Deletes what is at `path`.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::DELETE, path, None).await
    }

    /// Deletes what is at `path`, with a body that says more.
    pub async fn delete_with<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        self.call(Method::DELETE, path, Some(body)).await
    }

    /// Replaces what is at `path`.
    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// Reads what is at `path`, with the version by which [`Client::replace`] knows it.
    pub async fn versioned(&self, path: &str) -> Result<(Value, Version), Failure> {
        let request = self.request(Method::GET, path).timeout(self.timeout);
        let response = self.send(&Method::GET, path, request).await?;
        let version = Version(response.headers().get("etag").cloned());
        let body = response.bytes().await.map_err(|error| self.unreachable(path, &error))?;
        Ok((self.parse(&Method::GET, path, &body)?, version))
    }

    /// Replaces what is at `path`, unless somebody changed it since it was read.
    pub async fn replace(&self, path: &str, body: &Value, version: Version) -> Result<Value, Failure> {
        let mut request = self.request(Method::PUT, path).json(body);
        if let Version(Some(tag)) = version {
            request = request.header("if-match", tag);
        }
        self.answer(&Method::PUT, path, request).await
    }

    /// Opens an event stream: only the answer's head is bounded in time.
    pub async fn stream(&self, path: &str, query: &[(&str, String)]) -> Result<Response, Failure> {
        let request = self.request(Method::GET, path).query(query).header("accept", "text/event-stream");
        match tokio::time::timeout(self.timeout, self.send(&Method::GET, path, request)).await {
            Ok(response) => response,
            Err(_) => Err(self.silent(path)),
        }
    }

    /// The failure of a stream that broke after it was open.
    pub fn broken(&self, path: &str, error: &reqwest::Error) -> Failure {
        Failure::new(Kind::NotConnected, format!("lost control at {} during GET {path}", self.url()))
            .why(causes(error))
            .next("run the command again; `sluice status` shows whether control is back")
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Failure> {
        let mut request = self.request(method.clone(), path);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.answer(&method, path, request).await
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        request: RequestBuilder,
    ) -> Result<T, Failure> {
        let response = self.send(method, path, request.timeout(self.timeout)).await?;
        let body = response.bytes().await.map_err(|error| self.unreachable(path, &error))?;
        self.parse(method, path, &body)
    }

    fn parse<T: DeserializeOwned>(&self, method: &Method, path: &str, body: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(body).map_err(|error| {
            Failure::failed(format!("cannot read the answer to {method} {}{path}", self.url()))
                .why(error)
                .next(format!(
                    "check that {} is a Sluicegate control of this version (sluice {})",
                    self.url(),
                    env!("CARGO_PKG_VERSION")
                ))
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.url());
        let request = self.http.request(method, url);
        match self.target.token.as_str() {
            // What anybody may ask.
            "" => request,
            token => request.header("authorization", format!("Token {token}")),
        }
    }

    async fn send(&self, method: &Method, path: &str, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(path, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        Err(self.refused(method, path, status, &body))
    }

    fn unreachable(&self, path: &str, error: &reqwest::Error) -> Failure {
        if error.is_timeout() && !error.is_connect() {
            return self.silent(path);
        }
        Failure::new(Kind::NotConnected, format!("cannot reach control at {}", self.url()))
            .why(causes(error))
            .next("check that sluicegate-control runs and that --url is its --http address")
    }

    fn silent(&self, path: &str) -> Failure {
        Failure::new(Kind::NotConnected, format!("control at {} did not answer in time", self.url()))
            .why(format!("GET {path} had no answer after {:?}", self.timeout))
            .next("try a longer --timeout, and look at control's log")
    }

    fn refused(&self, method: &Method, path: &str, status: StatusCode, body: &[u8]) -> Failure {
        let message = serde_json::from_slice::<Value>(body)
            .ok()
            .and_then(|body| body.get("message").and_then(Value::as_str).map(str::to_owned))
            .filter(|message| !message.is_empty())
            .unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_lowercase());
        let asked = format!("{method} {path}");
        let failure = match status.as_u16() {
            401 => Failure::new(
                Kind::NotConnected,
                format!("control at {} does not accept the token", self.url()),
            )
            .why(message)
            .next(format!("run `sluice login --url {} --token-file FILE` with a valid token", self.url())),
            403 => Failure::failed(format!("the token's user may not do this ({asked})"))
                .why(message)
                .next("use the token of a user with a role that may, such as admin"),
            404 if serde_json::from_slice::<Value>(body).is_err() => {
                Failure::failed(format!("{} has no {path}", self.url()))
                    .why(message)
                    .next("check that --url is the address of a Sluicegate control")
            }
            500.. => Failure::failed(format!("control failed on {asked} (status {})", status.as_u16()))
                .why(message)
                .next("look at control's log for the cause"),
            _ => {
                Failure::failed(format!("control refused {asked} (status {})", status.as_u16())).why(message)
            }
        };
        Failure { status: Some(status.as_u16()), ..failure }
    }
}

/// The chain of causes, without reqwest's first sentence, which only repeats the address.
fn causes(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Layers repeat each other: keep what says something new.
        if !causes.iter().any(|known: &String| known.contains(&text)) {
            causes.push(text);
        }
        next = cause.source();
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a token would cross a network in clear text.
pub fn is_exposed(url: &Url) -> bool {
    url.scheme() == "http" && !is_loopback(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_url;

    #[test]
    fn only_plain_http_to_others_exposes_a_token() {
        for (url, exposed) in [
            ("http://127.0.0.1:1", false),
            ("http://[::1]:1", false),
            ("http://localhost", false),
            ("https://control.example", false),
            ("http://192.0.2.1:1", true),
            ("http://control.example", true),
        ] {
            assert_eq!(is_exposed(&parse_url(url).unwrap()), exposed, "{url}");
        }
    }
}
