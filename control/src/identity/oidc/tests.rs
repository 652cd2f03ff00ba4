use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::{Value, json};
use std::sync::Mutex;
use tokio::net::TcpListener;

use super::*;
use crate::ids::now;

/// A provider whose every answer the test decides.
struct Idp {
    issuer: String,
    state: Arc<Served>,
}

#[derive(Default)]
struct Served {
    issuer: Mutex<String>,
    keys: Mutex<Vec<Value>>,
    fetches: AtomicUsize,
    discoveries: AtomicUsize,
    /// Whether requests are taken and never answered.
    silent: AtomicBool,
}

struct Key {
    id: &'static str,
    pair: KeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        Key { id, pair: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap() }
    }

    fn jwk(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.pair.der_bytes();
        let [x, y] = [&point[1..33], &point[33..65]].map(|half| URL_SAFE_NO_PAD.encode(half));
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "alg": "ES256", "x": x, "y": y})
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.into()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &EncodingKey::from_ec_der(self.pair.serialized_der())).unwrap()
    }
}

impl Idp {
    async fn start(keys: &[&Key]) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Served::default());
        issuer.clone_into(&mut state.issuer.lock().unwrap());
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(serve_keys))
            .with_state(state.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        let idp = Idp { issuer, state };
        idp.publish(keys);
        idp
    }

    fn publish(&self, keys: &[&Key]) {
        *self.state.keys.lock().unwrap() = keys.iter().map(|key| key.jwk()).collect();
    }

    fn provider(&self) -> Provider {
        Provider::new(OidcOptions::new(&self.issuer, "sluice")).unwrap()
    }

    fn claims(&self) -> Value {
        let now = now() / 1000;
        json!({"iss": self.issuer, "aud": "sluice", "sub": "u1", "iat": now, "exp": now + 600})
    }

    fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::SeqCst)
    }
}

async fn discovery(State(state): State<Arc<Served>>) -> Json<Value> {
    state.discoveries.fetch_add(1, Ordering::SeqCst);
    if state.silent.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let issuer = state.issuer.lock().unwrap().clone();
    Json(json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}))
}

async fn serve_keys(State(state): State<Arc<Served>>) -> Json<Value> {
    state.fetches.fetch_add(1, Ordering::SeqCst);
    Json(json!({"keys": *state.keys.lock().unwrap()}))
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!(
        "{}.{}.{}",
        part(header.to_string().as_bytes()),
        part(claims.to_string().as_bytes()),
        part(signature)
    )
}

#[tokio::test]
async fn a_token_of_the_provider_is_accepted_and_every_other_is_refused() {
    let (key, foreign) = (Key::new("one"), Key::new("one"));
    let idp = Idp::start(&[&key]).await;
    let (provider, good) = (idp.provider(), idp.claims());
    assert_eq!(provider.verify(&key.sign(&good)).await.unwrap().person.subject, "u1");
    let several = with(good.clone(), "aud", json!(["other", "sluice"]));
    let party = |claims: &Value, name: &str, party: Value| key.sign(&with(claims.clone(), name, party));
    for ours in [
        party(&several, "azp", json!("sluice")),
        party(&several, "client_id", json!("sluice")),
        party(&good, "azp", json!("sluice")),
    ] {
        provider.verify(&ours).await.unwrap();
    }
    let options = OidcOptions { audience: vec!["api".into(), "dash".into()], ..provider.options().clone() };
    let of_two = Provider::new(options).unwrap();
    let api = with(good.clone(), "aud", json!(["api", "userinfo"]));
    for (client, accepted) in [("sluice", true), ("dash", true), ("other", false)] {
        assert_eq!(of_two.verify(&party(&api, "azp", json!(client))).await.is_ok(), accepted, "{client}");
    }

    let now = now() / 1000;
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        key.sign(&claims)
    };
    let signed = |name: &str, value: Value| key.sign(&with(good.clone(), name, value));
    let mut cut = key.sign(&good);
    cut.truncate(cut.len() - 4);
    let (header, rest) = cut.split_once('.').unwrap();
    let headless = format!("{header}x.{rest}");
    let wrong = [
        ("another issuer", signed("iss", json!("https://evil.example"))),
        ("another audience", signed("aud", json!("other"))),
        ("several audiences and no party", key.sign(&several)),
        ("several audiences, for another client", party(&several, "azp", json!("other"))),
        ("several audiences, of another client", party(&several, "client_id", json!("other"))),
        ("one audience, for another client", signed("azp", json!("other"))),
        ("a party that is no text", signed("azp", json!(["sluice"]))),
        ("expired", signed("exp", json!(now - 61))),
        ("in force later", signed("nbf", json!(now + 120))),
        ("a logout token", signed("events", json!({}))),
        ("no expiry", without("exp")),
        ("no audience", without("aud")),
        ("no issuer", without("iss")),
        ("nobody", without("sub")),
        ("an empty subject", signed("sub", json!(""))),
        ("a foreign key of that id", foreign.sign(&good)),
        ("cut", cut.clone()),
        ("broken header", headless),
        ("no token", "x".into()),
        ("empty", String::new()),
        ("too long", "a".repeat(TOKEN_MAX + 1)),
    ];
    for (what, token) in wrong {
        assert!(provider.verify(&token).await.is_err(), "{what}");
    }
    // A clock may be a minute away.
    provider.verify(&signed("exp", json!(now - 30))).await.unwrap();
    provider.verify(&signed("nbf", json!(now + 30))).await.unwrap();
}

