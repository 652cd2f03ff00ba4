use serde_json::{Value, json};
use sluicegate_control::store::{PeerFacts, Told};

use crate::harness::{Server, message, text};

const PATH: &str = "/api/posture-checks";

fn everything() -> Value {
    json!({
        "nb_version_check": {"min_version": "0.1.0"},
        "os_version_check": {"linux": {"min_kernel_version": "5.10"}, "darwin": {"min_version": "14"}},
        "geo_location_check": {"locations": [{"country_code": "DE", "city_name": "Berlin"}, {"country_code": "FR"}],
            "action": "allow"},
        "peer_network_range_check": {"ranges": ["192.0.2.0/24", "2001:db8::/32"], "action": "deny"},
        "process_check": {"processes": [{"linux_path": "/usr/sbin/clamd", "windows_path": "C:\\clamd.exe"}]},
    })
}

fn kernel(least: &str) -> Value {
    json!({"os_version_check": {"linux": {"min_kernel_version": least}}})
}

fn policy(name: &str, group: &str, checks: &[&str]) -> Value {
    json!({"name": name, "description": "", "enabled": true, "source_posture_checks": checks, "rules": [
        {"name": "r", "enabled": true, "action": "accept", "bidirectional": false, "protocol": "tcp", "ports": ["443"],
         "sources": [group], "destinations": [group]}]})
}

#[tokio::test]
async fn posture_checks_are_made_read_changed_and_deleted() {
    let server = Server::start().await;
    let (owner, checks) = (&server.owner, everything());
    assert_eq!(owner.get(PATH).await, (200, json!([])));
    let made = owner.created(PATH, json!({"name": " all ", "description": "d", "checks": checks})).await;
    let path = format!("{PATH}/{}", text(&made, "id"));
    assert_eq!((&made["name"], &made["description"], &made["checks"]), (&json!("all"), &json!("d"), &checks));
    assert_eq!(owner.get(&path).await, (200, made.clone()));
    assert_eq!(owner.get(PATH).await, (200, json!([made])));

    let change = json!({"name": "kernel", "description": "", "checks": kernel("6.1")});
    let (status, changed) = owner.put(&path, change.clone()).await;
    assert_eq!((status, &changed["checks"], &changed["id"]), (200, &kernel("6.1"), &made["id"]));
    let revision = server.store.revision().await.unwrap();
    assert_eq!(owner.put(&path, change).await, (200, changed));
    assert_eq!(server.store.revision().await.unwrap(), revision, "an identical PUT writes nothing");

    assert_eq!(owner.delete(&path).await, (200, json!({})));
    for (status, _) in [owner.get(&path).await, owner.delete(&path).await, owner.put(&path, json!({})).await]
    {
        assert_eq!(status, 404);
    }
    let codes = server.codes().await;
    let expected = ["posture.check.create", "posture.check.update", "posture.check.delete"];
    assert_eq!(codes[codes.len() - 3..], expected);
}

