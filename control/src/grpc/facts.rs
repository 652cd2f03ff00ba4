//! What agents say of their machines, as posture checks judge them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Instant;

use prost::Message;
use sluicegate_api::agent::{Facts, Process, SystemInfo, process};
use sluicegate_policy::posture::ProcessState;
use tonic::Status;

use super::{AgentService, clip, facts, store_status};
use crate::store::Told;

/// More addresses than a machine has. Of one that says it has more, none is known: a list cut short could leave out what is denied.
const ADDRESSES: usize = 512;

impl AgentService {
    /// Takes in what an agent says when its stream opens; whether it is believed. Who is not is not heard.
    pub(super) async fn hear_first(
        &self,
        peer: &str,
        from: Option<IpAddr>,
        system: Option<&SystemInfo>,
        said: Option<Facts>,
    ) -> Result<bool, Status> {
        if self.watch.is_held(peer, Instant::now()) {
            return Ok(false);
        }
        let mark = mark(from, said.as_ref());
        self.hear(peer, from, system, said, mark).await
    }

    /// Takes in what an agent reports; what it said before counts as a sign of life.
    pub(super) async fn hear_again(
        &self,
        peer: &str,
        from: Option<IpAddr>,
        said: Facts,
    ) -> Result<(), Status> {
        let mark = mark(from, Some(&said));
        if !self.watch.is_news(peer, mark, Instant::now()) {
            return Ok(());
        }
        self.hear(peer, from, None, Some(said), mark).await.map(drop)
    }

    async fn hear(
        &self,
        peer: &str,
        from: Option<IpAddr>,
        system: Option<&SystemInfo>,
        said: Option<Facts>,
        mark: u64,
    ) -> Result<bool, Status> {
        let now = Instant::now();
        let place = from.and_then(|from| self.places.of(from));
        let system_facts = facts(system, from);
        let said_of = said.as_ref().map_or(0, |said| said.processes.len());
        let watched = match said_of {
            0 => BTreeSet::new(),
            _ => self.store.watched(peer, &system_facts.os).await.map_err(store_status)?,
        };
        let told = Told {
            system: system_facts,
            os_version: system.map(|system| clip(&system.os_version)).unwrap_or_default(),
            place,
            addresses: said.as_ref().and_then(addresses),
            processes: said.map(|said| processes(said, &watched)).unwrap_or_default(),
        };
        // Each turn is a change that is compiled and written down. Whoever turns too often is not known to pass.
        let may_turn = || self.turns.attempt(peer, now).is_ok();
        let noted = self.store.note_facts_if(peer, &told, may_turn).await.map_err(store_status)?;
        if let Some(turns) = noted {
            self.metrics.count_turns(&turns);
            // What was left out may be watched when it is said again.
            let whole = told.processes.len() == said_of;
            self.watch.noted(peer, whole.then_some(mark), now);
            return Ok(true);
        }
        tracing::warn!(
            peer,
            "what this agent says of its machine changes too often; for now it is not believed"
        );
        let turns = self.store.note_silence(peer).await.map_err(store_status)?;
        self.metrics.count_turns(&turns);
        self.watch.hold(peer, now);
        Ok(false)
    }
}

/// What tells what was said from what is said later.
fn mark(from: Option<IpAddr>, said: Option<&Facts>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (from, said.map(Message::encode_to_vec)).hash(&mut hasher);
    hasher.finish()
}

fn addresses(said: &Facts) -> Option<Vec<ipnet::IpNet>> {
    let prefixes = &said.addresses.as_ref()?.prefixes;
    if prefixes.len() > ADDRESSES {
        return None;
    }
    // One that cannot be read could be one that is denied.
    prefixes.iter().map(|prefix| prefix.parse().ok()).collect()
}

/// How executables stand, those of them that are watched.
fn processes(said: Facts, watched: &BTreeSet<String>) -> BTreeMap<String, ProcessState> {
    let state = |process: &Process| match process.state() {
        process::State::Unspecified => None,
        process::State::Running => Some(ProcessState::Running),
        process::State::Stopped => Some(ProcessState::Stopped),
        process::State::Absent => Some(ProcessState::Absent),
        process::State::Hidden => Some(ProcessState::Hidden),
    };
    let asked = said.processes.into_iter().filter(|process| watched.contains(&process.path));
    asked.filter_map(|process| state(&process).map(|state| (process.path, state))).collect()
}

#[cfg(test)]
mod tests {
    use sluicegate_api::agent::facts::Addresses;

    use super::*;

    fn said(prefixes: Vec<String>) -> Facts {
        Facts { addresses: Some(Addresses { prefixes }), processes: Vec::new() }
    }

    #[test]
    fn a_list_that_is_too_long_or_cannot_be_read_is_not_known() {
        assert_eq!(addresses(&said(vec![])), Some(vec![]));
        assert_eq!(addresses(&said(vec!["192.0.2.7/24".into(), "2001:db8::7/64".into()])).unwrap().len(), 2);
        assert_eq!(addresses(&said(vec!["192.0.2.7/24".into(), "192.0.2.8".into()])), None);
        assert_eq!(addresses(&said(vec!["192.0.2.7/24".into(); ADDRESSES + 1])), None);
        assert_eq!(addresses(&Facts::default()), None);
    }

    #[test]
    fn what_is_not_said_of_an_executable_and_what_nobody_watches_is_not_known() {
        let process = |path: &str, state| Process { path: path.into(), state };
        let all = vec![process("/a", 1), process("/b", 0), process("/c", 9), process("/d", 1)];
        let watched = ["/a", "/b", "/c"].map(str::to_owned).into();
        let known = processes(Facts { addresses: None, processes: all }, &watched);
        assert_eq!(known, [("/a".to_owned(), ProcessState::Running)].into());
    }
}
