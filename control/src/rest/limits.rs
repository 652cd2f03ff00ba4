//! How much one caller may ask for: a token bucket for each token, and one for each address of callers without a good one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::auth::Admitted;
use super::error::ApiError;
use crate::buckets::{Buckets, source};
use crate::secret::SecretHash;

/// Requests of a token at once, where nothing else is configured; each second a twentieth of it comes back.
pub const BURST: u32 = 2_000;
/// The part of [`BURST`] that comes back each second.
const REFILL: f64 = 0.05;
/// The part that an address has whose callers have no good token: they are new, wrong, or ask what is open to anyone.
const STRANGERS: f64 = 0.1;
/// By which proxies say for whom they ask.
const FORWARDED: &str = "x-forwarded-for";

/// What is configured.
#[derive(Clone, Debug)]
pub struct Rates {
    /// Requests of one token at once; 0 is any number.
    pub burst: u32,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for Rates {
    fn default() -> Self {
        Rates { burst: BURST, trusted_proxies: Vec::new() }
    }
}

/// Where a connection comes from, as the listener tells it.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub SocketAddr);

/// Who sent a request, as far as can be told: see [`Clients::address`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Client(pub(super) Option<IpAddr>);

/// Tells who sends requests, behind proxies as well.
pub(super) struct Clients {
    trusted: Vec<IpNet>,
    /// Whether somebody was told that a proxy in front is not trusted.
    told: AtomicBool,
}

/// The buckets.
pub(super) struct Limits {
    tokens: Buckets<SecretHash>,
    addresses: Buckets<Option<IpAddr>>,
}

impl Limits {
    /// None where any number of requests is served.
    pub(super) fn new(rates: &Rates) -> Option<Self> {
        let burst = f64::from(rates.burst);
        let strangers = (burst * STRANGERS).max(1.0);
        (rates.burst > 0).then(|| Limits {
            tokens: Buckets::new(burst, burst * REFILL),
            addresses: Buckets::new(strangers, strangers * REFILL),
        })
    }

    /// Counts a request; how long to wait, when there were too many.
    fn count(&self, token: Option<&SecretHash>, from: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        match token.filter(|token| self.tokens.knows(token)) {
            Some(token) => self.tokens.attempt(*token, now),
            None => self.addresses.attempt(from.map(source), now),
        }
    }
}

impl Clients {
    pub(super) fn new(trusted: Vec<IpNet>) -> Self {
        Clients { trusted, told: AtomicBool::new(false) }
    }

    /// Warns, once, where a proxy seems to be in front and none is configured; whether it did.
    fn warn(&self, remote: Option<IpAddr>, headers: &HeaderMap) -> bool {
        if !self.trusted.is_empty()
            || !headers.contains_key(FORWARDED)
            || self.told.swap(true, Ordering::Relaxed)
        {
            return false;
        }
        let from = remote.map(|remote| remote.to_canonical().to_string()).unwrap_or_default();
        tracing::warn!(
            from,
            "a request carries X-Forwarded-For, and [rest] trusted_proxies names nobody: everybody behind that proxy is one \
             address to control, and shares one limit of requests; name the proxy there if it is yours (this is said once)"
        );
        true
    }