#[tokio::test]
async fn a_6_what_is_wrong_with_a_posture_check_is_told() {
    let server = Server::start().await;
    let owner = &server.owner;
    let made = owner.created(PATH, json!({"name": "one", "checks": kernel("6")})).await;
    owner.created(PATH, json!({"name": "two", "checks": kernel("6")})).await;
    for (body, word) in [
        (json!({"name": "", "checks": kernel("6")}), "name must not be empty"),
        (json!({"name": "x"}), "must not be empty"),
        (json!({"name": "x", "checks": {}}), "must not be empty"),
        (json!({"name": "x", "checks": null}), "must not be empty"),
        (json!({"name": "x", "checks": {"nb_version_check": {"min_version": "latest"}}}), "min_version"),
        (json!({"name": "x", "checks": kernel("six")}), "linux.min_kernel_version"),
        (
            json!({"name": "x", "checks": {"geo_location_check": {"locations": [{"country_code": "DE"}], "action": "maybe"}}}),
            "maybe",
        ),
        (
            json!({"name": "x", "checks": {"peer_network_range_check": {"ranges": ["office"], "action": "deny"}}}),
            "checks: ",
        ),
        (json!({"name": "x", "checks": {"disk_check": {"encrypted": true}}}), "disk_check"),
        (json!({"name": "x", "checks": [1]}), "checks: "),
        (json!({"name": "one", "checks": kernel("6")}), "a posture check named one already exists"),
    ] {
        let answer = owner.post(PATH, body.clone()).await;
        assert_eq!(answer.0, 422, "{body}: {answer:?}");
        assert!(message(&answer).contains(word), "{body}: {answer:?}");
    }
    let path = format!("{PATH}/{}", text(&made, "id"));
    let answer = owner.put(&path, json!({"name": "two", "checks": kernel("6")})).await;
    assert_eq!((answer.0, message(&answer)), (422, "a posture check named two already exists"));
    assert_eq!(owner.put(&path, json!({"name": "one", "checks": kernel("6")})).await.0, 200, "its own name");
    assert_eq!(owner.post(PATH, json!({"name": 1})).await.0, 400);
}

#[tokio::test]
async fn a_7_a_posture_check_in_use_is_not_deleted_and_the_policy_is_named() {
    let server = Server::start().await;
    let (owner, all) = (&server.owner, server.all().await);
    let check = text(&owner.created(PATH, json!({"name": "kernel", "checks": kernel("6")})).await, "id");
    let other = text(&owner.created(PATH, json!({"name": "other", "checks": kernel("5")})).await, "id");
    let path = format!("{PATH}/{check}");
    let made = owner.created("/api/policies", policy("web", &all, &[&other, &check, &other])).await;
    assert_eq!(made["source_posture_checks"], json!([other, check]), "each once, in order");
    let of_policy = format!("/api/policies/{}", text(&made, "id"));
    assert_eq!(owner.get(&of_policy).await.1["source_posture_checks"], json!([other, check]));
    let answer = owner.delete(&path).await;
    assert_eq!((answer.0, message(&answer)), (412, "posture check has been linked to policy: web"));

    // NetBird drops an id that it does not know, and the policy asks for less.
    for body in [policy("x", &all, &["gone"]), policy("web", &all, &[&check, "gone"])] {
        for answer in [owner.post("/api/policies", body.clone()).await, owner.put(&of_policy, body).await] {
            assert_eq!((answer.0, message(&answer)), (422, "posture check gone does not exist"));
        }
    }
    assert_eq!(
        owner.put(&of_policy, policy("web", &all, &[&other])).await.1["source_posture_checks"],
        json!([other])
    );
    assert_eq!(owner.delete(&path).await.0, 200);
    assert_eq!(owner.delete(&of_policy).await.0, 200);
    assert_eq!(owner.delete(&format!("{PATH}/{other}")).await.0, 200, "a policy that is gone links nothing");
}

