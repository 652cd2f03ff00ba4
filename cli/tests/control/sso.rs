//! `sluice login` at an identity provider that checks what the standards ask of it, and the real control behind.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Parser;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sluicegate_cli::args::{Cli, Format};
use sluicegate_cli::terminal::Terminal;
use sluicegate_control::identity::oidc::OidcOptions;
use sluicegate_control::identity::{Identity, IdentityOptions};
use tokio::sync::mpsc;

use crate::Control;
use crate::run::Ran;

type Fields = HashMap<String, String>;

struct Idp {
    issuer: String,
    key: KeyPair,
    /// What was asked for, by the code that was given for it.
    codes: Mutex<HashMap<String, Fields>>,
    /// How often the device asked, and what it will be told.
    asked: Mutex<usize>,
    device: &'static str,
}

impl Idp {
    async fn start(device: &'static str) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let idp = Arc::new(Idp {
            issuer: format!("http://{}", listener.local_addr().unwrap()),
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            codes: Mutex::default(),
            asked: Mutex::default(),
            device,
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/device", post(begin_device))
            .with_state(idp.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        idp
    }

    fn id_token(&self, nonce: Option<&String>) -> Json<Value> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({"iss": self.issuer, "aud": "sluice", "sub": "ann", "name": "Ann",
            "email": "ann@example.org", "email_verified": true, "iat": now, "exp": now + 600, "nonce": nonce});
        let header = Header { kid: Some("k".into()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(self.key.serialized_der());
        Json(json!({"id_token": encode(&header, &claims, &key).unwrap(), "token_type": "Bearer"}))
    }
}

async fn discovery(State(idp): State<Arc<Idp>>) -> Json<Value> {
    let at = |path: &str| format!("{}{path}", idp.issuer);
    let mut document = json!({"issuer": idp.issuer, "jwks_uri": at("/keys"), "token_endpoint": at("/token"),
        "authorization_endpoint": at("/authorize")});
    if !idp.device.is_empty() {
        document["device_authorization_endpoint"] = json!(at("/device"));
    }
    Json(document)
}

async fn keys(State(idp): State<Arc<Idp>>) -> Json<Value> {
    let point = idp.key.der_bytes();
    let [x, y] = [&point[1..33], &point[33..65]].map(|half| URL_SAFE_NO_PAD.encode(half));
    Json(json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "use": "sig", "x": x, "y": y}]}))
}

async fn authorize(State(idp): State<Arc<Idp>>, Query(asked): Query<Fields>) -> Redirect {
    assert_eq!((asked["client_id"].as_str(), asked["response_type"].as_str()), ("sluice", "code"));
    assert_eq!(asked["code_challenge_method"], "S256");
    assert!(asked["scope"].contains("openid") && asked["state"].len() > 20 && asked["nonce"].len() > 20);
    let back = format!("{}?code=c1&state={}", asked["redirect_uri"], asked["state"]);
    idp.codes.lock().unwrap().insert("c1".into(), asked);
    Redirect::to(&back)
}

async fn token(State(idp): State<Arc<Idp>>, Form(form): Form<Fields>) -> Response {
    let refuse = |code: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": code}))).into_response();
    if form["client_id"] != "sluice" {
        return refuse("invalid_client");
    }
    if form["grant_type"].ends_with("device_code") {
        let mut asked = idp.asked.lock().unwrap();
        *asked += 1;
        return match (*asked, idp.device) {
            (1, _) => refuse("authorization_pending"),
            (_, "yes") if form["device_code"] == "d1" => idp.id_token(None).into_response(),
            _ => refuse("access_denied"),
        };
    }
    let Some(asked) = idp.codes.lock().unwrap().remove(&form["code"]) else { return refuse("invalid_grant") };
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
    if challenge != asked["code_challenge"] || form["redirect_uri"] != asked["redirect_uri"] {
        return refuse("invalid_grant");
    }
    idp.id_token(asked.get("nonce")).into_response()
}

async fn begin_device(State(idp): State<Arc<Idp>>, Form(form): Form<Fields>) -> Json<Value> {
    assert_eq!(form["client_id"], "sluice");
    Json(
        json!({"device_code": "d1", "user_code": "WDJB-MJHT", "verification_uri": format!("{}/d", idp.issuer),
        "expires_in": 60, "interval": 0}),
    )
}

/// Remarks as they are made.
struct Remarks(mpsc::UnboundedSender<String>);

impl Write for Remarks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn control(idp: &Idp) -> Control {
    let oidc = Some(OidcOptions::new(&idp.issuer, "sluice"));
    Control::start_known(Identity::new(&IdentityOptions { oidc, ..IdentityOptions::default() }).unwrap())
        .await
}

