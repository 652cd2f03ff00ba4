use std::collections::BTreeSet;

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sluicegate_api::agent::{EnrollRequest, ReportRequest, Role, SyncRequest};
use sluicegate_control::pki::{AgentRequest, Authority, peer_id};
use sluicegate_control::store::{Actor, NewSetupKey};
use tonic::transport::Identity;
use tonic::{Code, Status};

use crate::support::{Control, Machine, connect};

fn enrolments(control: &Control, result: &str) -> u64 {
    control.agents.metrics().enrolments.with_label_values(&[result]).get()
}

#[tokio::test]
async fn a_machine_joins_over_either_ip_family_and_gets_a_certificate_for_its_own_key() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let control = Control::start_on(address).await;
        let agent = control.join(Role::Gateway).await;
        let leaf = CertificateDer::from_pem_slice(agent.joined.certificate_pem.as_bytes()).unwrap();
        assert_eq!(peer_id(&leaf).unwrap(), agent.id());
        assert_eq!(agent.joined.authority_pem, control.ca());
        let peer = control.store.peer(&agent.id()).await.unwrap();
        assert_eq!(peer.wireguard_public_key.to_vec(), agent.machine.wireguard);
        assert_eq!(enrolments(&control, "ok"), 1);
    }
}

#[tokio::test]
async fn a_machine_that_pins_another_authority_does_not_talk_to_this_control() {
    let control = Control::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Authority::open(elsewhere.path()).unwrap();
    assert!(connect(control.address, other.pem(), None).await.is_err());
    assert!(control.store.peers(None, None).await.unwrap().is_empty());
}