#[tokio::test]
async fn a_failed_check_is_shown_on_the_peer_in_explain_and_in_an_event() {
    let server = Server::start().await;
    let (owner, all) = (&server.owner, server.all().await);
    let (_, policies) = owner.get("/api/policies").await;
    owner.delete(&format!("/api/policies/{}", text(&policies[0], "id"))).await;
    let peer = server.peer("laptop").await;
    let target = server.peer("target").await;
    let check = owner.created(PATH, json!({"name": "kernel", "checks": kernel("6.13")})).await;
    owner.created("/api/policies", policy("web", &all, &[&text(&check, "id")])).await;

    let path = format!("/api/peers/{}", peer.id);
    let reason = "its Linux kernel is of version 6.12.0, below 6.13";
    let failure = json!([{"id": check["id"], "name": "kernel", "reason": reason, "checks": ["os_version"]}]);
    assert_eq!(owner.get(&path).await.1["posture_failures"], failure);
    let (_, list) = owner.get("/api/peers").await;
    assert!(list.as_array().unwrap().iter().all(|peer| peer["posture_failures"] == failure), "{list}");
    let explain = "/api/explain?source=laptop&destination=target&service=443/tcp";
    let (_, told) = owner.get(explain).await;
    assert_eq!(told["allowed"], json!(false));
    let unmet = &told["near_misses"][0]["unmet"][0];
    assert_eq!(unmet["what"], "posture_failed");
    assert!(text(unmet, "sentence").ends_with(&format!("of its policy: kernel: {reason}")), "{unmet}");

    for peer in [&peer.id, &target.id] {
        let system = PeerFacts { kernel_version: "6.13.1-1-amd64".into(), ..PeerFacts::default() };
        let turns = server.store.note_facts(peer, &Told { system, ..Told::default() }).await.unwrap();
        assert_eq!((turns.len(), turns[0].verdict.passed()), (1, true));
    }
    assert_eq!(owner.get(&path).await.1["posture_failures"], json!([]));
    assert_eq!(owner.get(explain).await.1["allowed"], json!(true));
    // NetBird has no such code, so its document has none either.
    let events = server.store.events().await.unwrap();
    let event = events.iter().find(|event| event.target_id == peer.id).unwrap();
    assert_eq!(event.code, "peer.posture.pass");
    assert_eq!((event.meta["posture_check"].as_str(), event.meta["before"].as_str()), ("kernel", reason));

    // Who is in no source is asked for nothing.
    let group = server.group("nobody").await;
    let (_, policies) = owner.get("/api/policies").await;
    let policy_path = format!("/api/policies/{}", text(&policies[0], "id"));
    owner
        .put(&format!("{PATH}/{}", text(&check, "id")), json!({"name": "kernel", "checks": kernel("7")}))
        .await;
    assert_ne!(owner.get(&path).await.1["posture_failures"], json!([]));
    owner.put(&policy_path, policy("web", &group, &[&text(&check, "id")])).await;
    assert_eq!(owner.get(&path).await.1["posture_failures"], json!([]));
}

#[tokio::test]
async fn places_are_those_of_the_database() {
    let server = Server::start().await;
    let (status, countries) = server.owner.get("/api/locations/countries").await;
    assert_eq!(status, 200);
    let countries = countries.as_array().unwrap();
    assert!(
        countries.contains(&json!({"country_name": "United Kingdom", "country_code": "GB"})),
        "{countries:?}"
    );
    assert!(countries.is_sorted_by_key(|country| text(country, "country_name")));
    for country in ["GB", "gb"] {
        let (status, cities) = server.owner.get(&format!("/api/locations/countries/{country}/cities")).await;
        let expected = json!([{"geoname_id": 2655045, "city_name": "Boxford"}, {"geoname_id": 2643743, "city_name": "London"}]);
        assert_eq!((status, cities), (200, expected));
    }
    assert_eq!(server.owner.get("/api/locations/countries/ZZ/cities").await, (200, json!([])));
    let answer = server.owner.get("/api/locations/countries/GBR/cities").await;
    assert_eq!((answer.0, message(&answer).contains("two letters")), (422, true), "{answer:?}");
}

#[tokio::test]
async fn without_a_database_a_place_cannot_be_asked_for() {
    let server = Server::start_without_places().await;
    let owner = &server.owner;
    let place = json!({"geo_location_check": {"locations": [{"country_code": "DE"}], "action": "deny"}});
    let made = owner.created(PATH, json!({"name": "x", "checks": kernel("6")})).await;
    let path = format!("{PATH}/{}", text(&made, "id"));
    for answer in [
        owner.get("/api/locations/countries").await,
        owner.get("/api/locations/countries/DE/cities").await,
        owner.post(PATH, json!({"name": "place", "checks": place})).await,
        owner.put(&path, json!({"name": "x", "checks": place})).await,
    ] {
        assert_eq!(answer.0, 412, "{answer:?}");
        assert!(message(&answer).starts_with("geo location database is not initialized"), "{answer:?}");
    }
}
