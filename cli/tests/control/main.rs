//! The command line against the real control service, over its real REST interface.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails where it stands")]

#[path = "../cli/run.rs"]
mod run;

mod admit;
mod audit;
mod document;
mod objects;
mod sso;
mod users;

mod fake {
    /// No control gave this one out.
    pub(crate) const TOKEN: &str = "nbp_0123456789abcdefghijABCDEFGHIJ012345";
}

use run::Shell;
use sluicegate_api::agent::flow_event::Kind;
use sluicegate_api::agent::{FlowEvent, ReportRequest};
use sluicegate_control::agents::Agents;
use sluicegate_control::app::App;
use sluicegate_control::geo::Places;
use sluicegate_control::identity::Identity;
use sluicegate_control::rest::{Extra, router};
use sluicegate_control::store::{Enrollment, Role, Store};
use sluicegate_policy::file::THREE_TIER;

struct Control {
    store: Store,
    agents: Agents,
    shell: Shell,
    url: String,
    _dir: tempfile::TempDir,
}

impl Control {
    async fn start() -> Self {
        Self::start_known(Identity::default()).await
    }

    /// With users of an identity provider.
    async fn start_known(identity: Identity) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let places = Places::none();
        let agents = Agents::open(store.clone(), places.clone(), dir.path()).unwrap();
        let app = App {
            store: store.clone(),
            control_fingerprint: Some(agents.authority().fingerprint().into()),
            places,
            identity,
        };
        let extra = Extra { protected: agents.api_routes(), open: agents.open_routes(), ..Extra::default() };
        let (router, _) = router(app, extra);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let token = std::fs::read_to_string(dir.path().join("bootstrap-token")).unwrap();
        let shell = Shell::with_token(&url, token.trim());
        Control { store, agents, shell, url, _dir: dir }
    }

    /// Joins the machines of the three-tier example with a key that the command line made; returns the first's id.
    async fn join(&self) -> String {
        let file = self.shell.run(&["setup-key", "create", "--name", "lab", "--reusable"]).await.ok();
        let (key, fingerprint) = file.trim().split_once("#sha256:").unwrap();
        assert_eq!(fingerprint, self.agents.authority().fingerprint());
        let mut first = String::new();
        for (number, name) in (1..).zip(["alice", "bob", "probe", "gateway-1", "gateway-2"]) {
            let enrollment = Enrollment {
                setup_key: key.into(),
                wireguard_public_key: [number; 32],
                identity_key: [number; 32],
                role: if name.starts_with("gateway") { Role::Gateway } else { Role::Peer },
                hostname: name.into(),
                os: "linux".into(),
                kernel_version: "6.12.0".into(),
                version: "0.1.0".into(),
                connection_ip: None,
                dns_labels: Vec::new(),
            };
            let id = self.store.enroll(&enrollment).await.unwrap().id;
            if first.is_empty() {
                first = id;
            }
        }
        first
    }

    async fn apply(&self, file: &str, extra: &[&str]) -> run::Ran {
        let path = self.shell.path("policy.yaml");
        std::fs::write(&path, file).unwrap();
        self.shell.run(&[&["policy", "apply", "-f", path.to_str().unwrap()], extra].concat()).await
    }

    async fn revision(&self) -> u64 {
        self.store.revision().await.unwrap()
    }
}

