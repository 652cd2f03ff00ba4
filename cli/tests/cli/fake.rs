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
    /// Answers the n-th write (from 0) with this status and message.
    pub(crate) fail_write: Option<(usize, u16, String)>,
    pub(crate) next_id: usize,
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
    if let Some((at, status, message)) = data.fail_write.clone()
        && at == data.writes.len()
    {
        return error(StatusCode::from_u16(status).unwrap(), &message);
    }
    data.writes.push((method.to_string(), uri.path().to_owned(), body.clone()));
    data.write(&method, &parts, body)
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

    fn write(&mut self, method: &Method, parts: &[&str], mut body: Value) -> Response {
        if *method == Method::DELETE {
            if let ["policies", id] = parts {
                self.policies.retain(|policy| policy["id"] != *id);
            }
            return axum::Json(json!({})).into_response();
        }
        if *method == Method::POST {
            self.next_id += 1;
            body["id"] = format!("new{}", self.next_id).into();
        } else {
            body["id"] = parts[parts.len() - 1].into();
        }
        match parts {
            ["groups", ..] => {
                body["peers"] = named(&self.peers, &body["peers"]);
                put(&mut self.groups, body.clone());
            }
            ["networks"] => self.networks.push(body.clone()),
            ["networks", _] => put(&mut self.networks, body.clone()),
            ["networks", network, "resources", ..] => {
                body["type"] =
                    if body["address"].as_str().unwrap().contains('/') { "subnet" } else { "host" }.into();
                body["groups"] = named(&self.groups, &body["groups"]);
                put_inside(&mut self.resources, network, body.clone());
            }
            ["networks", network, "routers", ..] => put_inside(&mut self.routers, network, body.clone()),
            ["policies", ..] => {
                for (index, rule) in body["rules"].as_array_mut().unwrap().iter_mut().enumerate() {
                    if rule["id"].is_null() {
                        rule["id"] = format!("new{}r{index}", self.next_id).into();
                    }
                    for end in ["sources", "destinations"] {
                        rule[end] = named(&self.groups, &rule[end]);
                    }
                }
                put(&mut self.policies, body.clone());
            }
            ["setup-keys"] => {
                body["key"] = "0A1B2C3D-0000-4000-8000-ABCDEF012345".into();
                body["control_fingerprint"] = "5f".repeat(32).into();
            }
            _ => return error(StatusCode::NOT_FOUND, "not found"),
        }
        axum::Json(body).into_response()
    }
}

/// Ids to objects with names, as answers show them.
fn named(all: &[Value], ids: &Value) -> Value {
    let ids = ids.as_array().cloned().unwrap_or_default();
    ids.iter()
        .map(|id| {
            let name = all.iter().find(|item| item["id"] == *id).map(|item| item["name"].clone());
            json!({ "id": id, "name": name })
        })
        .collect()
}

fn put(items: &mut Vec<Value>, item: Value) {
    match items.iter_mut().find(|old| old["id"] == item["id"]) {
        Some(old) => *old = item,
        None => items.push(item),
    }
}

fn put_inside(items: &mut Vec<(String, Value)>, network: &str, item: Value) {
    match items.iter_mut().find(|(_, old)| old["id"] == item["id"]) {
        Some((_, old)) => *old = item,
        None => items.push((network.to_owned(), item)),
    }
}
