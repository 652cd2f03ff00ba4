//! Machines for which a person logs in, as agents have it done: over gRPC, at an identity provider or by a code of control's own.

use std::time::Duration;

use serde_json::json;
use sluicegate_api::agent::logins_client::LoginsClient;
use sluicegate_api::agent::{
    AskLogin, BeginLogin, EnrollRequest, EnrollResponse, LoginBegun, LoginState, Role,
};
use sluicegate_control::store::{Person, StoreError, User, UserChange, UserRole, WAITING_OF_SOURCE};
use tonic::transport::{Channel, Identity as Certificate};
use tonic::{Code, Status};

use crate::devices::Devices;
use crate::support::{Control, FakeAgent, Machine, channel, connect, soon};

type Client = LoginsClient<Channel>;

/// A control whose people are those of a provider; nobody has to be approved.
async fn site(address: &str) -> (Control, Devices) {
    let devices = Devices::start().await;
    let control = Control::start_known(address, devices.identity()).await;
    open_to_all(&control).await;
    (control, devices)
}

async fn settings(control: &Control, change: impl FnOnce(&mut sluicegate_control::store::Settings)) {
    let mut settings = control.store.account().await.unwrap().settings;
    change(&mut settings);
    control.store.update_settings(&owner(control).await.actor(), settings).await.unwrap();
}

async fn open_to_all(control: &Control) {
    settings(control, |settings| settings.extra.user_approval_required = false).await;
}

async fn owner(control: &Control) -> User {
    let users = control.store.users().await.unwrap();
    users.into_iter().find(|user| user.role == UserRole::Owner).unwrap()
}

/// Somebody at the provider, who has been here.
async fn person(control: &Control, issuer: &str, subject: &str) -> User {
    let person = Person {
        issuer: issuer.into(),
        subject: subject.into(),
        name: subject.into(),
        email: String::new(),
        email_verified: false,
        at: 0,
    };
    control.store.sign_in(&person, |_| None).await.unwrap()
}

async fn promote(control: &Control, user: &User, role: UserRole, blocked: bool) {
    let change = UserChange { role, blocked: Some(blocked), auto_groups: user.auto_groups.clone() };
    control.store.update_user(&owner(control).await, &user.id, change).await.unwrap();
}

async fn client(control: &Control, identity: Option<Certificate>) -> Client {
    LoginsClient::new(channel(control.address, &control.ca(), identity).await.unwrap())
}

fn announced(machine: &Machine) -> BeginLogin {
    let EnrollRequest { wireguard_public_key, csr_pem, role, hostname, system, .. } = machine.request("");
    BeginLogin { wireguard_public_key, csr_pem, role, hostname, system }
}

async fn begin(control: &Control, machine: &Machine) -> Result<LoginBegun, Status> {
    Ok(client(control, None).await.begin(announced(machine)).await?.into_inner())
}

async fn ask(control: &Control, begun: &LoginBegun) -> Result<LoginState, Status> {
    let question = AskLogin { secret: begun.secret.clone() };
    Ok(client(control, None).await.ask(question).await?.into_inner())
}

/// Asks as if it were time to ask the provider again.
async fn admitted(control: &Control, begun: &LoginBegun) -> Result<bool, Status> {
    control.sql(["UPDATE machine_logins SET ask_at = 0"; 2]).await;
    ask(control, begun).await.map(|state| state.admitted)
}

async fn enroll(control: &Control, machine: &Machine, secret: &str) -> Result<EnrollResponse, Status> {
    machine.enroll(control, &control.ca(), secret).await
}

async fn codes(control: &Control) -> Vec<String> {
    control.store.events().await.unwrap().into_iter().map(|event| event.code).collect()
}

fn has(codes: &[String], code: &str) -> bool {
    codes.iter().any(|own| own == code)
}