#[tokio::test]
async fn no_signature_and_one_with_the_public_key_as_secret_are_refused() {
    let key = Key::new("one");
    let idp = Idp::start(&[&key]).await;
    let (provider, claims) = (idp.provider(), idp.claims());
    for none in ["none", "None", "NONE", "nOnE"] {
        let token = forged(&json!({"alg": none, "kid": "one"}), &claims, b"");
        assert!(matches!(provider.verify(&token).await, Err(TokenError::Malformed)), "{none}");
    }
    let secrets = [key.pair.der_bytes().to_vec(), key.pair.public_key_pem().into_bytes()];
    for secret in secrets {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = Header { kid: Some("one".into()), ..Header::new(algorithm) };
            let token = encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap();
            assert!(matches!(provider.verify(&token).await, Err(TokenError::Algorithm)));
        }
    }
    // A key that comes with the token is not looked at, and neither is one that the token names.
    let own = Key::new("own");
    let mut header = json!({"alg": "ES256", "jwk": own.jwk(), "jku": format!("{}/keys", idp.issuer)});
    let token = own.sign(&claims);
    let signature = URL_SAFE_NO_PAD.decode(token.rsplit('.').next().unwrap()).unwrap();
    assert!(provider.verify(&forged(&header, &claims, &signature)).await.is_err());
    header["kid"] = json!("own");
    assert!(provider.verify(&forged(&header, &claims, &signature)).await.is_err());
    assert_eq!(idp.fetches(), 1);
}

#[tokio::test]
async fn a_shared_secret_or_an_encryption_key_among_the_published_ones_is_none() {
    let key = Key::new("one");
    let idp = Idp::start(&[&key]).await;
    let mut encryption = key.jwk();
    encryption["use"] = json!("enc");
    let secret = json!({"kty": "oct", "kid": "two", "k": URL_SAFE_NO_PAD.encode(b"secret")});
    let unknown = json!({"kty": "LATTICE", "kid": "three"});
    *idp.state.keys.lock().unwrap() = vec![unknown, secret, encryption];
    let provider = idp.provider();
    assert!(matches!(provider.verify(&key.sign(&idp.claims())).await, Err(TokenError::UnknownKey)));
}

#[tokio::test]
async fn new_keys_are_fetched_once_for_many_unknown_ids_and_withdrawn_ones_are_forgotten() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let idp = Idp::start(&[&old]).await;
    let provider = idp.provider();
    provider.verify(&old.sign(&idp.claims())).await.unwrap();
    idp.publish(&[&new]);
    // Just fetched: whoever makes up ids does not make us ask again.
    for _ in 0..20 {
        assert!(matches!(provider.verify(&new.sign(&idp.claims())).await, Err(TokenError::UnknownKey)));
    }
    assert_eq!(idp.fetches(), 1);
    provider.verify(&old.sign(&idp.claims())).await.unwrap();

    tokio::time::pause();
    tokio::time::advance(keys::GAP).await;
    tokio::time::resume();
    provider.verify(&new.sign(&idp.claims())).await.unwrap();
    assert!(matches!(provider.verify(&old.sign(&idp.claims())).await, Err(TokenError::UnknownKey)));
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn kept_keys_bridge_an_outage_and_end_with_a_day() {
    let key = Key::new("one");
    let idp = Idp::start(&[&key]).await;
    let provider = idp.provider();
    let token = key.sign(&with(idp.claims(), "exp", json!(now() / 1000 + 600)));
    provider.verify(&token).await.unwrap();
    // What it says no longer fits: as good as away.
    "http://127.0.0.1:1".clone_into(&mut idp.state.issuer.lock().unwrap());
    tokio::time::pause();
    tokio::time::advance(keys::FRESH).await;
    tokio::time::resume();
    provider.verify(&token).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(keys::STALE).await;
    tokio::time::resume();
    assert!(matches!(provider.verify(&token).await, Err(TokenError::Unavailable(_))));
}

