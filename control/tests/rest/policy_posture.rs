//! Posture checks in policy files.

use serde_json::{Value, json};
use sluicegate_control::store::{Actor, PeerFacts, RevisionKind, Told};
use sluicegate_policy::file::parse;

use crate::harness::{Server, message, text};
use crate::policy_file::{apply, everything, site, three_tier};

/// The three-tier file with a check of the agent's version that its users must pass.
fn checked(least: &str) -> String {
    let named = three_tier().replace(
        "    description: Everybody who works here\n",
        "    description: Everybody who works here\n    posture_checks: [fresh]\n",
    );
    let section = format!("posture_checks:\n  - name: fresh\n    client_version: '{least}'\n");
    // The pair of tests says who may, with every posture check passed.
    format!("{section}{named}")
}

async fn report(server: &Server, peer: &str, version: &str, address: &str) {
    let peers = server.store.peers(None, None).await.unwrap();
    let id = &peers.iter().find(|known| known.name == peer).unwrap().id;
    let system = PeerFacts { version: version.into(), os: "linux".into(), ..PeerFacts::default() };
    let addresses = Some(vec![address.parse().unwrap()]);
    server.store.note_facts(id, &Told { system, addresses, ..Told::default() }).await.unwrap();
}

async fn plan(server: &Server, file: &str) -> Value {
    server.owner.created("/api/policy-file/plan", json!({ "file": file })).await
}

fn pairs(plan: &Value) -> (u64, u64) {
    let of = |side: &str| plan["reach"][side]["pairs"].as_u64().unwrap();
    (of("opened"), of("closed"))
}

#[tokio::test]
async fn a_plan_judges_machines_by_the_definitions_to_be() {
    let server = site().await;
    report(&server, "alice", "0.3.0", "192.0.2.1/24").await;
    report(&server, "bob", "0.1.0", "192.0.2.2/24").await;
    apply(&server, &three_tier()).await;
    let before = everything(&server).await;

    // Bob loses one address of each family; the tests take every check as passed.
    let asked = plan(&server, &checked("0.2.0")).await;
    assert_eq!(pairs(&asked), (0, 2), "{asked}");
    assert_eq!(
        asked["changes"][0],
        json!({"action": "create", "kind": "posture", "name": "fresh", "network": null, "changes": []})
    );
    assert_eq!(asked["changes"][1]["changes"], json!(["posture checks: +fresh"]));
    let why = "the agent is of version 0.1.0, below 0.2.0";
    assert_eq!(
        asked["posture"],
        json!({"failing": 1, "fails": [{"peer": "bob", "check": "fresh", "why": why}], "passing": 0, "passes": []})
    );
    assert!(asked["tests"].as_array().unwrap().iter().all(|test| test["holds"] == true), "{asked}");
    assert_eq!(everything(&server).await, before, "a plan writes nothing");

    let applied = apply(&server, &checked("0.2.0")).await;
    assert_eq!(pairs(&applied["plan"]), (0, 2));
    let explain = "/api/explain?source=bob&destination=10.20.0.10&service=443/tcp";
    assert_eq!(server.owner.get(explain).await.1["allowed"], json!(false));

    // A definition alone moves machines, by what they said last.
    let eased = plan(&server, &checked("0.1")).await;
    assert_eq!((pairs(&eased), &eased["posture"]["passes"][0]["why"]), ((2, 0), &json!(why)), "{eased}");
    assert_eq!(
        eased["changes"],
        json!([{"action": "update", "kind": "posture", "name": "fresh", "network": null,
            "changes": ["client version: 0.2.0 or later -> 0.1 or later"]}])
    );
    assert_eq!(eased["gateways"].as_array().unwrap().len(), 2, "their images change with who passes");
    let ranged =
        checked("0.1").replace("client_version: '0.1'", "network_range: {deny: [192.0.2.0/31, fd00::/8]}");
    let ranged = plan(&server, &ranged).await;
    assert_eq!(pairs(&ranged), (2, 2), "alice goes and bob comes: {ranged}");
    report(&server, "bob", "0.1.0", "fd00::2/64").await;
    let ranged = checked("0.1").replace("client_version: '0.1'", "network_range: {deny: 'fd00::/8'}");
    let ranged = plan(&server, &ranged).await;
    assert_eq!(pairs(&ranged), (0, 0), "bob fails by an IPv6 address as well: {ranged}");
    assert_eq!(ranged["posture"]["failing"], 0, "{ranged}");
}