#[tokio::test]
async fn each_way_a_setup_key_can_be_bad_has_its_own_answer() {
    let control = Control::start().await;
    let (revoked_id, revoked) = control.setup_key_with(true, 0).await;
    let groups = control.store.setup_key(&revoked_id).await.unwrap().auto_groups;
    control.store.update_setup_key(&Actor::system(), &revoked_id, true, &groups).await.unwrap();
    let (expired_id, expired) = control.setup_key_with(true, 86_400).await;
    control.store.expire_setup_key(&expired_id).await.unwrap();
    let used = control.setup_key(false).await;
    Machine::new(Role::Peer).enroll(&control, &control.ca(), &used).await.unwrap();

    let mut messages = BTreeSet::new();
    for (key, code, word, result) in [
        ("no-such-key", Code::Unauthenticated, "unknown", "unknown_key"),
        (&revoked, Code::PermissionDenied, "revoked", "revoked_key"),
        (&expired, Code::PermissionDenied, "expired", "expired_key"),
        (&used, Code::FailedPrecondition, "used up", "used_up_key"),
    ] {
        let status = Machine::new(Role::Peer).enroll(&control, &control.ca(), key).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(word), "{status:?}");
        assert!(!status.message().contains(key), "no answer repeats a key: {status:?}");
        assert_eq!(enrolments(&control, result), 1, "{result}");
        messages.insert(status.message().to_owned());
    }
    assert_eq!(messages.len(), 4);
    assert_eq!(control.store.peers(None, None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn requests_that_cannot_be_are_refused_before_a_use_is_counted() {
    let control = Control::start().await;
    let (id, key) = control.setup_key_with(false, 0).await;
    let machine = Machine::new(Role::Peer);
    let good = || machine.request(&key);
    let bad = [
        EnrollRequest { wireguard_public_key: vec![7; 33], ..good() },
        EnrollRequest { wireguard_public_key: vec![0; 32], ..good() },
        EnrollRequest { csr_pem: "nonsense".into(), ..good() },
        EnrollRequest { role: 9, ..good() },
    ];
    let mut client = connect(control.address, &control.ca(), None).await.unwrap();
    for request in bad {
        assert_eq!(client.enroll(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(control.store.setup_key(&id).await.unwrap().used_times, 0);
    client.enroll(good()).await.unwrap();
}

#[tokio::test]
async fn dns_labels_come_with_the_request_and_a_refusal_says_what_is_wrong() {
    let control = Control::start().await;
    let (id, key) = control.setup_key_with(true, 0).await;
    let asking = |key: &str, labels: &[&str]| EnrollRequest {
        dns_labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        ..Machine::new(Role::Peer).request(key)
    };
    let mut client = connect(control.address, &control.ca(), None).await.unwrap();
    let refused = client.enroll(asking(&key, &["mail"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("does not allow them"), "{refused:?}");
    assert_eq!(control.store.setup_key(&id).await.unwrap().used_times, 0);

    let new = NewSetupKey {
        name: "labels".into(),
        reusable: true,
        allow_extra_dns_labels: true,
        ..NewSetupKey::default()
    };
    let key = control.store.create_setup_key(&Actor::system(), new).await.unwrap().1;
    let refused = client.enroll(asking(&key, &["no label"])).await.unwrap_err();
    assert!(refused.message().contains("is no DNS label"), "{refused:?}");
    let joined = client.enroll(asking(&key, &["mail"])).await.unwrap().into_inner();
    assert_eq!(control.store.peer(&joined.peer_id).await.unwrap().extra_dns_labels, ["mail"]);
    let refused = client.enroll(asking(&key, &["mail"])).await.unwrap_err();
    assert!(refused.message().contains("mail belongs to peer machine already"), "{refused:?}");
    assert_eq!(enrolments(&control, "refused_labels"), 3);
    assert_eq!(control.store.peers(None, None).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_machines_that_join_at_once_with_a_one_off_key_exactly_one_succeeds() {
    let control = Control::start().await;
    let (id, key) = control.setup_key_with(false, 0).await;
    let mut joins = Vec::new();
    for _ in 0..50 {
        let client = connect(control.address, &control.ca(), None).await.unwrap();
        let request = Machine::new(Role::Peer).request(&key);
        joins.push((client, request));
    }
    let joins: Vec<_> = joins
        .into_iter()
        .map(|(mut client, request)| tokio::spawn(async move { client.enroll(request).await.map(drop) }))
        .collect();
    let mut outcomes: Vec<Result<(), Status>> = Vec::new();
    for join in joins {
        outcomes.push(join.await.unwrap());
    }
    let refused: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 49);
    assert!(refused.iter().all(|status| status.code() == Code::FailedPrecondition), "{refused:?}");
    assert_eq!(control.store.peers(None, None).await.unwrap().len(), 1);
    assert_eq!(control.store.setup_key(&id).await.unwrap().used_times, 1);
}

#[tokio::test]
async fn too_many_attempts_from_one_address_are_slowed_down() {
    let control = Control::start().await;
    let mut client = connect(control.address, &control.ca(), None).await.unwrap();
    let request = Machine::new(Role::Peer).request("no-such-key");
    let mut limited = None;
    for _ in 0..1000 {
        let status = client.enroll(request.clone()).await.unwrap_err();
        if status.code() == Code::ResourceExhausted {
            limited = Some(status);
            break;
        }
    }
    assert!(limited.expect("the limit is reached").message().contains("try again"));
    assert!(enrolments(&control, "rate_limited") >= 1);
}

#[tokio::test]
async fn without_a_certificate_only_joining_is_possible() {
    let control = Control::start().await;
    let mut client = connect(control.address, &control.ca(), None).await.unwrap();
    let sync = client
        .sync(SyncRequest { protocol: sluicegate_api::PROTOCOL, ..SyncRequest::default() })
        .await
        .unwrap_err();
    let report = client.report(ReportRequest::default()).await.unwrap_err();
    assert_eq!((sync.code(), report.code()), (Code::Unauthenticated, Code::Unauthenticated));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_worth_nothing() {
    let control = Control::start().await;
    let agent = control.join(Role::Peer).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Authority::open(elsewhere.path()).unwrap();
    let key = KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let forged = other.sign_agent(&AgentRequest::from_pem(&csr).unwrap(), &agent.id()).unwrap();
    let identity = Identity::from_pem(forged, key.serialize_pem());
    // In TLS 1.3 the client learns of the refusal with the first answer.
    let outcome = match connect(control.address, &control.ca(), Some(identity)).await {
        Ok(mut client) => client
            .sync(SyncRequest { protocol: sluicegate_api::PROTOCOL, ..SyncRequest::default() })
            .await
            .map(drop)
            .is_err(),
        Err(_) => true,
    };
    assert!(outcome);
    assert!(!control.agents.hub().connected(&agent.id()));
}

#[tokio::test]
async fn a_certificate_for_a_peer_that_does_not_exist_opens_nothing() {
    let control = Control::start().await;
    let key = KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let request = AgentRequest::from_pem(&csr).unwrap();
    let certificate = control.agents.authority().sign_agent(&request, "gone").unwrap();
    let identity = Identity::from_pem(certificate, key.serialize_pem());
    let mut client = connect(control.address, &control.ca(), Some(identity)).await.unwrap();
    let sync = client
        .sync(SyncRequest { protocol: sluicegate_api::PROTOCOL, ..SyncRequest::default() })
        .await
        .unwrap_err();
    let report = client.report(ReportRequest::default()).await.unwrap_err();
    assert_eq!((sync.code(), report.code()), (Code::PermissionDenied, Code::PermissionDenied));
}