#[tokio::test]
async fn a_provider_that_never_answers_keeps_nobody_waiting_whose_key_is_known() {
    let (key, other) = (Key::new("one"), Key::new("other"));
    let idp = Idp::start(&[&key]).await;
    // Far longer than this test waits for anything.
    let timeout = Duration::from_secs(3600);
    let provider = Provider::with_timeout(OidcOptions::new(&idp.issuer, "sluice"), timeout).unwrap();
    let token = key.sign(&idp.claims());
    provider.verify(&token).await.unwrap();
    idp.state.silent.store(true, Ordering::SeqCst);
    tokio::time::pause();
    tokio::time::advance(keys::FRESH).await;
    tokio::time::resume();
    for _ in 0..3 {
        tokio::time::timeout(Duration::from_secs(60), provider.verify(&token)).await.unwrap().unwrap();
    }

    // An attempt counts from its end: after one that took longer than the gap, nobody waits for another at once. The clock goes on
    // when everybody waits.
    let timeout = keys::GAP * 2;
    let provider = Provider::with_timeout(OidcOptions::new(&idp.issuer, "sluice"), timeout).unwrap();
    tokio::time::pause();
    let unknown = other.sign(&idp.claims());
    assert!(matches!(provider.verify(&unknown).await, Err(TokenError::Unavailable(_))));
    let start = tokio::time::Instant::now();
    assert!(matches!(provider.verify(&unknown).await, Err(TokenError::Unavailable(_))));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_provider_that_calls_itself_otherwise_is_not_trusted() {
    let key = Key::new("one");
    let idp = Idp::start(&[&key]).await;
    "https://evil.example".clone_into(&mut idp.state.issuer.lock().unwrap());
    let error = idp.provider().verify(&key.sign(&idp.claims())).await.unwrap_err();
    assert!(matches!(&error, TokenError::Unavailable(why) if why.contains("evil.example")), "{error}");
    let said = error.to_string();
    assert!(!said.contains("evil.example") && !said.contains("127.0.0.1"), "strangers read this: {said}");
    assert_eq!(idp.fetches(), 0);
}

#[tokio::test]
async fn a_token_without_key_id_needs_the_only_key() {
    let (one, two) = (Key::new("one"), Key::new("two"));
    let idp = Idp::start(&[&one]).await;
    let claims = idp.claims();
    let header = Header::new(Algorithm::ES256);
    let token = encode(&header, &claims, &EncodingKey::from_ec_der(one.pair.serialized_der())).unwrap();
    idp.provider().verify(&token).await.unwrap();
    idp.publish(&[&one, &two]);
    assert!(matches!(idp.provider().verify(&token).await, Err(TokenError::UnknownKey)));
}

#[tokio::test]
async fn logins_of_machines_that_begin_together_ask_a_provider_that_fails_once_and_again_after_a_while() {
    let idp = Idp::start(&[]).await;
    "https://another.example".clone_into(&mut idp.state.issuer.lock().unwrap());
    let provider = Arc::new(idp.provider());
    let discoveries = || idp.state.discoveries.load(Ordering::SeqCst);
    let begin = || {
        let provider = provider.clone();
        tokio::spawn(async move { provider.begin_device().await })
    };
    let begun: Vec<_> = (0..10).map(|_| begin()).collect();
    for one in begun {
        assert!(one.await.unwrap().unwrap_err().contains("another.example"));
    }
    assert_eq!(discoveries(), 1);
    idp.issuer.clone_into(&mut idp.state.issuer.lock().unwrap());
    begin().await.unwrap().unwrap_err();
    assert_eq!(discoveries(), 1, "not right after it failed");
    tokio::time::pause();
    tokio::time::advance(keys::GAP).await;
    tokio::time::resume();
    assert!(begin().await.unwrap().unwrap().is_none(), "this one knows no such flow");
    assert_eq!(discoveries(), 2);

    // Whatever strangers do, the provider is asked no more often than that in all.
    let mut refused = 0;
    for _ in 0..100 {
        refused += usize::from(begin().await.unwrap().is_err_and(|why| why.contains("too many")));
    }
    assert!((30..=62).contains(&refused), "{refused}");
}

#[tokio::test]
async fn a_machine_does_not_wait_long_for_a_provider_that_never_answers() {
    let idp = Idp::start(&[]).await;
    idp.state.silent.store(true, Ordering::SeqCst);
    let provider = idp.provider();
    let start = std::time::Instant::now();
    provider.begin_device().await.unwrap_err();
    provider.begin_device().await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}