#[tokio::test]
async fn an_edit_of_a_posture_check_by_the_api_is_noticed() {
    let server = site().await;
    apply(&server, &checked("0.2.0")).await;
    let wanted = checked("0.2.0").replace("tcp/443", "tcp/8443");
    let version = text(&plan(&server, &wanted).await, "version");
    let (_, checks) = server.owner.get("/api/posture-checks").await;
    let path = format!("/api/posture-checks/{}", text(&checks[0], "id"));
    let eased = json!({"name": "fresh", "checks": {"nb_version_check": {"min_version": "0.0.1"}}});
    assert_eq!(server.owner.put(&path, eased).await.0, 200);
    let body = json!({ "file": wanted, "expected_version": version });
    let before = everything(&server).await;
    let refused = server.owner.post("/api/policy-file/apply", body).await;
    assert_eq!((refused.0, message(&refused).contains("plan again")), (412, true), "{refused:?}");
    assert_eq!(everything(&server).await, before);
    // The file has it otherwise than somebody made it: that is shown, and put right.
    let again = plan(&server, &wanted).await;
    assert_eq!(again["changes"][0]["changes"], json!(["client version: 0.0.1 or later -> 0.2.0 or later"]));
}

#[tokio::test]
async fn definitions_are_exported_kept_and_brought_back() {
    let server = site().await;
    let whole = "posture_checks:
  - name: whole
    description: 'all of it: at once'
    client_version: 0.2.0
    os_version: {linux: 6.1, windows: 10.0.19045}
    geo_location: {allow: [NO, DE/Berlin]}
    network_range: {deny: [192.0.2.0/24, 'fd00::/8']}
    processes:
      - {linux_path: /usr/bin/clamd, windows_path: 'C:\\clamd.exe'}
  - name: other
    geo_location: {deny: US}
";
    let first = apply(&server, whole).await;
    assert_eq!(first["revision"], 2);
    let exported = everything(&server).await.0;
    let (had, has) = (parse(whole).unwrap(), parse(&exported).unwrap());
    let of = |file: &sluicegate_policy::file::PolicyFile, name: &str| {
        let checks = file.posture_checks.clone().unwrap();
        checks.into_iter().find(|check| check.name == name).unwrap().checks
    };
    for name in ["whole", "other"] {
        assert_eq!(of(&had, name), of(&has, name), "{exported}");
    }
    assert_eq!(apply(&server, &exported).await["revision"], Value::Null, "{exported}");

    let changed = exported.replace("192.0.2.0/24", "198.51.100.0/24").replace("6.1", "6.6");
    let changed = apply(&server, &changed).await;
    assert_eq!(
        changed["plan"]["changes"][0]["changes"],
        json!([
            "os version: linux 6.1, windows 10.0.19045 or later -> linux 6.6, windows 10.0.19045 or later",
            "network range deny: +198.51.100.0/24 -192.0.2.0/24",
        ])
    );
    // Deleted with what policy files are about, and back with the revision; events tell of each.
    let body = json!({ "file": "posture_checks: []", "prune": "everything" });
    let gone = server.owner.created("/api/policy-file/apply", body).await;
    let deleted = |name: &str| json!({"action": "delete", "kind": "posture", "name": name, "network": null, "changes": []});
    let changes = gone["plan"]["changes"].as_array().unwrap();
    assert!(changes.contains(&deleted("other")) && changes.contains(&deleted("whole")), "{gone}");
    assert_eq!(server.owner.get("/api/posture-checks").await.1, json!([]));
    let back = server.owner.created("/api/policy-file/rollback", json!({ "revision": 2 })).await;
    assert_eq!(back["plan"]["changes"].as_array().unwrap().len(), 2, "{back}");
    assert_eq!(everything(&server).await.0, exported);
    let events = server.store.events().await.unwrap();
    let codes: Vec<&str> = events.iter().map(|event| event.code.as_str()).collect();
    let count = |code: &str| codes.iter().filter(|known| **known == code).count();
    assert_eq!(
        ["create", "update", "delete"].map(|word| count(&format!("posture.check.{word}"))),
        [4, 1, 2],
        "{codes:?}"
    );
}

