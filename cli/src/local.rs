//! The agent on this host, over its unix socket.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::Global;
use crate::error::{Failure, Kind};

/// Where an agent listens unless told otherwise.
pub const SOCKET: &str = "/run/sluicegate/gateway.sock";

/// Speaks to the agent behind one socket.
pub struct Agent {
    http: reqwest::Client,
    socket: PathBuf,
    timeout: Duration,
}

impl Agent {
    /// The agent of `--gateway-socket`; nothing is sent yet.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let socket = global.gateway_socket.clone().unwrap_or_else(|| SOCKET.into());
        let http = reqwest::Client::builder()
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .unix_socket(socket.as_path())
            // No TLS is spoken over the socket, so none is prepared.
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::failed("cannot prepare the request").why(error))?;
        Ok(Self { http, socket, timeout: global.timeout })
    }

    /// The socket, for messages.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads `path`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.answer(path, self.http.get(url(path))).await
    }

    /// Asks `path` with a body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        self.answer(path, self.http.post(url(path)).json(body)).await
    }

    /// Opens a stream: only the answer's head is bounded in time.
    pub async fn stream(&self, path: &str, query: &[(&str, String)]) -> Result<Response, Failure> {
        let request = self.http.get(url(path)).query(query);
        match tokio::time::timeout(self.timeout, self.send(path, request)).await {
            Ok(response) => response,
            Err(_) => Err(self.silent(path)),
        }
    }

    /// The next piece of a stream; `None` when the agent ended it.
    pub async fn chunk(&self, response: &mut Response) -> Result<Option<Vec<u8>>, Failure> {
        match response.chunk().await {
            Ok(chunk) => Ok(chunk.map(|bytes| bytes.to_vec())),
            Err(error) => Err(self.ended().why(causes(&error))),
        }
    }

    /// The failure of a stream that ended.
    pub fn ended(&self) -> Failure {
        Failure::new(
            Kind::NotConnected,
            format!("the agent behind {} ended the stream", self.socket.display()),
        )
        .next("it was stopped or restarted; run the command again when it answers")
    }

    async fn answer<T: DeserializeOwned>(&self, path: &str, request: RequestBuilder) -> Result<T, Failure> {
        let response = self.send(path, request.timeout(self.timeout)).await?;
        let body = response.bytes().await.map_err(|error| self.unreachable(path, &error))?;
        serde_json::from_slice(&body).map_err(|error| self.of_another_version(path).why(error))
    }

    async fn send(&self, path: &str, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(path, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.unwrap_or_default();
        let message = serde_json::from_str::<Value>(&body)
            .ok()
            .and_then(|body| body.get("message").and_then(Value::as_str).map(str::to_owned))
            .unwrap_or_else(|| body.trim().to_owned());
        Err(match status {
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => Failure::usage(message),
            StatusCode::NOT_FOUND => self.of_another_version(path),
            StatusCode::SERVICE_UNAVAILABLE => Failure::new(
                Kind::NotConnected,
                format!("the agent behind {} is not ready", self.socket.display()),
            )
            .why(message)
            .next("try again in a moment; its log says what it waits for"),
            _ => Failure::failed(format!("the agent behind {} failed on {path}", self.socket.display()))
                .why(message)
                .next("look at the agent's log"),
        })
    }

    fn of_another_version(&self, path: &str) -> Failure {
        Failure::failed(format!(
            "what answers on {} has no {path} that this sluice can read",
            self.socket.display()
        ))
        .next(format!("use a sluice of the agent's version; this is {}", env!("CARGO_PKG_VERSION")))
    }

    fn unreachable(&self, path: &str, error: &reqwest::Error) -> Failure {
        if error.is_timeout() && !error.is_connect() {
            return self.silent(path);
        }
        let why = causes(error);
        let next = match why.contains("ermission denied") {
            true => "run it as root, or as a member of the group that owns the socket",
            false => {
                "run it on the host of a gateway or peer whose sluicegate-gateway runs, and name another socket with \
                 --gateway-socket"
            }
        };
        Failure::new(Kind::NotConnected, format!("no agent answers on {}", self.socket.display()))
            .why(why)
            .next(next)
    }

    fn silent(&self, path: &str) -> Failure {
        Failure::new(
            Kind::NotConnected,
            format!("the agent behind {} did not answer in time", self.socket.display()),
        )
        .why(format!("{path} had no answer after {:?}", self.timeout))
        .next("try a longer --timeout, and look at the agent's log")
    }
}

fn url(path: &str) -> String {
    format!("http://agent{path}")
}

/// The innermost cause: the layers above only say that there was one.
fn causes(error: &reqwest::Error) -> String {
    let mut last = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        last = cause.to_string();
        next = cause.source();
    }
    last
}