/// A machine that has joined as somebody's.
async fn joined(control: &Control, devices: &Devices, subject: &str) -> FakeAgent {
    let machine = Machine::new(Role::Peer);
    let begun = begin(control, &machine).await.unwrap();
    devices.agree(subject);
    assert!(admitted(control, &begun).await.unwrap());
    devices.answer("authorization_pending");
    let joined = enroll(control, &machine, &begun.secret).await.unwrap();
    FakeAgent { machine, joined, held: None, network: None }
}

#[tokio::test]
async fn somebody_who_agrees_at_the_provider_lets_one_machine_in_over_either_ip_family() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (control, devices) = site(address).await;
        let group = control.group("staff", &[]).await;
        settings(&control, |settings| settings.groups_propagation_enabled = true).await;
        let ann = person(&control, devices.issuer(), "ann").await;
        let change = UserChange { role: UserRole::User, blocked: None, auto_groups: vec![group.clone()] };
        control.store.update_user(&owner(&control).await, &ann.id, change).await.unwrap();

        let machine = Machine::new(Role::Peer);
        let begun = begin(&control, &machine).await.unwrap();
        let shown = begun.provider.clone().unwrap();
        assert_eq!(shown.user_code, "WDJB-MJHT");
        assert!(shown.verification_uri_complete.ends_with("?user_code=WDJB-MJHT"));
        assert!((590_000..=600_000).contains(&begun.left_ms) && begun.wait_ms > 0);
        let text = format!("{begun:?}");
        assert!(!text.contains("device-1"), "whoever has the device code gets the person's token: {text}");
        // Twelve bytes of nonce, the code, and sixteen of tag.
        let kept = control.sql_text("SELECT 'n' || length(device_code) FROM machine_logins").await;
        assert_eq!(kept, "n36", "it is sealed");

        let waits = ask(&control, &begun).await.unwrap();
        assert!(!waits.admitted && waits.wait_ms > 0);
        let early = enroll(&control, &machine, &begun.secret).await.unwrap_err();
        assert_eq!(early.code(), Code::PermissionDenied, "{early:?}");
        devices.agree("ann");
        assert!(admitted(&control, &begun).await.unwrap());
        assert!(control.store.peers(None, None).await.unwrap().is_empty(), "it joins by itself");

        for other in [Machine::new(Role::Peer), Machine { role: Role::Gateway, ..Machine::new(Role::Peer) }] {
            let stolen = enroll(&control, &other, &begun.secret).await.unwrap_err();
            assert!(stolen.message().contains("another machine"), "{stolen:?}");
        }
        let joined = enroll(&control, &machine, &begun.secret).await.unwrap();
        let peer = control.store.peer(&joined.peer_id).await.unwrap();
        assert_eq!((peer.user_id.as_str(), peer.approval_required), (ann.id.as_str(), false));
        assert!(peer.groups.iter().any(|own| own.id == group), "{:?}", peer.groups);
        // The answer was lost: the same peer. When it is gone, so is the way in.
        assert_eq!(enroll(&control, &machine, &begun.secret).await.unwrap().peer_id, joined.peer_id);
        let codes = codes(&control).await;
        assert!(has(&codes, "peer.login.admit") && has(&codes, "peer.user.add"), "{codes:?}");

        let counted = |result| control.agents.metrics().machine_logins.with_label_values(&[result]).get();
        assert_eq!(["begun", "admitted", "refused", "over"].map(counted), [1, 1, 0, 0]);

        let mut agent = FakeAgent { machine, joined, held: None, network: None };
        let mut session = agent.sync(&control).await.unwrap();
        assert_eq!(agent.apply(&mut session).await, "snapshot");
        assert!(!agent.network.as_ref().unwrap().login_expired);
        control.store.delete_peer(&owner(&control).await.actor(), &agent.id()).await.unwrap();
        let again = enroll(&control, &agent.machine, &begun.secret).await.unwrap_err();
        assert!(again.message().contains("over"), "{again:?}");
    }
}

