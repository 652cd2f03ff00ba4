use std::path::Path;

use reqwest::Method;
use serde_json::Value;

use crate::harness::Server;

/// Set to write the committed copy instead of comparing with it.
const UPDATE: &str = "UPDATE_OPENAPI";

#[tokio::test]
async fn the_committed_document_is_what_is_served() {
    let server = Server::start().await;
    let (status, document) = server.owner.with_authorization(None).get("/api/openapi.json").await;
    assert_eq!(status, 200);
    let served = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == served,
        "control/openapi.json is not what is served: run the test with {UPDATE}=1 and look at the difference"
    );
}

#[tokio::test]
async fn every_documented_operation_is_served_and_no_other_method_is() {
    let server = Server::start().await;
    let (_, document) = server.owner.get("/api/openapi.json").await;
    for (path, item) in document["paths"].as_object().unwrap() {
        // Health speaks plain text.
        if !path.starts_with("/api/") {
            continue;
        }
        let filled: Vec<&str> =
            path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect();
        let filled = filled.join("/");
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let documented = item.get(method.as_str().to_lowercase()).is_some();
            if documented && filled == "/api/flows/stream" {
                continue;
            }
            let (status, _) = server.owner.send(method.clone(), &filled, Some("{}".into())).await;
            assert_eq!(status != 405, documented, "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    let server = Server::start().await;
    let (_, document) = server.owner.get("/api/openapi.json").await;
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                references.push(reference.clone());
            }
            map.values().for_each(|value| collect(value, references));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
