use serde_json::{Value, json};

use crate::harness::{Server, text};

async fn explain(server: &Server, source: &str, destination: &str, service: &str) -> Value {
    let path = format!("/api/explain?source={source}&destination={destination}&service={service}");
    let (status, answer) = server.owner.get(&path).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn explain_names_the_rule_or_what_is_missing_and_the_gateway() {
    let server = Server::start().await;
    let (_, policies) = server.owner.get("/api/policies").await;
    server.owner.delete(&format!("/api/policies/{}", text(&policies[0], "id"))).await;
    let (near, far) = (server.peer("near").await, server.peer("far").await);
    let user = server.peer("user").await;
    let network = server.network("site").await;
    let resource = server.resource(&network, "web", "10.0.0.5").await;
    for (peer, metric) in [(&near, 100), (&far, 200)] {
        let body = json!({"peer": peer.id, "metric": metric, "masquerade": true, "enabled": true});
        server.owner.created(&format!("/api/networks/{network}/routers"), body).await;
    }

    let told = explain(&server, "user", "10.0.0.5", "443/tcp").await;
    assert_eq!(
        (&told["allowed"], &told["verdict"], &told["rule"]),
        (&json!(false), &json!("no_rule"), &json!(null))
    );
    assert!(
        told["missing"].as_array().unwrap().iter().any(|fact| fact["what"] == "source_in_no_rule"),
        "{told}"
    );

    let rule = json!({"name": "https", "enabled": true, "action": "accept", "protocol": "tcp", "ports": ["443"],
        "sourceResource": {"id": user.id, "type": "peer"}, "destinationResource": {"id": resource, "type": "host"}});
    server.owner.created("/api/policies", json!({"name": "web", "enabled": true, "rules": [rule]})).await;
    let told = explain(&server, "user", "web", "443/tcp").await;
    assert_eq!((&told["allowed"], &told["rule"]["rule_name"]), (&json!(true), &json!("https")));
    assert_eq!((&told["gateway"]["name"], &told["gateway"]["metric"]), (&json!("near"), &json!(100)));
    assert_eq!(told["gateway"]["others"][0]["name"], "far");
    assert_eq!(told["judgements"].as_array().unwrap().len(), 2);

    let told = explain(&server, &user.ip.to_string(), "10.0.0.5", "80/tcp").await;
    assert_eq!(told["allowed"], false);
    assert_eq!(told["near_misses"][0]["unmet"][0]["what"], "service");
    assert_eq!(explain(&server, "nobody", "web", "icmp").await["verdict"], "unknown");
}

#[tokio::test]
async fn a_wrong_question_is_refused() {
    let server = Server::start().await;
    let path = "/api/explain?source=a&destination=b&service=";
    for service in ["tcp", "0/tcp", "quic/443", ""] {
        assert_eq!(server.owner.get(&format!("{path}{service}")).await.0, 422, "{service}");
    }
    assert_eq!(server.owner.get("/api/explain?source=a").await.0, 400);
}