#[tokio::test]
async fn the_provider_is_asked_no_more_often_than_it_wants_and_its_no_is_final() {
    let (control, devices) = site("127.0.0.1:0").await;
    // No provider wants more than one question a second.
    devices.said().times = (0, 600);
    let begun = begin(&control, &Machine::new(Role::Peer)).await.unwrap();
    for _ in 0..5 {
        assert!(!ask(&control, &begun).await.unwrap().admitted);
    }
    assert!(devices.said().asked.is_empty(), "not within the first second");
    let asked = async |count: usize| {
        soon("the provider is asked", async {
            while devices.said().asked.len() < count {
                assert!(!ask(&control, &begun).await.unwrap().admitted);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    };
    asked(2).await;
    devices.answer("slow_down");
    asked(3).await;
    devices.answer("authorization_pending");
    asked(4).await;
    let times = devices.said().asked.clone();
    assert!(times[1] - times[0] >= Duration::from_millis(950), "{times:?}");
    assert!(times[3] - times[2] >= Duration::from_millis(5950), "five seconds more: {times:?}");

    for (error, word) in
        [("access_denied", "declined"), ("expired_token", "in time"), ("invalid_grant", "invalid_grant")]
    {
        let begun = begin(&control, &Machine::new(Role::Peer)).await.unwrap();
        devices.answer(error);
        let refused = admitted(&control, &begun).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{error}");
        assert!(refused.message().contains(word), "{refused:?}");
        devices.agree("ann");
        let refused = admitted(&control, &begun).await.unwrap_err();
        assert!(refused.message().contains(word), "a no stays a no: {refused:?}");
    }
    assert!(control.store.users().await.unwrap().len() == 1, "nobody was made of them");
}

#[tokio::test]
async fn a_provider_that_fails_for_a_while_is_asked_again() {
    let (control, devices) = site("[::1]:0").await;
    let machine = Machine::new(Role::Peer);
    let begun = begin(&control, &machine).await.unwrap();
    for (status, error) in [
        (400, "temporarily_unavailable"),
        (400, "server_error"),
        (400, "odd\u{1b}[31m"),
        (429, "too_many_requests"),
        (429, "access_denied"),
        (503, "invalid_client"),
    ] {
        let asked = devices.said().asked.len();
        (devices.said().status, devices.said().error) = (status, error);
        assert!(!admitted(&control, &begun).await.unwrap(), "{status} {error}");
        assert_eq!(devices.said().asked.len(), asked + 1, "{status} {error}");
    }
    devices.agree("ann");
    assert!(admitted(&control, &begun).await.unwrap());
    enroll(&control, &machine, &begun.secret).await.unwrap();
}

#[tokio::test]
async fn a_login_whose_token_cannot_be_verified_for_a_while_is_taken_in_later() {
    let (control, devices) = site("[::1]:0").await;
    let machine = Machine::new(Role::Peer);
    let begun = begin(&control, &machine).await.unwrap();
    devices.agree("ann");
    devices.said().keyless = true;
    control.sql(["UPDATE machine_logins SET ask_at = 0"; 2]).await;
    let keys_come_back = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        devices.said().keyless = false;
    };
    let (asked, ()) = tokio::join!(ask(&control, &begun), keys_come_back);
    asked.unwrap();
    soon("the machine is let in", async {
        while !ask(&control, &begun).await.unwrap().admitted {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    assert_eq!(devices.said().asked.len(), 1, "the provider says it once");
    enroll(&control, &machine, &begun.secret).await.unwrap();
}

#[tokio::test]
async fn a_provider_lets_machines_in_only_where_the_configuration_says_so() {
    let devices = Devices::start().await;
    let control = Control::start_known("127.0.0.1:0", devices.identity_with(|_| {})).await;
    open_to_all(&control).await;
    let machine = Machine::new(Role::Peer);
    let begun = begin(&control, &machine).await.unwrap();
    assert!(begun.provider.is_none() && begun.provider_failed.is_empty(), "{begun:?}");
    assert_eq!(devices.said().begun, 0);
    let ann = person(&control, devices.issuer(), "ann").await;
    control.store.admit_machine(&ann, &begun.code).await.unwrap();
    enroll(&control, &machine, &begun.secret).await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_not_good_and_a_user_who_may_not_come_let_nothing_in() {
    let (control, devices) = site("127.0.0.1:0").await;
    let (bea, cas) =
        (person(&control, devices.issuer(), "bea").await, person(&control, devices.issuer(), "cas").await);
    promote(&control, &bea, UserRole::User, true).await;
    settings(&control, |settings| settings.extra.user_approval_required = true).await;
    let cases = [
        ("ann", json!({"aud": "another"}), "audience"),
        ("ann", json!({"iss": "https://evil.example"}), "issuer"),
        ("ann", json!({"exp": 1}), "expired"),
        ("ann", json!({"azp": "another"}), "azp"),
        ("ann", json!({}), "approval"),
        ("bea", json!({}), "blocked"),
    ];
    for (subject, claims, word) in cases {
        let machine = Machine::new(Role::Peer);
        devices.answer("authorization_pending");
        let begun = begin(&control, &machine).await.unwrap();
        devices.agree_with(subject, claims);
        let refused = admitted(&control, &begun).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{word}");
        assert!(refused.message().contains(word), "{refused:?}");
        assert!(enroll(&control, &machine, &begun.secret).await.is_err());
    }
    // Who is blocked after agreeing lets nothing in either, and a gateway needs a role.
    let machine = Machine::new(Role::Peer);
    let begun = begin(&control, &machine).await.unwrap();
    devices.agree("cas");
    assert!(admitted(&control, &begun).await.unwrap());
    promote(&control, &cas, UserRole::User, true).await;
    assert!(enroll(&control, &machine, &begun.secret).await.is_err());
    promote(&control, &cas, UserRole::User, false).await;
    let over = enroll(&control, &machine, &begun.secret).await.unwrap_err();
    assert!(over.message().contains("over"), "a block ends it for good: {over:?}");

    let gateway = Machine::new(Role::Gateway);
    let asked = devices.said().begun;
    let begun = begin(&control, &gateway).await.unwrap();
    assert!(begun.provider.is_none(), "the provider's page does not say that it is a gateway");
    assert_eq!(devices.said().begun, asked);
    let cas = control.store.user(&cas.id).await.unwrap();
    let refused = control.store.admit_machine(&cas, &begun.code).await;
    let why = "role user may not let a gateway join";
    assert!(matches!(&refused, Err(StoreError::Denied(said)) if said.contains(why)), "{refused:?}");
    promote(&control, &cas, UserRole::NetworkAdmin, false).await;
    control.store.admit_machine(&cas, &begun.code).await.unwrap();
    assert!(admitted(&control, &begun).await.unwrap());
    enroll(&control, &gateway, &begun.secret).await.unwrap();
    assert_eq!(control.store.peers(None, None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn without_a_provider_or_its_device_flow_a_code_of_controls_own_does() {
    let away = Devices::start().await;
    away.said().away = true;
    let simple = Devices::start().await;
    simple.said().knows_devices = false;
    let none = sluicegate_control::identity::Identity::default();
    for (identity, failed) in [(none, false), (simple.identity(), false), (away.identity(), true)] {
        let control = Control::start_known("[::1]:0", identity).await;
        open_to_all(&control).await;
        let ann = person(&control, "https://idp.example", "ann").await;
        let machine = Machine::new(Role::Peer);
        let begun = begin(&control, &machine).await.unwrap();
        assert!(begun.provider.is_none());
        assert_eq!(!begun.provider_failed.is_empty(), failed, "{}", begun.provider_failed);
        assert!(!begun.provider_failed.contains("127.0.0.1"), "strangers read it");
        assert!(!admitted(&control, &begun).await.unwrap());
        let seen = control.store.waiting_machine(&begun.code.to_lowercase().replace('-', " ")).await.unwrap();
        assert_eq!((seen.hostname.as_str(), seen.address.as_str()), ("machine", "::1"));
        control.store.admit_machine(&ann, &begun.code).await.unwrap();
        assert!(admitted(&control, &begun).await.unwrap());
        let joined = enroll(&control, &machine, &begun.secret).await.unwrap();
        assert_eq!(control.store.peer(&joined.peer_id).await.unwrap().user_id, ann.id);
        // A code is good once.
        let again = control.store.admit_machine(&ann, &begun.code).await;
        assert!(matches!(again, Err(StoreError::NotFound { .. })), "{again:?}");
    }
}

#[tokio::test]
async fn a_machine_that_is_turned_away_or_waits_too_long_is_told() {
    let (control, _devices) = site("127.0.0.1:0").await;
    let ann = person(&control, "https://idp.example", "ann").await;
    let begun = begin(&control, &Machine::new(Role::Peer)).await.unwrap();
    control.store.refuse_machine(&ann, &begun.code).await.unwrap();
    let refused = admitted(&control, &begun).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("turned it away"), "{refused:?}");
    assert!(has(&codes(&control).await, "peer.login.refuse"));

    let machine = Machine::new(Role::Peer);
    let [waiting, agreed] =
        [begin(&control, &machine).await.unwrap(), begin(&control, &machine).await.unwrap()];
    control.store.admit_machine(&ann, &agreed.code).await.unwrap();
    control.store.expire_machine_logins().await.unwrap();
    for begun in [&waiting, &agreed] {
        let over = admitted(&control, begun).await.unwrap_err();
        assert_eq!(over.code(), Code::NotFound);
        assert!(over.message().contains("begin anew"), "{over:?}");
        assert!(control.store.admit_machine(&ann, &begun.code).await.is_err());
        assert!(enroll(&control, &machine, &begun.secret).await.is_err());
    }
    let made_up = LoginBegun { secret: "sgl_x".into(), ..LoginBegun::default() };
    assert_eq!(ask(&control, &made_up).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_login_that_has_expired_is_renewed_from_the_machine_by_its_own_user_alone() {
    let (control, devices) = site("[::1]:0").await;
    let mut agent = joined(&control, &devices, "ann").await;
    let user = control.store.peer(&agent.id()).await.unwrap().user_id;
    let mut session = agent.sync(&control).await.unwrap();
    agent.apply(&mut session).await;
    control.store.age_peer(&agent.id(), 25 * 3_600_000).await.unwrap();
    assert_eq!(control.store.expire_peers().await.unwrap(), 1);
    soon("the agent is told", async {
        while !agent.network.as_ref().unwrap().login_expired {
            agent.apply(&mut session).await;
        }
    })
    .await;

    let mut client = client(&control, Some(agent.identity())).await;
    let mut begin = async || client.begin(BeginLogin::default()).await.unwrap().into_inner();
    // Another user at the provider, and another user here.
    let begun = begin().await;
    devices.agree("eve");
    let refused = admitted(&control, &begun).await.unwrap_err();
    assert!(refused.message().contains("another user's"), "{refused:?}");
    devices.answer("authorization_pending");
    let begun = begin().await;
    let eve = person(&control, devices.issuer(), "eve").await;
    let denied = control.store.admit_machine(&eve, &begun.code).await;
    assert!(matches!(&denied, Err(StoreError::Denied(why)) if why.contains("another user's")), "{denied:?}");
    assert!(!admitted(&control, &begun).await.unwrap(), "it goes on waiting for the right one");
    assert!(control.store.peer(&agent.id()).await.unwrap().expired.is_some());
    let seen = control.store.waiting_machine(&begun.code).await.unwrap();
    assert_eq!(seen.peer_id, agent.id());

    devices.agree("ann");
    assert!(admitted(&control, &begun).await.unwrap());
    let peer = control.store.peer(&agent.id()).await.unwrap();
    assert!(peer.expired.is_none() && peer.user_id == user);
    assert!(has(&codes(&control).await, "user.peer.login"));
    soon("the agent is told", async {
        while agent.network.as_ref().unwrap().login_expired {
            agent.apply(&mut session).await;
        }
    })
    .await;
    // It is no way to join.
    let joins = enroll(&control, &agent.machine, &begun.secret).await.unwrap_err();
    assert_eq!(joins.code(), Code::PermissionDenied, "{joins:?}");

    // The same by the code.
    let begun = begin().await;
    let ann = control.store.user(&user).await.unwrap();
    control.store.admit_machine(&ann, &begun.code).await.unwrap();
    assert!(admitted(&control, &begun).await.unwrap());

    let keyed = control.join(Role::Peer).await;
    let refused = self::client(&control, Some(keyed.identity())).await.begin(BeginLogin::default()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("setup key"), "{refused:?}");
}

#[tokio::test]
async fn a_login_goes_on_when_control_is_started_anew() {
    let (control, devices) = site("127.0.0.1:0").await;
    let machine = Machine::new(Role::Peer);
    let begun = begin(&control, &machine).await.unwrap();
    assert!(!admitted(&control, &begun).await.unwrap());
    let control = control.restart().await;
    devices.agree("ann");
    assert!(admitted(&control, &begun).await.unwrap());
    enroll(&control, &machine, &begun.secret).await.unwrap();
}

#[tokio::test]
async fn a_login_begun_at_one_replica_is_agreed_to_at_another() {
    let devices = Devices::start().await;
    let [first, second] = Control::replicas_known(devices.identity()).await;
    open_to_all(&first).await;
    let machine = Machine::new(Role::Peer);
    let begun = begin(&first, &machine).await.unwrap();
    assert!(!admitted(&second, &begun).await.unwrap());
    devices.agree("ann");
    // Both are asked at once: only one asks the provider, whose answer is good once.
    first.sql(["UPDATE machine_logins SET ask_at = 0"; 2]).await;
    let asked = tokio::join!(ask(&first, &begun), ask(&second, &begun));
    assert!(asked.0.is_ok() && asked.1.is_ok(), "{asked:?}");
    assert!(admitted(&second, &begun).await.unwrap());
    assert!(admitted(&first, &begun).await.unwrap());
    assert_eq!(devices.said().asked.len(), 2);
    enroll(&second, &machine, &begun.secret).await.unwrap();
}

#[tokio::test]
async fn what_waits_is_bounded_per_address_and_in_all() {
    let (control, devices) = site("127.0.0.1:0").await;
    let agent = joined(&control, &devices, "ann").await;
    control.sql(["DELETE FROM machine_logins"; 2]).await;
    for _ in 0..WAITING_OF_SOURCE {
        begin(&control, &Machine::new(Role::Peer)).await.unwrap();
    }
    let asked = devices.said().begun;
    let full = begin(&control, &Machine::new(Role::Peer)).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("16 machines from this address"), "{full:?}");
    assert_eq!(devices.said().begun, asked, "the provider is not troubled");

    // As if from everywhere, and still within their time.
    const SPREAD: &str = "UPDATE machine_logins SET source = code";
    control.sql([SPREAD; 2]).await;
    control
        .sql([
            "WITH RECURSIVE n(i) AS (SELECT 17 UNION ALL SELECT i + 1 FROM n WHERE i < 4096)
             INSERT INTO machine_logins SELECT randomblob(32), 'c' || i, state, refusal, user_id, peer_id, identity_key,
             wireguard_key, role, hostname, os, address, 's' || i, device_code, gap, ask_at, expires_at
             FROM n, (SELECT * FROM machine_logins LIMIT 1)",
            "INSERT INTO machine_logins SELECT sha256(i::text::bytea), 'c' || i, state, refusal, user_id, peer_id,
             identity_key, wireguard_key, role, hostname, os, address, 's' || i, device_code, gap, ask_at, expires_at
             FROM generate_series(17, 4096) AS n(i), (SELECT * FROM machine_logins LIMIT 1) AS one",
        ])
        .await;
    let full = begin(&control, &Machine::new(Role::Peer)).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("too many machines"), "{full:?}");
    // Strangers keep no peer from a new login, and a peer has one place.
    let mut renewing = client(&control, Some(agent.identity())).await;
    let before = renewing.begin(BeginLogin::default()).await.unwrap().into_inner();
    for _ in 0..2 {
        renewing.begin(BeginLogin::default()).await.unwrap();
    }
    assert_eq!(admitted(&control, &before).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        control.sql_text("SELECT 'n' || count(*) FROM machine_logins WHERE peer_id <> ''").await,
        "n1"
    );
    control.store.expire_machine_logins().await.unwrap();
    begin(&control, &Machine::new(Role::Peer)).await.unwrap();
    assert_eq!(
        control.sql_text("SELECT 'n' || count(*) FROM machine_logins").await,
        "n1",
        "what is over is gone"
    );
}

#[tokio::test]
async fn machines_that_were_let_in_or_turned_away_and_peers_keep_no_newcomer_out() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let control = Control::start_known(address, sluicegate_control::identity::Identity::default()).await;
        open_to_all(&control).await;
        let ann = person(&control, "https://idp.example", "ann").await;
        for number in 0..WAITING_OF_SOURCE {
            let machine = Machine::new(Role::Peer);
            let begun = begin(&control, &machine).await.unwrap();
            if number % 2 == 0 {
                control.store.refuse_machine(&ann, &begun.code).await.unwrap();
                continue;
            }
            control.store.admit_machine(&ann, &begun.code).await.unwrap();
            let joined = enroll(&control, &machine, &begun.secret).await.unwrap();
            let agent = FakeAgent { machine, joined, held: None, network: None };
            client(&control, Some(agent.identity())).await.begin(BeginLogin::default()).await.unwrap();
        }
        begin(&control, &Machine::new(Role::Peer)).await.unwrap();
    }
}

#[tokio::test]
async fn what_somebody_was_shown_of_a_machine_is_what_joins() {
    let (control, devices) = site("[::1]:0").await;
    let machine = Machine::new(Role::Peer);
    let begun = begin(&control, &machine).await.unwrap();
    devices.agree("ann");
    assert!(admitted(&control, &begun).await.unwrap());
    let mut other = machine.request(&begun.secret);
    other.hostname = "controller".into();
    other.system.get_or_insert_default().os = "another".into();
    let mut client = connect(control.address, &control.ca(), None).await.unwrap();
    let joined = client.enroll(other).await.unwrap().into_inner();
    let peer = control.store.peer(&joined.peer_id).await.unwrap();
    assert_eq!((peer.hostname.as_str(), peer.name.as_str()), ("machine", "machine"));
    assert_ne!(peer.os, "another");
}

#[tokio::test]
async fn who_asks_or_begins_too_often_is_slowed_down() {
    let control = Control::start().await;
    let mut client = client(&control, None).await;
    let slowed = async |limited: &Status| {
        assert!(limited.message().contains("wait"), "{limited:?}");
    };
    let question = AskLogin { secret: "sgl_x".into() };
    let mut refusals = 0;
    soon("a limit", async {
        loop {
            match client.ask(question.clone()).await.unwrap_err() {
                status if status.code() == Code::ResourceExhausted => break slowed(&status).await,
                status => assert_eq!(status.code(), Code::NotFound),
            }
            refusals += 1;
        }
    })
    .await;
    assert!(refusals >= 120, "{refusals}");
    let bad = BeginLogin { csr_pem: "none".into(), ..BeginLogin::default() };
    soon("a limit", async {
        loop {
            match client.begin(bad.clone()).await.unwrap_err() {
                status if status.code() == Code::ResourceExhausted => break slowed(&status).await,
                status => assert_eq!(status.code(), Code::InvalidArgument),
            }
        }
    })
    .await;
    // Joining by a key goes on.
    connect(control.address, &control.ca(), None).await.unwrap();
    control.join(Role::Peer).await;
}
