use super::*;
use crate::driver::plan::tests::{GATEWAY, OTHER, USER, snapshot};
use crate::store::Snapshot;

fn remotes(snapshot: &Snapshot, before: Option<&Remotes>) -> Remotes {
    Remotes::new(&snapshot.agents, &snapshot.state.peers, before)
}

#[test]
fn of_another_state_only_who_is_another_is_written_anew() {
    type Change = fn(&mut Snapshot);
    let changes: [(&str, Change); 6] = [
        ("name", |next| next.state.peers.get_mut(USER).unwrap().name = "new".into()),
        ("v4", |next| next.state.peers.get_mut(USER).unwrap().v4 = [100, 90, 0, 9].into()),
        ("v6", |next| next.state.peers.get_mut(USER).unwrap().v6 = "fd5c::9".parse().unwrap()),
        ("key", |next| next.agents.get_mut(USER).unwrap().wireguard_public_key = [9; 32]),
        ("endpoint", |next| next.agents.get_mut(USER).unwrap().endpoint = "[2001:db8::9]:51820".parse().ok()),
        ("labels", |next| next.agents.get_mut(USER).unwrap().dns_labels = ["new".to_owned()].into()),
    ];
    let first = remotes(&snapshot(), None);
    for (what, change) in changes {
        let mut next = snapshot();
        change(&mut next);
        let second = remotes(&next, Some(&first));
        let scratch = remotes(&next, None);
        assert_ne!(second.of(USER), first.of(USER), "{what}");
        for id in [GATEWAY, USER, OTHER] {
            assert_eq!(second.of(id), scratch.of(id), "{what}: {id}");
            let shared = Arc::ptr_eq(&second.of(id).unwrap(), &first.of(id).unwrap());
            assert_eq!(shared, id != USER, "{what}: {id}");
        }
    }
}

#[test]
fn nobody_is_written_anew_for_what_others_are_not_told() {
    let first = remotes(&snapshot(), None);
    let mut next = snapshot();
    next.state.peers.get_mut(USER).unwrap().allowed = false;
    next.agents.get_mut(USER).unwrap().watched = ["/usr/bin/clamd".to_owned()].into();
    assert!(Arc::ptr_eq(&remotes(&next, Some(&first)).remotes, &first.remotes));
}

#[test]
fn who_comes_is_there_and_who_goes_is_not() {
    let whole = remotes(&snapshot(), None);
    let mut less = snapshot();
    less.state.peers.remove(USER);
    less.agents.remove(USER);
    let less = remotes(&less, Some(&whole));
    assert_eq!((less.of(USER), less.of(OTHER)), (None, whole.of(OTHER)));
    let again = remotes(&snapshot(), Some(&less));
    assert_eq!(again.of(USER), whole.of(USER));
    // One comes as another goes: as many as before.
    let mut other = snapshot();
    let (peer, agent) = (other.state.peers.remove(USER).unwrap(), other.agents.remove(USER).unwrap());
    other.state.peers.insert("new".into(), peer);
    other.agents.insert("new".into(), agent);
    let other = remotes(&other, Some(&whole));
    assert_eq!((other.of(USER), other.of("new").is_some()), (None, true));
}
