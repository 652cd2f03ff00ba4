//! An OpenID Connect provider with the device flow (RFC 8628), whose every answer the test decides; it checks what the standards ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::{Value, json};
use sluicegate_control::identity::oidc::OidcOptions;
use sluicegate_control::identity::{Identity, IdentityOptions};

/// What control is at the provider.
const CLIENT: &str = "sluice";

/// The provider; clones are the same one.
#[derive(Clone)]
pub(crate) struct Devices(Arc<Inner>);

struct Inner {
    issuer: String,
    key: KeyPair,
    said: Mutex<Said>,
}

/// What is said, and what was asked.
pub(crate) struct Said {
    /// Whether it knows the device flow.
    pub(crate) knows_devices: bool,
    /// Whether it answers at all.
    pub(crate) away: bool,
    /// Seconds between two questions, and until a code is over.
    pub(crate) times: (u64, u64),
    /// To who asks what became of a login: an error's code, or empty when `claims` are what became of it.
    pub(crate) error: &'static str,
    /// The HTTP status that the error comes with.
    pub(crate) status: u16,
    /// Whether its keys cannot be had.
    pub(crate) keyless: bool,
    /// Of the ID token.
    pub(crate) claims: Value,
    /// Logins that were begun, and which of them are done with.
    pub(crate) begun: usize,
    done: Vec<String>,
    /// When it was asked what became of one.
    pub(crate) asked: Vec<Instant>,
}

type Fields = HashMap<String, String>;

impl Devices {
    pub(crate) async fn start() -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let said = Said {
            knows_devices: true,
            away: false,
            times: (0, 600),
            error: "authorization_pending",
            status: 400,
            keyless: false,
            claims: json!({}),
            begun: 0,
            done: Vec::new(),
            asked: Vec::new(),
        };
        let devices = Devices(Arc::new(Inner {
            issuer: format!("http://{}", listener.local_addr().unwrap()),
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            said: Mutex::new(said),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/device", post(begin))
            .route("/token", post(token))
            .with_state(devices.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        devices
    }

    /// Control's view of it, where it lets machines in.
    pub(crate) fn identity(&self) -> Identity {
        self.identity_with(|oidc| oidc.machine_logins = true)
    }

    /// The same with another configuration than one that names only issuer and client.
    pub(crate) fn identity_with(&self, change: impl FnOnce(&mut OidcOptions)) -> Identity {
        let mut oidc = OidcOptions::new(&self.0.issuer, CLIENT);
        change(&mut oidc);
        Identity::new(&IdentityOptions { oidc: Some(oidc), ..IdentityOptions::default() }).unwrap()
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.0.issuer
    }

    pub(crate) fn said(&self) -> MutexGuard<'_, Said> {
        self.0.said.lock().unwrap()
    }

    /// From now on logins fail, or wait, with this code.
    pub(crate) fn answer(&self, error: &'static str) {
        self.said().error = error;
    }

    /// Somebody agrees.
    pub(crate) fn agree(&self, subject: &str) {
        self.agree_with(subject, json!({}));
    }

    /// The same, with these claims in the place of good ones.
    pub(crate) fn agree_with(&self, subject: &str, others: Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({"iss": self.0.issuer, "aud": CLIENT, "sub": subject, "name": subject,
            "email": format!("{subject}@example.org"), "email_verified": true, "iat": now, "exp": now + 600});
        for (name, value) in others.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let mut said = self.said();
        (said.error, said.claims) = ("", claims);
    }
}

async fn discovery(State(devices): State<Devices>) -> Response {
    let said = devices.said();
    if said.away {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let at = |path: &str| format!("{}{path}", devices.0.issuer);
    let mut document =
        json!({"issuer": devices.0.issuer, "jwks_uri": at("/keys"), "token_endpoint": at("/token")});
    if said.knows_devices {
        document["device_authorization_endpoint"] = json!(at("/device"));
    }
    Json(document).into_response()
}

async fn keys(State(devices): State<Devices>) -> Response {
    if devices.said().keyless {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let point = devices.0.key.der_bytes();
    let [x, y] = [&point[1..33], &point[33..65]].map(|half| URL_SAFE_NO_PAD.encode(half));
    Json(json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "use": "sig", "x": x, "y": y}]}))
        .into_response()
}

async fn begin(State(devices): State<Devices>, Form(form): Form<Fields>) -> Json<Value> {
    assert_eq!(form["client_id"], CLIENT);
    assert!(form["scope"].contains("openid"));
    let mut said = devices.said();
    said.begun += 1;
    let uri = format!("{}/activate", devices.0.issuer);
    Json(json!({"device_code": format!("device-{}", said.begun), "user_code": "WDJB-MJHT",
        "verification_uri": uri, "verification_uri_complete": format!("{uri}?user_code=WDJB-MJHT"),
        "interval": said.times.0, "expires_in": said.times.1}))
}

async fn token(State(devices): State<Devices>, Form(form): Form<Fields>) -> Response {
    let refuse = |code: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": code}))).into_response();
    assert_eq!(form["client_id"], CLIENT);
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:device_code");
    let mut said = devices.said();
    said.asked.push(Instant::now());
    if said.away {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let code = form["device_code"].clone();
    let known = (1..=said.begun).any(|number| code == format!("device-{number}"));
    // A code is good once.
    if !known || said.done.contains(&code) {
        return refuse("invalid_grant");
    }
    if !said.error.is_empty() {
        let status = StatusCode::from_u16(said.status).unwrap();
        return (status, Json(json!({"error": said.error}))).into_response();
    }
    said.done.push(code);
    let header = Header { kid: Some("k".into()), ..Header::new(Algorithm::ES256) };
    let key = EncodingKey::from_ec_der(devices.0.key.serialized_der());
    let token = encode(&header, &said.claims, &key).unwrap();
    Json(json!({"id_token": token, "access_token": "opaque", "token_type": "Bearer"})).into_response()
}
