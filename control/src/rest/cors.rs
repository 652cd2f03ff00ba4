//! Pages of other origins (Fetch Standard, "CORS protocol"): those that the configuration names, to the letter, and no other.
//!
//! Who asks shows a token in `Authorization`, which no browser sends by itself: there are no cookies, and so credentials are never
//! allowed, by which a page could use them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use reqwest::Url;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
/// What requests may carry beside what every page may send.
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, if-match, if-none-match, idempotency-key");
/// What of answers a page may read beside what every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static("etag, retry-after, idempotent-replayed");
/// Seconds for which a browser need not ask again whether it may.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Origins of pages that may ask, as browsers write them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeSet<String>);

impl Origins {
    /// Reads them; the error says which is none, and why.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        texts.iter().map(|text| check(text).map(|()| text.clone())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The origin of a request, if it is one of these.
    fn of(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        self.0.contains(origin.to_str().ok()?).then(|| origin.clone())
    }
}

fn check(text: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("[rest] origins: {text:?} {why}"));
    let Ok(url) = Url::parse(text) else {
        return wrong("is no origin: write it as https://HOST or https://HOST:PORT");
    };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if url.origin().ascii_serialization() != text || host.contains('*') {
        return wrong(
            "is no origin as browsers write it: scheme, host, a port where it is another than usual, and nothing after",
        );
    }
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Ok(()),
        "http" if here => Ok(()),
        _ => wrong("must be https: anybody on the way could put another page there"),
    }
}

/// Answers what a browser asks before a page's request, and lets a page of a named origin read answers.
pub(super) async fn cors(State(origins): State<Arc<Origins>>, request: Request, next: Next) -> Response {
    let origin = origins.of(request.headers());
    let asks = request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match asks {
        // Without what follows, a browser takes it for a no.
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    // What is kept on the way is not to be given to another page.
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return response };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if asks {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    } else {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}