    /// Who sent a request: the connection's other end, or whom a trusted proxy names.
    fn address(&self, remote: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let trusts = |address: &IpAddr| self.trusted.iter().any(|net| net.contains(&address.to_canonical()));
        let Some(proxy) = remote.filter(trusts) else { return remote };
        let lists = headers.get_all(FORWARDED).iter().rev();
        let entries = lists.flat_map(|list| list.to_str().unwrap_or_default().rsplit(','));
        // Each proxy adds at the end; what stands before one that is not ours is anybody's word.
        let mut client = proxy;
        for entry in entries {
            let Ok(address) = entry.trim().parse() else { break };
            client = address;
            if !trusts(&client) {
                break;
            }
        }
        Some(client)
    }
}

/// Notes with a request who sent it.
pub(super) async fn locate(
    State(clients): State<Arc<Clients>>,
    mut request: Request,
    next: Next,
) -> Response {
    let remote = request.extensions().get::<ConnectInfo<Remote>>().map(|info| info.0.0.ip());
    clients.warn(remote, request.headers());
    let from = clients.address(remote, request.headers());
    request.extensions_mut().insert(Client(from));
    next.run(request).await
}

/// Refuses with 429 what is too much, before anything is done for it.
pub(super) async fn limit(State(limits): State<Arc<Limits>>, request: Request, next: Next) -> Response {
    // Whoever watches over this service asks it in turns, often through one address.
    if !request.uri().path().starts_with("/api/") {
        return next.run(request).await;
    }
    let from = request.extensions().get::<Client>().and_then(|client| client.0);
    let token = token_of(request.headers());
    if let Err(wait) = limits.count(token.as_ref(), from, Instant::now()) {
        return refused(wait);
    }
    let response = next.run(request).await;
    if let Some(token) = token {
        let admitted = response.extensions().get::<Admitted>().is_some();
        if response.status() == StatusCode::UNAUTHORIZED {
            limits.tokens.forget(&token);
        } else if admitted && !limits.tokens.knows(&token) {
            // A token that is good has a bucket of its own from now on, unless there are too many of them. One that nobody
            // looked at, where anyone may ask, has none: else whoever makes tokens up would be served without end.
            let _ = limits.tokens.attempt(token, Instant::now());
        }
    }
    response
}

fn token_of(headers: &HeaderMap) -> Option<SecretHash> {
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (_, token) = header.trim().split_once(' ')?;
    Some(Sha256::digest(token.trim()).into())
}

fn refused(wait: Duration) -> Response {
    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
    let message =
        format!("too many requests: wait {seconds} s; [rest] burst sets how many are served at once");
    let mut response = ApiError::new(StatusCode::TOO_MANY_REQUESTS, message).into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(proxies: &[&str]) -> Clients {
        Clients::new(proxies.iter().map(|net| net.parse().unwrap()).collect())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_good_token_is_not_held_up_by_its_neighbours() {
        let rates = Rates { burst: 20, ..Rates::default() };
        let (limits, now) = (Limits::new(&rates).unwrap(), Instant::now());
        let (good, from) = ([1; 32], Some(ip("2001:db8::1")));
        limits.tokens.attempt(good, now).unwrap();
        for _ in 0..2 {
            limits.count(Some(&[2; 32]), from, now).unwrap();
        }
        assert_eq!(limits.count(None, Some(ip("2001:db8::2")), now), Err(Duration::from_secs(10)));
        limits.count(None, Some(ip("2001:db8:0:1::2")), now).unwrap();
        for _ in 1..20 {
            limits.count(Some(&good), from, now).unwrap();
        }
        assert_eq!(limits.count(Some(&good), from, now), Err(Duration::from_secs(1)));
    }

    #[test]
    fn only_a_trusted_proxy_says_whom_it_speaks_for() {
        let clients = clients(&["127.0.0.0/8", "2001:db8:1::/48"]);
        let headers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-for", HeaderValue::from_static(value));
            }
            headers
        };
        let (lies, proxy) = (headers(&["192.0.2.9"]), Some(ip("127.0.0.1")));
        assert_eq!(clients.address(Some(ip("198.51.100.1")), &lies), Some(ip("198.51.100.1")));
        assert_eq!(clients.address(Some(ip("2001:db8:2::1")), &lies), Some(ip("2001:db8:2::1")));
        assert_eq!(clients.address(None, &lies), None);
        assert_eq!(clients.address(proxy, &headers(&[])), proxy);
        assert_eq!(clients.address(Some(ip("::ffff:127.0.0.1")), &lies), Some(ip("192.0.2.9")));
        // The client wrote the first entry itself; our proxies added the others.
        let two = headers(&["203.0.113.1, 192.0.2.9", "2001:db8:1::5"]);
        assert_eq!(clients.address(proxy, &two), Some(ip("192.0.2.9")));
        assert_eq!(clients.address(proxy, &headers(&["203.0.113.1, unknown"])), proxy);
    }

    #[test]
    fn a_proxy_that_nobody_named_is_told_of_once() {
        let mut headers = HeaderMap::new();
        let (nobody, somebody, from) = (clients(&[]), clients(&["192.0.2.1/32"]), Some(ip("198.51.100.1")));
        assert!(!nobody.warn(from, &headers));
        headers.append(FORWARDED, HeaderValue::from_static("203.0.113.7"));
        assert!(!somebody.warn(from, &headers));
        assert!(nobody.warn(from, &headers) && !nobody.warn(from, &headers));
    }

    #[test]
    fn nothing_is_limited_when_that_is_asked_for() {
        assert!(Limits::new(&Rates { burst: 0, ..Rates::default() }).is_none());
    }
}
