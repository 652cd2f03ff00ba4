//! A web page of another origin that logs people in, as browsers let it.

use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sluicegate_control::identity::oidc::{Dashboard, OidcOptions};
use sluicegate_control::identity::{Identity, IdentityOptions};
use sluicegate_control::rest::cors::Origins;

use crate::harness::{Server, text};
use crate::provider::{CLIENT, Provider};

const PAGE: &str = "https://dash.example";
const LOCAL: &str = "http://[::1]:3000";

/// What a browser does with a request of a page: it asks first whether that may be, and shows the page nothing that is not for it.
struct Browser {
    client: Client,
    url: String,
    origin: &'static str,
}

impl Browser {
    fn new(server: &Server, origin: &'static str) -> Self {
        Browser { client: Client::new(), url: server.owner.url().into(), origin }
    }

    async fn preflight(&self, method: &str, path: &str) -> (u16, HeaderMap, String) {
        let request = self.client.request(Method::OPTIONS, format!("{}{path}", self.url));
        let request = request
            .header("Origin", self.origin)
            .header("Access-Control-Request-Method", method)
            .header("Access-Control-Request-Headers", "authorization,content-type");
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.headers().clone(), answer.text().await.unwrap())
    }

    /// Status and body, if the page may read them.
    async fn fetch(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Option<(u16, Value)> {
        if token.is_some() || body.is_some() {
            let (status, headers, _) = self.preflight(method.as_str(), path).await;
            let list = |name: &str| {
                let text = headers.get(name).map_or("", |value| value.to_str().unwrap()).to_lowercase();
                text.split(", ").map(str::to_owned).collect::<Vec<_>>()
            };
            let may = (200..300).contains(&status)
                && self.is_for_us(&headers)
                && list("access-control-allow-methods").contains(&method.as_str().to_lowercase())
                && ["authorization", "content-type"]
                    .iter()
                    .all(|name| list("access-control-allow-headers").iter().any(|own| own == name));
            if !may {
                return None;
            }
        }
        let mut request =
            self.client.request(method, format!("{}{path}", self.url)).header("Origin", self.origin);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.json().await.unwrap();
        self.is_for_us(&headers).then_some((status, body))
    }

    fn is_for_us(&self, headers: &HeaderMap) -> bool {
        assert!(!headers.contains_key("access-control-allow-credentials"));
        let vary = headers.get_all("vary").iter().any(|value| value.to_str().unwrap().contains("Origin"));
        assert!(vary, "an answer that is kept on the way must not reach another page: {headers:?}");
        let allowed: Vec<_> = headers.get_all("access-control-allow-origin").iter().collect();
        assert!(allowed.len() <= 1 && allowed.iter().all(|allowed| *allowed != "*"), "{allowed:?}");
        allowed.first().is_some_and(|allowed| *allowed == self.origin)
    }
}

fn identity(provider: &Provider) -> Identity {
    let redirect_uris = vec![format!("{PAGE}/auth"), crate::provider::REDIRECT.to_owned()];
    let dashboard = Some(Dashboard { client_id: None, redirect_uris });
    let oidc = Some(OidcOptions { dashboard, ..OidcOptions::new(&provider.issuer, CLIENT) });
    Identity::new(&IdentityOptions { oidc, ..IdentityOptions::default() }).unwrap()
}

async fn start(provider: &Provider) -> Server {
    let origins = Origins::parse(&[PAGE.to_owned(), LOCAL.to_owned()]).unwrap();
    Server::start_for_pages(identity(provider), origins).await
}

