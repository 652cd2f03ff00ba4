//! A server of its own for each test, and a client that speaks to it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sluicegate_control::agents::Agents;
use sluicegate_control::app::App;
use sluicegate_control::geo::Places;
use sluicegate_control::identity::Identity;
use sluicegate_control::rest::cors::Origins;
use sluicegate_control::rest::limits::Rates;
use sluicegate_control::rest::{self, Extra};
use sluicegate_control::store::{EnrollError, EnrolledPeer, Enrollment, Role, Store, TOKEN_FILE};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::documents::{self, Operation};
use crate::stores;

pub(crate) const FINGERPRINT: &str = "00ff";

pub(crate) struct Server {
    pub(crate) directory: TempDir,
    pub(crate) store: Store,
    pub(crate) owner: Session,
    task: JoinHandle<()>,
}

/// A client with one token, or none.
#[derive(Clone)]
pub(crate) struct Session {
    client: Client,
    url: String,
    pub(crate) authorization: Option<String>,
    /// The operations that answered 200 to a session of this server.
    pub(crate) served: Arc<Mutex<BTreeSet<Operation>>>,
}

pub(crate) type Answer = (u16, Value);

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(directory: TempDir) -> Self {
        Self::start_with(directory, Rates::default()).await
    }

    pub(crate) async fn start_without_places() -> Self {
        Self::start_as(tempfile::tempdir().unwrap(), Places::none(), Rates::default(), Identity::default())
            .await
    }

    pub(crate) async fn start_with(directory: TempDir, rates: Rates) -> Self {
        Self::start_as(directory, mapped(), rates, Identity::default()).await
    }

    pub(crate) async fn start_known(directory: TempDir, identity: Identity) -> Self {
        Self::start_as(directory, mapped(), Rates::default(), identity).await
    }

    pub(crate) async fn start_known_with(rates: Rates, identity: Identity) -> Self {
        Self::start_as(tempfile::tempdir().unwrap(), mapped(), rates, identity).await
    }

    pub(crate) async fn start_for_pages(identity: Identity, origins: Origins) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let extra = Extra { origins, ..Extra::default() };
        Self::start_extra(directory, mapped(), extra, identity).await
    }

    async fn start_as(directory: TempDir, places: Places, rates: Rates, identity: Identity) -> Self {
        Self::start_extra(directory, places, Extra { rates, ..Extra::default() }, identity).await
    }

    async fn start_extra(directory: TempDir, places: Places, extra: Extra, identity: Identity) -> Self {
        let store = stores::open(directory.path()).await.unwrap();
        let router = router(&store, places, directory.path(), extra, identity);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        let token = std::fs::read_to_string(directory.path().join(TOKEN_FILE)).unwrap();
        let owner = Session { client: Client::new(), url, authorization: None, served: Arc::default() }
            .with_token(token.trim());
        Server { directory, store, owner, task }
    }

    /// Stops serving; what is left is the data directory.
    pub(crate) async fn stop(self) -> TempDir {
        self.task.abort();
        let _ = self.task.await;
        self.store.close().await;
        self.directory
    }

    /// Runs a statement beside the store, as an earlier version might have.
    pub(crate) async fn sql(&self, text: &str) {
        let text = sqlx::AssertSqlSafe(text.to_owned());
        match stores::url(self.directory.path()) {
            None => {
                let file = self.directory.path().join("control.db");
                let options = SqliteConnectOptions::new().filename(file).foreign_keys(true);
                options.connect().await.unwrap().execute(text).await.map(drop).unwrap();
            }
            Some(url) => {
                sqlx::PgConnection::connect(&url).await.unwrap().execute(text).await.map(drop).unwrap();
            }
        }
    }

    /// A session of a new service user of this role.
    pub(crate) async fn user(&self, role: &str) -> Session {
        let body = json!({"name": role, "role": role, "is_service_user": true, "auto_groups": []});
        let user = self.owner.created("/api/users", body).await;
        let path = format!("/api/users/{}/tokens", user["id"].as_str().unwrap());
        let token = self.owner.created(&path, json!({"name": "t", "expires_in": 1})).await;
        self.owner.with_token(token["plain_token"].as_str().unwrap())
    }

    /// The text of a new setup key.
    pub(crate) async fn setup_key(&self, kind: &str, limit: i64, auto_groups: &[&str]) -> String {
        let body = json!({"name": "key", "type": kind, "expires_in": 86400, "usage_limit": limit,
            "auto_groups": auto_groups});
        text(&self.owner.created("/api/setup-keys", body).await, "key")
    }

    /// A peer enrolled with a key of its own.
    pub(crate) async fn peer(&self, hostname: &str) -> EnrolledPeer {
        let key = self.setup_key("one-off", 0, &[]).await;
        self.enroll(&key, hostname).await.unwrap()
    }

    pub(crate) async fn enroll(&self, key: &str, hostname: &str) -> Result<EnrolledPeer, EnrollError> {
        self.store.enroll(&enrollment(key, hostname)).await
    }

    pub(crate) async fn all(&self) -> String {
        let (_, groups) = self.owner.get("/api/groups?name=All").await;
        text(&groups[0], "id")
    }

    pub(crate) async fn group(&self, name: &str) -> String {
        text(&self.owner.created("/api/groups", json!({"name": name})).await, "id")
    }

    pub(crate) async fn network(&self, name: &str) -> String {
        text(&self.owner.created("/api/networks", json!({"name": name})).await, "id")
    }

    pub(crate) async fn resource(&self, network: &str, name: &str, address: &str) -> String {
        let body = json!({"name": name, "address": address, "enabled": true, "groups": []});
        text(&self.owner.created(&format!("/api/networks/{network}/resources"), body).await, "id")
    }

    /// The codes of all audit events, oldest first.
    pub(crate) async fn codes(&self) -> Vec<String> {
        let (_, events) = self.owner.get("/api/events/audit").await;
        events.as_array().unwrap().iter().rev().map(|event| text(event, "activity_code")).collect()
    }
}