#[tokio::test]
async fn a_file_that_says_nothing_of_posture_checks_leaves_them() {
    let server = site().await;
    apply(&server, &checked("0.2.0")).await;
    // As a file or a revision from before there were posture checks in them.
    let body = json!({ "file": three_tier(), "prune": "everything" });
    let applied = server.owner.created("/api/policy-file/apply", body).await;
    assert_eq!(applied["plan"]["changes"], json!([]), "{applied}");
    let old = everything(&server).await.0;
    let section = old.find("posture_checks:\n").unwrap();
    let next = section + old[section..].find("\n\n").unwrap() + 2;
    let old = format!("{}{}", &old[..section], &old[next..]);
    assert_eq!(parse(&old).unwrap().posture_checks, None, "{old}");
    let number =
        server.store.keep_policy_revision(&Actor::system(), RevisionKind::Apply, "", &old).await.unwrap();
    let rolled = server.owner.created("/api/policy-file/rollback", json!({ "revision": number })).await;
    assert_eq!(rolled["plan"]["changes"], json!([]), "{rolled}");
    let warning = format!(
        "revision {number} does not say what posture checks asked for: their definitions stay as they are"
    );
    assert_eq!(rolled["plan"]["warnings"], json!([warning]));

    // One that a policy still asks for, as the file leaves that, stays, and that is said.
    let body = json!({ "file": format!("posture_checks: []\n{}", three_tier()), "prune": "everything" });
    let kept = server.owner.created("/api/policy-file/apply", body).await;
    let warning = "posture check 'fresh' stays: policy 'web for users' asks for it";
    assert_eq!(kept["plan"]["warnings"], json!([warning]), "{kept}");
    assert!(everything(&server).await.0.contains("posture_checks: [fresh]"));
    // And where no policy asks for it any more, it goes with the rest.
    let file = checked("0.2.0").replace("posture_checks: [fresh]", "posture_checks: []");
    let section = file.find("groups:").unwrap_or_default();
    let rest = file.find("# Three tiers").unwrap_or(section);
    let body = json!({ "file": format!("posture_checks: []\n{}", &file[rest..]), "prune": "everything" });
    server.owner.created("/api/policy-file/apply", body).await;
    assert_eq!(server.owner.get("/api/posture-checks").await.1, json!([]));
}

#[tokio::test]
async fn definitions_that_cannot_be_are_refused_with_their_place() {
    let server = Server::start_without_places().await;
    let asked = "posture_checks:\n  - name: near\n    geo_location: {allow: DE}\n";
    for verb in ["plan", "apply"] {
        let (status, refused) =
            server.owner.post(&format!("/api/policy-file/{verb}"), json!({ "file": asked })).await;
        assert_eq!(status, 422, "{refused}");
        let problem = &refused["problems"][0];
        assert_eq!((&problem["line"], &problem["column"]), (&json!(3), &json!(5)), "{refused}");
        assert!(text(problem, "message").contains("geo location database is not initialized"), "{refused}");
    }
    let broken = "posture_checks:\n  - name: old\n    client_version: soon\n";
    let (status, refused) = server.owner.post("/api/policy-file/apply", json!({ "file": broken })).await;
    assert_eq!(
        (status, &refused["problems"][0]["line"], &refused["problems"][0]["column"]),
        (422, &json!(3), &json!(21))
    );
    let unknown = "posture_checks:\n  - {name: old, client_version: '1'}\npolicies:\n  - name: p\n    posture_checks: [olde]\n    rules: [{from: All, to: All, service: all}]\n";
    let (status, refused) = server.owner.post("/api/policy-file/apply", json!({ "file": unknown })).await;
    assert_eq!(status, 422);
    assert_eq!(
        refused["problems"][0]["message"],
        "there is no posture check `olde` (did you mean `old`?): list it under `posture_checks`"
    );
    assert_eq!(server.owner.get("/api/posture-checks").await.1, json!([]));
}