/// Logs in; `browse` gets the address that is shown for a browser.
async fn login(control: &Control, flag: &str, browse: impl AsyncFn(String)) -> Ran {
    let config = control.shell.path("sso.toml");
    let words = ["sluice", "login", "--url", &control.url, flag, "--config", config.to_str().unwrap()];
    let cli = Cli::parse_from(words);
    let (remarks, mut seen) = mpsc::unbounded_channel();
    let mut out = Vec::new();
    let work = async {
        let mut notes = Remarks(remarks);
        let mut terminal = Terminal {
            out: &mut out,
            notes: &mut notes,
            input: &mut std::io::empty(),
            asks: false,
            colour: false,
            width: None,
            now: time::UtcDateTime::now(),
            format: Format::Table,
        };
        sluicegate_cli::run(cli, &mut terminal).await
    };
    let watch = async {
        let mut said = String::new();
        let mut browsed = false;
        while let Some(remark) = seen.recv().await {
            said += &remark;
            let address =
                said.lines().find(|line| line.trim_start().starts_with("http") && line.contains('?'));
            if let (false, Some(address)) = (browsed, address) {
                browsed = true;
                browse(address.trim().to_owned()).await;
            }
        }
        said
    };
    let (done, mut err) = tokio::join!(work, watch);
    if let Err(failure) = &done {
        err += &failure.to_string();
    }
    let code = done.err().map_or(0, |failure| failure.kind.exit_code());
    Ran { code, out: String::from_utf8(out).unwrap(), err }
}

async fn visit(url: &str) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn invite(control: &Control) {
    let body = json!({"email": "ann@example.org", "name": "Ann", "role": "admin", "auto_groups": []});
    let token = std::fs::read_to_string(control.shell.path("token")).unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("{}/api/users", control.url)).json(&body);
    let sent = request.header("Authorization", format!("Token {}", token.trim())).send().await.unwrap();
    assert_eq!(sent.status(), 200);
}

#[tokio::test]
async fn a_browser_logs_the_command_line_in_until_it_logs_out() {
    let idp = Idp::start("").await;
    let control = control(&idp).await;
    invite(&control).await;
    let ran = login(&control, "--sso", async |url| {
        // Somebody else's answer comes first, and is not taken.
        let redirect = reqwest::Url::parse(&url).unwrap();
        let redirect =
            redirect.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
        assert!(redirect.starts_with("http://127.0.0.1:"), "{redirect}");
        assert_eq!(visit(&format!("{redirect}?code=evil&state=guess")).await.0, 400);
        let (status, text) = visit(&url).await;
        assert_eq!(status, 200, "{text}");
        assert!(text.contains("logged in"), "{text}");
    })
    .await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("as Ann (admin)"), "{}", ran.out);
    let kept = std::fs::read_to_string(control.shell.path("sso.toml")).unwrap();
    assert!(kept.contains("sgs_") && !ran.err.contains("sgs_") && !ran.out.contains("sgs_"));

    std::fs::rename(control.shell.path("sso.toml"), control.shell.path("cli.toml")).unwrap();
    control.shell.bare(&["peer", "list"], "").await.ok();
    let out = control.shell.bare(&["logout"], "").await.ok();
    assert!(out.starts_with("Logged out"), "{out}");
    assert!(!control.shell.path("cli.toml").exists());
    std::fs::write(control.shell.path("cli.toml"), kept).unwrap();
    assert_eq!(control.shell.bare(&["peer", "list"], "").await.code, 3, "ended at control as well");
}

#[tokio::test]
async fn a_code_typed_elsewhere_logs_the_command_line_in() {
    let idp = Idp::start("yes").await;
    let control = control(&idp).await;
    invite(&control).await;
    let ran = login(&control, "--device", async |_| {}).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("WDJB-MJHT") && ran.out.contains("as Ann (admin)"), "{}{}", ran.err, ran.out);
    assert_eq!(*idp.asked.lock().unwrap(), 2);
}

#[tokio::test]
async fn who_is_refused_is_told_and_nothing_is_kept() {
    let idp = Idp::start("no").await;
    let control = control(&idp).await;
    let ran = login(&control, "--device", async |_| {}).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("access_denied"), "{}", ran.err);
    // The provider lets her in, and nobody here has invited her.
    let ran = login(&control, "--sso", async |url| drop(visit(&url).await)).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("approval"), "{}", ran.err);
    assert!(!control.shell.path("sso.toml").exists());

    let without = Idp::start("").await;
    let other = self::control(&without).await;
    let ran = login(&other, "--device", async |_| {}).await;
    assert!(ran.err.contains("does not know the device flow"), "{}", ran.err);
    let plain = Control::start().await;
    let ran = login(&plain, "--sso", async |_| {}).await;
    assert!(ran.err.contains("knows no identity provider"), "{}", ran.err);
}