#[tokio::test]
async fn the_three_tiers_are_applied_explained_and_shown() {
    let control = Control::start().await;
    let shell = &control.shell;
    assert!(shell.run(&["login"]).await.ok().contains("(owner)"));
    control.join().await;

    let ran = control.apply(THREE_TIER, &[]).await;
    assert!(
        ran.err.contains("'Default', which is not in the file, lets every peer reach every peer"),
        "{}",
        ran.err
    );
    let first = ran.ok();
    assert!(
        first.ends_with("\n\n15 created, 0 updated, 0 deleted, 0 unchanged; kept as revision 2.\n"),
        "{first}"
    );
    let revision = control.revision().await;
    let second = control.apply(THREE_TIER, &["--output", "json"]).await.json();
    let plan = &second["applied"]["plan"];
    assert_eq!((&plan["unchanged"], &plan["changes"]), (&15.into(), &serde_json::json!([])));
    assert_eq!(control.revision().await, revision, "a second run writes nothing");

    for (source, destination, code, says) in [
        ("alice", "10.20.0.10:443/tcp", 0, "through  gateway-1 (metric 100)"),
        ("bob", "[fd20::10]:443/tcp", 0, "policy 'web for users'"),
        ("alice", "10.20.0.20:5432/tcp", 4, "no enabled accept rule leads to database-server"),
        ("probe", "10.20.0.10:443/tcp", 4, "nearest"),
        ("probe", "10.20.0.10:9100/tcp", 0, "rule 'scrape'"),
        ("carol", "10.20.0.10:443/tcp", 1, "no peer has the id, name or address `carol`"),
    ] {
        let ran = shell.run(&["policy", "explain", source, destination]).await;
        assert_eq!(ran.code, code, "{source} {destination}: {}{}", ran.out, ran.err);
        assert!(
            format!("{}{}", ran.out, ran.err).contains(says),
            "{source} {destination}: {}{}",
            ran.out,
            ran.err
        );
    }
    for (words, says) in [
        (&["status"][..], "Policies  3 on, 0 off"),
        (&["peer", "list"], "alice"),
        (&["group", "list"], "database-server"),
        (&["policy", "list"], "tcp 443"),
        (&["network", "list"], "gateway-2  200"),
        (&["gateway", "list"], "gateway-1"),
        (&["gateway", "show", "gateway-1"], "site, metric 100, masquerade"),
        (&["setup-key", "list"], "5 of any number"),
        (&["audit", "list"], "policy.add"),
    ] {
        let out = shell.run(words).await.ok();
        assert!(out.contains(says), "{words:?}:\n{out}");
    }
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_a_changed_one_only_what_differs() {
    let control = Control::start().await;
    control.join().await;
    control.apply(THREE_TIER, &[]).await.ok();
    let revision = control.revision().await;

    let ran = control.apply(&THREE_TIER.replace("[bob]", "[nobody]"), &[]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("line 7, column 13: there is no peer `nobody`"), "{}", ran.err);
    assert_eq!(control.revision().await, revision);

    let changed = THREE_TIER.replace("tcp/443", "'tcp/443,8000-8100'").replace("metric: 200", "metric: 300");
    let out = control.apply(&changed, &[]).await.ok();
    assert!(out.ends_with("0 created, 2 updated, 0 deleted, 13 unchanged; kept as revision 3.\n"), "{out}");
    assert!(out.contains("metric: 200 -> 300") && out.contains("tcp/443 -> tcp/443,8000-8100"), "{out}");
    let again = control.apply(&changed, &[]).await.ok();
    assert_eq!(again, "0 created, 0 updated, 0 deleted, 15 unchanged; nothing was written.\n");

    let out = control.apply(&changed, &["--prune"]).await.ok();
    assert!(out.starts_with("delete    policy    Default\n"), "{out}");
    assert_eq!(control.shell.run(&["policy", "explain", "alice", "bob:22/tcp"]).await.code, 4);
}

#[tokio::test]
async fn flows_are_watched_as_agents_report_them() {
    let control = Control::start().await;
    let peer = control.join().await;
    let event = FlowEvent {
        time_ms: 1_795_332_909_120,
        kind: Kind::Drop.into(),
        protocol: 6,
        source: "100.64.0.9".into(),
        source_port: 40_000,
        destination: "10.20.0.20".into(),
        destination_port: 5432,
        drop_reason: "no_rule".into(),
        ..FlowEvent::default()
    };
    let report = ReportRequest { flows: vec![event], ..ReportRequest::default() };
    control.agents.hub().report(&peer, report, 1_795_332_909_200).unwrap();
    let out = control.shell.run(&["flow", "watch", "--replay", "10", "--count", "1"]).await.ok();
    let line = out.lines().nth(1).unwrap();
    assert!(line.starts_with("07:35:09.120  drop    tcp    100.64.0.9:40000"), "{out}");
    assert!(line.contains("10.20.0.20:5432") && line.ends_with("no_rule"), "{out}");
}

#[tokio::test]
async fn a_wrong_token_is_refused_by_the_real_one_too() {
    let control = Control::start().await;
    let ran = Shell::new(&control.url).run(&["peer", "list"]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("token invalid"), "{}", ran.err);
}
