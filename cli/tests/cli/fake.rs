//! A control in memory: just enough of the REST interface for the command line, and a record of what was written.

use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The token the fake accepts.
pub(crate) const TOKEN: &str = "nbp_0123456789abcdefghijABCDEFGHIJ012345";

/// A running fake; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) url: String,
    data: Arc<Mutex<Data>>,
}

#[derive(Default)]
pub(crate) struct Data {
    pub(crate) user: Value,
    pub(crate) peers: Vec<Value>,
    pub(crate) groups: Vec<Value>,
    pub(crate) policies: Vec<Value>,
    pub(crate) posture_checks: Vec<Value>,
    pub(crate) networks: Vec<Value>,
    /// (network id, resource)
    pub(crate) resources: Vec<(String, Value)>,
    /// (network id, router)
    pub(crate) routers: Vec<(String, Value)>,
    pub(crate) setup_keys: Vec<Value>,
    pub(crate) gateways: Vec<Value>,
    pub(crate) rules: Value,
    pub(crate) audit: Vec<Value>,
    pub(crate) explain: Value,
    /// What `/api/flows/stream` answers, then ends.
    pub(crate) stream: String,
    /// `METHOD /path?query` of everything asked.
    pub(crate) asked: Vec<String>,
    /// Method, path and body of everything written.
    pub(crate) writes: Vec<(String, String, Value)>,
}

impl Fake {
    /// Serves on a free port of the loopback.
    pub(crate) async fn start(data: Data) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Fake { url, data: Arc::new(Mutex::new(data)) };
        let app = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake
    }

    pub(crate) fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap()
    }
}

async fn answer(
    State(fake): State<Fake>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut data = fake.data();
    data.asked.push(format!("{method} {uri}"));
    if headers.get("authorization").is_none_or(|value| value != &format!("Token {TOKEN}")) {
        return error(StatusCode::UNAUTHORIZED, "token invalid");
    }
    let parts: Vec<&str> = uri.path().trim_start_matches("/api/").split('/').collect();
    if method == Method::GET && parts == ["events", "audit"] {
        return axum::Json(data.audit(uri.query().unwrap_or_default())).into_response();
    }
    if method == Method::GET {
        return data.get(&parts);
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    data.writes.push((method.to_string(), uri.path().to_owned(), body.clone()));
    made(&parts, body)
}

fn error(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({ "message": message, "code": status.as_u16() }))).into_response()
}

impl Data {
    /// A page of the audit trail, newest first.
    fn audit(&self, query: &str) -> Vec<Value> {
        let number = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.parse::<i64>().unwrap())
        };
        let id = |event: &Value| event["id"].as_str().unwrap().parse::<i64>().unwrap();
        let mut events = self.audit.clone();
        events.retain(|event| number("before").is_none_or(|before| id(event) < before));
        events.sort_by_key(|event| std::cmp::Reverse(id(event)));
        events.truncate(number("limit").map_or(usize::MAX, |limit| limit.try_into().unwrap()));
        events
    }

    fn get(&self, parts: &[&str]) -> Response {
        let inside = |items: &[(String, Value)], network: &str| -> Value {
            items.iter().filter(|(id, _)| id == network).map(|(_, item)| item.clone()).collect()
        };
        let found = match parts {
            ["users", "current"] => self.user.clone(),
            ["peers"] => self.peers.clone().into(),
            ["groups"] => self.groups.clone().into(),
            ["policies"] => self.policies.clone().into(),
            ["networks"] => self.networks.clone().into(),
            ["networks", id, "resources"] => inside(&self.resources, id),
            ["networks", id, "routers"] => inside(&self.routers, id),
            ["posture-checks"] => self.posture_checks.clone().into(),
            ["setup-keys"] => self.setup_keys.clone().into(),
            ["gateways"] => self.gateways.clone().into(),
            ["gateways", id] => self.gateways.iter().find(|g| g["id"] == *id).cloned().unwrap_or_default(),
            ["gateways", _, "rules"] => self.rules.clone(),
            ["explain"] => self.explain.clone(),
            ["flows", "stream"] => {
                return ([("content-type", "text/event-stream")], self.stream.clone()).into_response();
            }
            _ => Value::Null,
        };
        if found.is_null() {
            error(StatusCode::NOT_FOUND, "not found")
        } else {
            axum::Json(found).into_response()
        }
    }
}

/// Only setup keys are made one by one.
fn made(parts: &[&str], mut body: Value) -> Response {
    if *parts != ["setup-keys"] {
        return error(StatusCode::NOT_FOUND, "not found");
    }
    body["id"] = "new1".into();
    body["key"] = "0A1B2C3D-0000-4000-8000-ABCDEF012345".into();
    body["control_fingerprint"] = "5f".repeat(32).into();
    axum::Json(body).into_response()
}