impl Session {
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Session { authorization: Some(format!("Token {token}")), ..self.clone() }
    }

    pub(crate) fn with_authorization(&self, header: Option<&str>) -> Self {
        Session { authorization: header.map(str::to_owned), ..self.clone() }
    }

    /// Where the server is, without a path.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body.to_string())).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, Some(body.to_string())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    /// An answer that comes in pieces; its head must say 200.
    pub(crate) async fn stream(&self, path: &str) -> reqwest::Response {
        let request = self.client.get(format!("{}{path}", self.url));
        let authorization = self.authorization.as_deref().unwrap_or_default();
        let response = request.header("Authorization", authorization).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        response
    }

    /// A POST that must succeed.
    pub(crate) async fn created(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Sends any text; the answer must be JSON, and a refusal must repeat its status.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<String>) -> Answer {
        let answer = self.ask(method, path, &[], body).await;
        (answer.status, answer.body)
    }

    /// As [`Session::send`], with headers of its own, and those of the answer.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Whole {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.url));
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body: Value = response.json().await.unwrap();
        if status != 200 {
            assert_eq!(body["code"], status, "{body}");
            assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        }
        let operation = documents::check(&method, path, status, &body);
        if let (200, Some(operation)) = (status, operation) {
            self.served.lock().unwrap().insert(operation);
        }
        Whole { status, headers, body }
    }
}

/// An answer with its headers.
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Whole {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// With a geo database.
fn mapped() -> Places {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/geo/GeoIP2-City-Test.mmdb");
    Places::open(Path::new(file)).unwrap()
}

/// What the binary serves, over this store.
pub(crate) fn router(
    store: &Store,
    places: Places,
    directory: &Path,
    extra: Extra,
    identity: Identity,
) -> axum::Router {
    let agents = Agents::open(store.clone(), places.clone(), directory).unwrap();
    let control_fingerprint = Some(FINGERPRINT.into());
    let app = App { store: store.clone(), control_fingerprint, places, identity };
    let (protected, open) = (agents.api_routes(), agents.open_routes());
    rest::router(app, Extra { protected, open, ..extra }).0
}

/// A join with keys of its own.
pub(crate) fn enrollment(key: &str, hostname: &str) -> Enrollment {
    Enrollment {
        setup_key: key.to_owned(),
        wireguard_public_key: rand::random(),
        identity_key: rand::random(),
        role: Role::Peer,
        hostname: hostname.to_owned(),
        os: "linux".into(),
        kernel_version: "6.12.0".into(),
        version: "0.1.0".into(),
        connection_ip: None,
        dns_labels: Vec::new(),
    }
}

pub(crate) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}")).to_owned()
}

pub(crate) fn message(answer: &Answer) -> &str {
    answer.1["message"].as_str().unwrap_or_default()
}
