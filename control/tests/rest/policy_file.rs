use reqwest::Method;
use serde_json::{Value, json};
use sluicegate_control::ids::now;
use sluicegate_control::store::{Actor, RevisionKind, Role};
use sluicegate_policy::file::{THREE_TIER, parse};

use crate::harness::{Server, enrollment, message, text};

/// What the three-tier file must be able to do, and must not.
const TESTS: &str = "
tests:
  - name: users reach the web server, and nothing else
    from: [engineering, contractors]
    may_reach: ['resource:web-server tcp/443', 'resource:web-server-v6 tcp/443', '10.20.0.10 tcp/443']
    may_not_reach: ['database all', 'resource:web-server tcp/22', 'fd20::10 udp']
  - name: nobody reaches the database
    from: All
    may_not_reach: ['resource:database-server all']
";

pub(crate) fn three_tier() -> String {
    format!("{THREE_TIER}{TESTS}")
}

/// A server with the machines of the three-tier example, and no policy.
pub(crate) async fn site() -> Server {
    let server = Server::start().await;
    let key = server.setup_key("reusable", 0, &[]).await;
    for name in ["alice", "bob", "probe", "gateway-1", "gateway-2"] {
        let role = if name.starts_with("gateway") { Role::Gateway } else { Role::Peer };
        server
            .store
            .enroll(&sluicegate_control::store::Enrollment { role, ..enrollment(&key, name) })
            .await
            .unwrap();
    }
    let (_, policies) = server.owner.get("/api/policies").await;
    server.owner.delete(&format!("/api/policies/{}", text(&policies[0], "id"))).await;
    server
}

/// Everything a file is about, as the API shows it, and how often the account was changed.
pub(crate) async fn everything(server: &Server) -> (String, u64) {
    let export = server.owner.get("/api/policy-file").await.1;
    (text(&export, "file"), server.store.revision().await.unwrap())
}

/// Codes of audit events, oldest first. Not by the API: some are none of NetBird's, whose document is held against its answers.
async fn codes(server: &Server) -> Vec<String> {
    server.store.events().await.unwrap().into_iter().rev().map(|event| event.code).collect()
}

pub(crate) async fn apply(server: &Server, file: &str) -> Value {
    server.owner.created("/api/policy-file/apply", json!({ "file": file })).await
}

#[tokio::test]
async fn a_plan_says_what_opens_and_for_whom_and_writes_nothing() {
    let server = site().await;
    let before = everything(&server).await;
    let plan = server.owner.created("/api/policy-file/plan", json!({ "file": three_tier() })).await;
    assert_eq!(everything(&server).await, before);
    assert_eq!((plan["changes"].as_array().unwrap().len(), &plan["unchanged"]), (17, &json!(0)), "{plan}");
    assert_eq!(
        (&plan["changes"][16]["action"], &plan["changes"][16]["kind"]),
        (&json!("create"), &json!("test"))
    );
    // Two users to one address of each family; the probe to three addresses.
    assert_eq!(
        (&plan["reach"]["opened"]["pairs"], &plan["reach"]["closed"]["pairs"]),
        (&json!(7), &json!(0)),
        "{plan}"
    );
    let first = &plan["reach"]["opened"]["examples"][0];
    assert_eq!(
        first,
        &json!({"source": "alice", "destination": "web-server", "address": "10.20.0.10", "service": "tcp/443"})
    );
    let gateways = plan["gateways"].as_array().unwrap();
    assert_eq!(gateways.len(), 2);
    assert_eq!(gateways[0]["name"], "gateway-1");
    assert_eq!(gateways[0]["rules_added"], json!(["metrics for monitoring/scrape", "web for users"]));
    assert_eq!(gateways[1]["routes_added"].as_array().unwrap().len(), 4);
    assert_eq!(plan["peers"], 3);
    assert!(plan["tests"].as_array().unwrap().iter().all(|test| test["holds"] == true), "{plan}");

    // One who may read may ask, and may not apply.
    let auditor = server.user("auditor").await;
    assert_eq!(auditor.post("/api/policy-file/plan", json!({ "file": THREE_TIER })).await.0, 200);
    assert_eq!(auditor.post("/api/policy-file/apply", json!({ "file": THREE_TIER })).await.0, 403);
}