#[tokio::test]
async fn a_page_of_a_named_origin_logs_somebody_in_with_the_code_flow_and_works_with_the_login() {
    let provider = Provider::start();
    let server = start(&provider).await;
    provider.person("ann", json!({"name": "ann"})).await;
    let (_, accounts) = server.owner.get("/api/accounts").await;
    let mut settings = accounts[0]["settings"].clone();
    settings["extra"]["user_approval_required"] = json!(false);
    let path = format!("/api/accounts/{}", text(&accounts[0], "id"));
    assert_eq!(server.owner.put(&path, json!({ "settings": settings })).await.0, 200);

    for origin in [PAGE, LOCAL] {
        let browser = Browser::new(&server, origin);
        let (status, methods) = browser.fetch(Method::GET, "/api/login", None, None).await.unwrap();
        assert_eq!((status, &methods["oidc"]["issuer"]), (200, &json!(provider.issuer)));
        let dashboard = &methods["oidc"]["dashboard"];
        assert_eq!(dashboard["client_id"], CLIENT);
        let own: &[&str] = if origin == PAGE { &["https://dash.example/auth"] } else { &[] };
        assert_eq!(dashboard["redirect_uris"], json!(own), "a page is told where it is itself");

        let token = provider.token("ann", "mine").await;
        let word = json!({"token": token, "nonce": "mine"});
        let (status, login) = browser.fetch(Method::POST, "/api/login/oidc", None, Some(word)).await.unwrap();
        assert_eq!(status, 200, "{login}");
        let session = text(&login, "token");
        let (status, me) =
            browser.fetch(Method::GET, "/api/users/current", Some(&session), None).await.unwrap();
        assert_eq!((status, &me["name"]), (200, &json!("ann")));
        // It reads why something was refused, and is told apart from nobody.
        let (status, why) = browser.fetch(Method::GET, "/api/groups", Some(&session), None).await.unwrap();
        assert_eq!(status, 403, "{why}");
        let (status, _) = browser.fetch(Method::GET, "/api/nothing", Some(&session), None).await.unwrap();
        assert_eq!(status, 404);
        let (status, _) =
            browser.fetch(Method::POST, "/api/logout", Some(&session), Some(json!({}))).await.unwrap();
        assert_eq!(status, 200);
        let (status, _) =
            browser.fetch(Method::GET, "/api/users/current", Some(&session), None).await.unwrap();
        assert_eq!(status, 401);
    }
}

#[tokio::test]
async fn no_other_origin_reads_or_changes_anything() {
    let provider = Provider::start();
    let server = start(&provider).await;
    let token = server.owner.authorization.clone().unwrap().replace("Token ", "");
    for origin in [
        "https://evil.example",
        "http://dash.example",
        "https://dash.example:8443",
        "https://dash.example.evil.example",
        "https://DASH.example",
        "https://dash.example/",
        "null",
        "*",
        "",
    ] {
        let browser = Browser::new(&server, origin);
        assert_eq!(browser.fetch(Method::GET, "/api/login", None, None).await, None, "{origin}");
        assert_eq!(browser.fetch(Method::GET, "/api/groups", Some(&token), None).await, None, "{origin}");
        let group = json!({"name": "made"});
        assert_eq!(browser.fetch(Method::POST, "/api/groups", Some(&token), Some(group)).await, None);
        let (_, headers, body) = browser.preflight("POST", "/api/groups").await;
        assert!(!headers.contains_key("access-control-allow-methods") && body.is_empty(), "{origin}");
    }
    let (_, groups) = server.owner.get("/api/groups").await;
    assert!(!groups.to_string().contains("made"));
    // What is no browser's question is answered as ever, and who is no browser is asked nothing.
    let client = Client::new();
    let url = format!("{}/api/groups", server.owner.url());
    let plain = client.request(Method::OPTIONS, &url).header("Origin", PAGE).send().await.unwrap();
    assert_ne!(plain.status(), 204);
    assert_eq!(server.owner.get("/api/groups").await.0, 200);
}

#[tokio::test]
async fn without_named_origins_nothing_is_said_of_them() {
    let server = Server::start().await;
    let client = Client::new();
    let url = format!("{}/api/login", server.owner.url());
    let asked = client.get(&url).header("Origin", PAGE).send().await.unwrap();
    assert!(!asked.headers().keys().any(|name| name.as_str().starts_with("access-control")));
    let request = client.request(Method::OPTIONS, &url).header("Origin", PAGE);
    let asked = request.header("Access-Control-Request-Method", "GET").send().await.unwrap();
    assert_ne!(asked.status(), 204);
    let (_, methods) = server.owner.get("/api/login").await;
    assert!(methods.get("oidc").is_none());
    assert_eq!(methods["control_fingerprint"], crate::harness::FINGERPRINT);
}
