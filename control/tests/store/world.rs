//! What the tests here make in a store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_control::store::{
    Action, Actor, End, EnrolledPeer, Enrollment, GroupChange, Location, NewSetupKey, PolicyChange,
    PortRange, Protocol, Role, RuleChange, RuleSpec, Store,
};
use sluicegate_policy::Compiler;
use tempfile::TempDir;

use crate::postgres;

/// Far beyond what anything here takes on a loaded machine: only a hang reaches it.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// A place for a store in a database that nothing else uses.
pub(crate) fn postgres_location() -> Location {
    Location::parse(&postgres::database(), None).unwrap()
}

/// Runs SQL in the database of a URL, as the server's superuser.
pub(crate) fn sql(url: &str, text: &str) -> String {
    let (_, socket) = url.split_once("?host=").unwrap();
    let database = url.split_once("localhost/").unwrap().1.split('?').next().unwrap();
    postgres::psql(Path::new(socket), &format!("\\c {database}\n{text}"))
}

/// Both kinds of store, each with a data directory.
pub(crate) fn places() -> [(TempDir, Location); 2] {
    let file = tempfile::tempdir().unwrap();
    let location = Location::file_in(file.path());
    [(file, location), (tempfile::tempdir().unwrap(), postgres_location())]
}

pub(crate) async fn open(location: &Location, directory: &Path) -> Store {
    Store::open_at(location, directory).await.unwrap()
}

/// Waits for what must come.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(HANG, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not come"),
    }
}

pub(crate) fn group(name: &str) -> GroupChange {
    GroupChange { name: name.into(), ..GroupChange::default() }
}

/// A policy of `rules` rules between everybody, all with the same port.
pub(crate) fn policy(name: &str, all: &str, rules: usize, port: u16) -> PolicyChange {
    let rule = |number| RuleChange {
        id: None,
        spec: RuleSpec {
            name: format!("{name} {number}"),
            description: String::new(),
            enabled: true,
            action: Action::Accept,
            bidirectional: false,
            protocol: Protocol::Tcp,
            ports: Vec::new(),
            port_ranges: vec![PortRange { start: port, end: port }],
            authorized_groups: Default::default(),
            sources: End::Groups(vec![all.into()]),
            destinations: End::Groups(vec![all.into()]),
        },
    };
    let rules = (0..rules).map(rule).collect();
    PolicyChange {
        name: name.into(),
        description: String::new(),
        enabled: true,
        source_posture_checks: Vec::new(),
        rules,
    }
}

pub(crate) async fn all(store: &Store) -> String {
    store.groups().await.unwrap().into_iter().find(|group| group.built_in).unwrap().id
}

pub(crate) async fn setup_key(store: &Store) -> String {
    let key = NewSetupKey { name: "key".into(), reusable: true, ..NewSetupKey::default() };
    store.create_setup_key(&Actor::system(), key).await.unwrap().1
}

/// What a machine says of itself, without a setup key.
pub(crate) fn machine(which: u8, role: Role) -> Enrollment {
    Enrollment {
        setup_key: String::new(),
        wireguard_public_key: [which; 32],
        identity_key: [which; 32],
        role,
        hostname: format!("host-{which}"),
        os: "linux".into(),
        kernel_version: "6.12".into(),
        version: "0.1.0".into(),
        connection_ip: None,
        dns_labels: Vec::new(),
    }
}

pub(crate) async fn join(store: &Store, setup_key: &str, which: u8, role: Role) -> EnrolledPeer {
    let enrollment = Enrollment { setup_key: setup_key.into(), ..machine(which, role) };
    store.enroll(&enrollment).await.unwrap()
}

/// SHA-256, in hex, of an agent's image compiled from scratch, and the revision it is of.
pub(crate) async fn image_from_scratch(store: &Store, agent: &str) -> (u64, String) {
    let snapshot = store.snapshot().await.unwrap();
    let image = Compiler::new(Arc::new(snapshot.state)).unwrap().compile(agent).unwrap();
    let hash = image.hash();
    (snapshot.revision, hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whatever holds of every store at rest: events in order, none beyond the revision, every revision with one.
pub(crate) async fn check_trail(store: &Store) {
    crate::audit::verify(store, None).await.unwrap();
    let (revision, mut events) = (store.revision().await.unwrap(), store.events().await.unwrap());
    events.reverse();
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert!(events.windows(2).all(|pair| pair[0].revision <= pair[1].revision), "the trail is in order");
    let mut revisions: Vec<u64> = events.iter().map(|event| event.revision).collect();
    revisions.dedup();
    assert_eq!(
        revisions,
        (1..=revision).collect::<Vec<_>>(),
        "every change has its event, and every event its change"
    );
}