#[tokio::test]
async fn a_file_is_applied_once_and_what_is_exported_is_what_was_applied() {
    let server = site().await;
    let applied = apply(&server, &three_tier()).await;
    assert_eq!((&applied["revision"], applied["plan"]["changes"].as_array().unwrap().len()), (&json!(2), 17));
    let (file, revision) = everything(&server).await;
    let again = apply(&server, &three_tier()).await;
    assert_eq!((&again["revision"], &again["plan"]["unchanged"]), (&Value::Null, &json!(15)));
    assert_eq!(everything(&server).await, (file.clone(), revision), "a second time writes nothing");
    assert_eq!(
        apply(&server, &file).await["revision"],
        Value::Null,
        "what is exported changes nothing:\n{file}"
    );
    assert_eq!(parse(&file).unwrap().tests.len(), 2);

    let changed = file.replace("tcp/443", "tcp/443,8000-8100").replace("metric: 200", "metric: 300");
    let changed = changed.replace("resource:web-server tcp/443,8000-8100", "resource:web-server tcp/8050");
    let applied = apply(&server, &changed).await;
    let changes = applied["plan"]["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 3, "{applied}");
    assert_eq!((&changes[2]["action"], &changes[2]["kind"]), (&json!("update"), &json!("test")));
    assert_eq!(changes[0]["changes"], json!(["metric: 200 -> 300"]));
    assert_eq!(applied["plan"]["reach"]["opened"]["pairs"], 4);
    let codes = codes(&server).await;
    assert_eq!(
        codes[codes.len() - 3..],
        ["network.router.update", "policy.update", "policy.file.apply"],
        "each change has its event"
    );
}

#[tokio::test]
async fn a_test_that_fails_keeps_everything_as_it_is() {
    let server = site().await;
    apply(&server, &three_tier()).await;
    let before = everything(&server).await;
    let opens = three_tier().replace("to: web, service: tcp/443", "to: [web, database], service: all");
    let (status, refused) = server.owner.post("/api/policy-file/apply", json!({ "file": opens })).await;
    assert_eq!((status, &refused["message"]), (422, &json!("2 of 2 tests fail; nothing was written")));
    let failed = &refused["tests"][1]["failures"][0];
    assert_eq!((&failed["source"], &failed["destination"]), (&json!("alice"), &json!("database-server")));
    assert_eq!(failed["why"], "policy 'web for users', rule 'web for users' admits it");
    assert_eq!(everything(&server).await, before);

    // The tests that were applied stay in force for files that do not name them.
    let silent = opens.split("\ntests:").next().unwrap();
    assert_eq!(server.owner.post("/api/policy-file/apply", json!({ "file": silent })).await.0, 422);
    let answer = server.owner.created("/api/policy-file/test", json!({ "file": silent })).await;
    assert_eq!((&answer["hold"], answer["tests"].as_array().unwrap().len()), (&json!(false), 2));
    assert_eq!(server.owner.get("/api/policy-file/test").await.1["hold"], true, "as things are, they hold");
    let body = json!({ "file": silent, "prune": "policies" });
    let applied = server.owner.created("/api/policy-file/apply", body).await;
    assert_eq!(applied["revision"], 3);
    let changes = applied["plan"]["changes"].as_array().unwrap();
    let gone = changes.iter().filter(|change| change["action"] == "delete" && change["kind"] == "test");
    assert_eq!(gone.count(), 2, "{applied}");
    assert_eq!(everything(&server).await.0.matches("tests:").count(), 0);
}

#[tokio::test]
async fn a_file_that_does_not_fit_is_refused_with_places_and_as_a_whole() {
    let server = site().await;
    let before = everything(&server).await;
    let wrong = THREE_TIER.replace("[bob]", "[bobby]").replace("to: web,", "to: wep,");
    let (status, refused) = server.owner.post("/api/policy-file/apply", json!({ "file": wrong })).await;
    assert_eq!(status, 422);
    let problems = refused["problems"].as_array().unwrap();
    assert_eq!((&problems[0]["line"], &problems[0]["column"]), (&json!(7), &json!(13)), "{refused}");
    assert_eq!(
        problems[0]["message"],
        "there is no peer `bobby` (did you mean `bob`?): it has to join first"
    );
    assert_eq!(
        problems[1]["message"],
        "there is no group `wep` (did you mean `web`?): list it under `groups`"
    );

    // What only the store finds, when half was done.
    apply(&server, THREE_TIER).await;
    let before_second = everything(&server).await;
    assert_ne!(before.0, before_second.0);
    let moved = "
groups: [{name: newcomers}]
networks:
  - {name: elsewhere, resources: [{name: web-server, address: 10.9.9.9}]}
";
    let answer = server.owner.post("/api/policy-file/apply", json!({ "file": moved })).await;
    assert_eq!(answer.0, 422);
    assert!(message(&answer).starts_with("resource 'web-server': "), "{answer:?}");
    assert_eq!(everything(&server).await, before_second, "nothing of it was written");
    assert_eq!(server.owner.post("/api/policy-file/plan", json!({ "file": "groups: [" })).await.0, 422);
    let body = json!({ "file": "", "prune": "all" });
    assert_eq!(server.owner.post("/api/policy-file/plan", body).await.0, 422);
}

#[tokio::test]
async fn what_agents_could_not_be_given_is_refused_with_the_numbers_and_not_written() {
    let server = site().await;
    apply(&server, &three_tier()).await;
    let before = everything(&server).await;
    // Every other port: more ranges on one destination than an image holds.
    let ports: Vec<String> = (0..5_000).map(|number| (1 + 2 * number).to_string()).collect();
    let file = three_tier()
        .replace("to: web, service: tcp/443", &format!("to: web, service: 'tcp/443,{}'", ports.join(",")));
    let file = file.split("\ntests:").next().unwrap().replace("tcp/22", "tcp/2");
    for verb in ["plan", "apply"] {
        let body = json!({ "file": file, "prune": "policies" });
        let (status, refused) = server.owner.post(&format!("/api/policy-file/{verb}"), body).await;
        let said = text(&refused, "message");
        assert_eq!(status, 422, "{verb}: {said}");
        assert!(said.starts_with("nothing is written: ") && said.contains("at most 4096"), "{verb}: {said}");
        assert_eq!(everything(&server).await, before, "{verb}");
    }
    // The same in fewer ranges fits.
    let file = three_tier()
        .replace("tcp/443", "tcp/443-9000")
        .replace("resource:web-server tcp/22", "resource:web-server tcp/21");
    assert_eq!(server.owner.post("/api/policy-file/plan", json!({ "file": file })).await.0, 200);
}

#[tokio::test]
async fn an_application_bound_to_a_version_is_refused_when_somebody_was_faster() {
    let server = site().await;
    let plan = server.owner.created("/api/policy-file/plan", json!({ "file": THREE_TIER })).await;
    let version = text(&plan, "version");
    // A new token or peer is no matter of files; a group is.
    server.peer("carol").await;
    let body = json!({ "file": THREE_TIER, "expected_version": version });
    let bound = server.owner.created("/api/policy-file/plan", body.clone()).await;
    assert_eq!(text(&bound, "version"), version);
    server.group("another").await;
    let answer = server.owner.post("/api/policy-file/apply", body).await;
    assert_eq!(answer.0, 412);
    assert!(message(&answer).contains("plan again"), "{answer:?}");
    let (_, export) = server.owner.get("/api/policy-file").await;
    let body = json!({ "file": THREE_TIER, "expected_version": export["version"] });
    assert_eq!(server.owner.post("/api/policy-file/apply", body).await.0, 200);
}

#[tokio::test]
async fn every_revision_is_kept_and_can_be_brought_back() {
    let server = site().await;
    let key_group = server.group("joiners").await;
    let nothing = everything(&server).await.0;
    apply(&server, &three_tier()).await;
    let first = everything(&server).await.0;
    let second = first.replace("tcp/443", "tcp/8443");
    server.owner.created("/api/policy-file/apply", json!({ "file": second, "message": "moved" })).await;
    let second = everything(&server).await.0;
    // Somebody changes what files are about, by hand; the next application keeps that as well.
    let by_hand = server.group("by hand").await;
    server.setup_key("reusable", 0, &[&by_hand]).await;
    let late = server.enroll(&server.setup_key("one-off", 0, &[&key_group]).await, "late").await.unwrap();
    let touched = everything(&server).await.0;
    let rolled = server.owner.created("/api/policy-file/rollback", json!({ "revision": 2 })).await;
    assert_eq!(rolled["revision"], 5, "{rolled}");

    let (_, revisions) = server.owner.get("/api/policy-file/revisions").await;
    let told: Vec<(u64, String, String)> = (revisions.as_array().unwrap().iter())
        .map(|r| (r["number"].as_u64().unwrap(), text(r, "kind"), text(r, "message")))
        .collect();
    let told: Vec<(u64, &str, &str)> =
        told.iter().map(|(n, kind, said)| (*n, kind.as_str(), said.as_str())).collect();
    assert_eq!(
        told,
        [
            (5, "rollback", "back to revision 2"),
            (4, "elsewhere", ""),
            (3, "apply", "moved"),
            (2, "apply", ""),
            (1, "elsewhere", ""),
        ]
    );
    for (number, was) in [(1, &nothing), (2, &first), (3, &second), (4, &touched)] {
        let (_, revision) = server.owner.get(&format!("/api/policy-file/revisions/{number}")).await;
        assert_eq!(text(&revision, "file"), *was, "{number}");
    }
    // A group that a key needs stays, and one who joined since is still in the group of the key.
    let now = everything(&server).await.0;
    let expected =
        first.replace("  - name: contractors", "  - name: by hand\n    peers: []\n  - name: contractors");
    let expected =
        expected.replace("  - name: joiners\n    peers: []", "  - name: joiners\n    peers: [late]");
    assert_eq!(now, expected);
    assert_eq!(rolled["plan"]["warnings"], json!(["group 'by hand' stays: setup key 'key' needs it"]));
    let (_, page) = server.owner.get("/api/policy-file/revisions?before=3&limit=1").await;
    assert_eq!((page.as_array().unwrap().len(), &page[0]["number"]), (1, &json!(2)));
    assert_eq!(server.owner.get("/api/policy-file/revisions/99").await.0, 404);
    assert_eq!(server.owner.post("/api/policy-file/rollback", json!({ "revision": 99 })).await.0, 404);
    let dry =
        server.owner.created("/api/policy-file/rollback", json!({ "revision": 1, "dry_run": true })).await;
    assert_eq!((&dry["revision"], everything(&server).await.0), (&Value::Null, now));
    assert!(dry["plan"]["reach"]["closed"]["pairs"].as_u64() > Some(0), "{dry}");
    // A question is no change: its answer is not kept, and its key is free for what is done.
    for (dry_run, kept) in [(true, false), (true, false), (false, false), (false, true)] {
        let body = Some(json!({ "revision": 1, "dry_run": dry_run }).to_string());
        let headers = [("Idempotency-Key", "back")];
        let done = server.owner.ask(Method::POST, "/api/policy-file/rollback", &headers, body).await;
        assert_eq!(done.status, 200, "{}", done.body);
        assert_eq!(done.headers.contains_key("idempotent-replayed"), kept, "{dry_run}");
    }
    drop(late);
}

#[tokio::test]
async fn one_who_joined_since_gets_no_membership_of_one_who_had_that_name() {
    let server = site().await;
    apply(&server, THREE_TIER).await;
    let peers = server.owner.get("/api/peers?name=bob").await.1;
    assert_eq!(server.owner.delete(&format!("/api/peers/{}", text(&peers[0], "id"))).await.0, 200);
    let key = server.setup_key("one-off", 0, &[]).await;
    server.enroll(&key, "bob").await.unwrap();
    let before = everything(&server).await.0;
    assert!(!before.contains("[bob]"), "{before}");
    let rolled = server.owner.created("/api/policy-file/rollback", json!({ "revision": 2 })).await;
    assert_eq!(rolled["plan"]["changes"], json!([]), "{rolled}");
    assert_eq!(everything(&server).await.0, before);
}

#[tokio::test]
async fn without_the_tests_of_the_last_revision_nothing_is_applied() {
    let server = site().await;
    let actor = Actor::system();
    let broken =
        server.store.keep_policy_revision(&actor, RevisionKind::Elsewhere, "", "tests: [").await.unwrap();
    let answer = server.owner.post("/api/policy-file/apply", json!({ "file": THREE_TIER })).await;
    assert_eq!(answer.0, 500);
    assert!(message(&answer).starts_with(&format!("revision {broken} was kept")), "{answer:?}");
    assert_eq!(server.owner.get("/api/policy-file").await.0, 500);
}

#[tokio::test]
async fn whoever_hears_of_an_application_with_a_key_reads_what_it_wrote() {
    let server = site().await;
    let mut changes = server.store.changes();
    let store = server.store.clone();
    let (done, mut is_done) = tokio::sync::oneshot::channel::<()>();
    // What the driver does: it reads the state of each revision it hears of.
    let hearer = tokio::spawn(async move {
        let mut early = Vec::new();
        loop {
            let told = *changes.borrow_and_update();
            let read = store.snapshot().await.unwrap().revision;
            if read < told {
                early.push((told, read));
            }
            tokio::select! {
                changed = changes.changed() => changed.unwrap(),
                _ = &mut is_done => return (early, read),
            }
        }
    });
    let body = Some(json!({ "file": THREE_TIER }).to_string());
    let headers = [("Idempotency-Key", "once")];
    let applied = server.owner.ask(Method::POST, "/api/policy-file/apply", &headers, body).await;
    assert_eq!(applied.status, 200, "{}", applied.body);
    let revision = server.store.revision().await.unwrap();
    server.store.changes().wait_for(|told| *told >= revision).await.unwrap();
    done.send(()).unwrap();
    let (early, _) = hearer.await.unwrap();
    assert!(early.is_empty(), "{early:?}");

    // A failure leaves nothing to hear of.
    let told = *server.store.changes().borrow();
    let body = Some(json!({ "file": "groups: [{name: a, peers: [nobody]}]" }).to_string());
    let refused =
        server.owner.ask(Method::POST, "/api/policy-file/apply", &[("Idempotency-Key", "2")], body).await;
    assert_eq!((refused.status, *server.store.changes().borrow()), (422, told));
}

#[tokio::test]
async fn a_break_glass_policy_is_on_for_a_time_and_leaves_a_trace() {
    let server = site().await;
    let file = "
policies:
  - name: emergency
    break_glass: {max: 1h}
    rules: [{from: All, to: All, service: all}]
tests:
  - {name: apart, from: 'peer:alice', may_not_reach: ['peer:bob all']}
";
    apply(&server, file).await;
    let exported = everything(&server).await.0;
    let (_, glasses) = server.owner.get("/api/break-glass").await;
    assert_eq!(
        (&glasses[0]["name"], &glasses[0]["on"], &glasses[0]["max_seconds"]),
        (&json!("emergency"), &json!(false), &json!(3600))
    );
    let id = text(&glasses[0], "id");
    let path = format!("/api/break-glass/{id}");
    for (body, part) in [
        (json!({ "reason": "", "seconds": 60 }), "a reason is needed"),
        (json!({ "reason": "fire", "seconds": 3601 }), "at most 3600 seconds"),
        (json!({ "reason": "fire", "seconds": 0 }), "at most 3600 seconds"),
    ] {
        let answer = server.owner.post(&path, body).await;
        assert!(answer.0 == 422 && message(&answer).contains(part), "{answer:?}");
    }
    let (_, mut policy) = server.owner.get(&format!("/api/policies/{id}")).await;
    policy["enabled"] = true.into();
    for rule in policy["rules"].as_array_mut().unwrap() {
        for end in ["sources", "destinations"] {
            let ids = rule[end].as_array().unwrap().iter().map(|group| group["id"].clone()).collect();
            rule[end] = ids;
        }
    }
    let answer = server.owner.put(&format!("/api/policies/{id}"), policy).await;
    assert!(answer.0 == 422 && message(&answer).contains("break-glass on"), "only for a time: {answer:?}");

    let allowed = async || {
        let (_, told) = server.owner.get("/api/explain?source=alice&destination=bob&service=22/tcp").await;
        told["allowed"].as_bool().unwrap()
    };
    assert!(!allowed().await);
    let on = server.owner.created(&path, json!({ "reason": "the site is down", "seconds": 600 })).await;
    assert_eq!((&on["on"], &on["reason"]), (&json!(true), &json!("the site is down")));
    assert!(allowed().await);
    // Neither files nor tests are about the switch.
    assert_eq!(everything(&server).await.0, exported);
    assert_eq!(apply(&server, file).await["revision"], Value::Null);
    assert!(server.owner.get("/api/policy-file/test").await.1["hold"].as_bool().unwrap());
    assert_eq!(server.store.end_break_glass(now()).await.unwrap(), [""; 0], "its time has not come");
    assert!(allowed().await);
    assert_eq!(server.store.end_break_glass(now() + 600_000).await.unwrap(), ["emergency"]);
    assert!(!allowed().await);
    server.owner.created(&path, json!({ "reason": "again" })).await;
    assert_eq!(server.owner.delete(&path).await.1["on"], false);
    assert!(!allowed().await);
    // One whose end nobody was there to write down is off all the same.
    server.store.break_glass_on(&Actor::system(), &id, 1, "short").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert!(!allowed().await);

    let codes = codes(&server).await;
    let codes: Vec<&str> = codes.iter().filter_map(|code| code.strip_prefix("policy.breakglass.")).collect();
    assert_eq!(codes, ["on", "expire", "on", "off", "on"]);
    let ordinary = file.replace("break_glass: {max: 1h}", "enabled: false");
    apply(&server, &ordinary).await;
    assert_eq!(server.owner.get("/api/break-glass").await.1, json!([]));
    assert!(!allowed().await);
}

#[tokio::test]
async fn the_schema_is_open_to_editors() {
    let server = Server::start().await;
    let (status, schema) = server.owner.with_authorization(None).get("/api/policy-file/schema").await;
    assert_eq!((status, &schema["title"]), (200, &json!("Sluicegate policy file")));
}

#[tokio::test]
async fn no_file_limits_a_rule_to_local_users_but_what_was_stored_may_stay() {
    let server = site().await;
    let of = |users: &str| {
        format!(
            "groups:\n  - name: ops\npolicies:\n  - name: admins\n    rules:\n      - from: ops\n        to: All\n        \
             service: netbird-ssh/22\n{users}"
        )
    };
    let limited = of("        ssh_users: {ops: [root]}\n");
    for verb in ["plan", "apply", "test"] {
        let (status, answer) =
            server.owner.post(&format!("/api/policy-file/{verb}"), json!({ "file": limited })).await;
        assert_eq!(status, 422, "{verb}: {answer}");
        assert_eq!(answer["problems"][0]["line"], 9, "{verb}: {answer}");
        let said = text(&answer["problems"][0], "message");
        assert!(said.starts_with("`ssh_users` is not supported: agents have no SSH server"), "{said}");
    }
    apply(&server, &of("")).await;
    let ops = text(&server.owner.get("/api/groups?name=ops").await.1[0], "id");
    server.sql(&format!("UPDATE rules SET authorized_groups = '{{\"{ops}\":[\"root\"]}}'")).await;
    // What was stored is exported, and taken back as it is.
    let stored = everything(&server).await.0;
    assert!(stored.contains("ssh_users: {ops: [root]}"), "{stored}");
    let again = apply(&server, &stored).await;
    assert_eq!(again["plan"]["changes"], json!([]), "{again}");
    let other = stored.replace("[root]", "[root, admin]");
    assert_eq!(server.owner.post("/api/policy-file/apply", json!({ "file": other })).await.0, 422);
    // Going back to a revision that had it leaves it out, and says so.
    apply(&server, &of("")).await;
    let revisions = server.owner.get("/api/policy-file/revisions").await.1;
    let had = revisions[1]["number"].as_u64().unwrap();
    let file = text(&server.owner.get(&format!("/api/policy-file/revisions/{had}")).await.1, "file");
    assert!(file.contains("ssh_users"), "{file}");
    let rolled = server.owner.created("/api/policy-file/rollback", json!({ "revision": had })).await;
    let said = rolled["plan"]["warnings"][0].as_str().unwrap();
    assert!(said.starts_with("`ssh_users` of rule 'admins' of policy 'admins' is left out"), "{said}");
    assert!(!everything(&server).await.0.contains("ssh_users"));
}
