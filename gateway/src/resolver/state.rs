//! How the resolver goes, as others read it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_resolver::proto::rr::Name;

use super::answer::Answers;
use super::wanted::Wanted;
use super::zones::Kind;
use crate::config::HostMode;
use crate::status;

/// How it goes, of which each holds the lock for moments.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<State>>);

/// How it goes.
pub(super) struct State {
    pub(super) wanted: Option<Arc<Wanted>>,
    pub(super) listening: Vec<SocketAddr>,
    pub(super) host: HostMode,
    /// Whether the host asks this agent.
    pub(super) host_asks: bool,
    pub(super) degraded: Vec<String>,
}

impl Shared {
    pub(super) fn new(host: HostMode) -> Self {
        let state =
            State { wanted: None, listening: Vec::new(), host, host_asks: false, degraded: Vec::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The status; `None` while nothing is wanted.
pub(super) fn status(shared: &Shared, answers: &Answers) -> Option<status::Dns> {
    let (wanted, listening, host, host_asks) = {
        let state = shared.lock();
        (state.wanted.clone()?, state.listening.clone(), state.host, state.host_asks)
    };
    let known = answers.known();
    let server = |address: &SocketAddr| {
        let row = answers.forwarder.row(address)?;
        let failure = |(reason, count): (&str, u64)| status::DnsFailures { reason: reason.into(), count };
        Some(status::DnsServer {
            address: address.to_string(),
            silent: row.silent,
            questions: row.questions,
            failures: row.failures.into_iter().map(failure).collect(),
        })
    };
    let zone = |zone: &super::zones::Zone| status::DnsZone {
        domain: text(&zone.apex),
        kind: match zone.kind {
            Kind::Peers => "peers",
            Kind::Records => "records",
            Kind::Reverse => "reverse",
        }
        .into(),
        names: zone.count() as u64,
    };
    let routed = |routed: &super::wanted::RoutedName| status::DnsRouted {
        name: format!("{}{}", if routed.below { "*." } else { "" }, text(&routed.domain)),
        resource_id: routed.resource.clone(),
    };
    let forward = |forward: &super::wanted::Forward| status::DnsForward {
        id: forward.id.clone(),
        name: forward.name.clone(),
        domains: forward.domains.iter().map(text).collect(),
        servers: forward.servers.iter().filter_map(server).collect(),
    };
    let questions = answers.counts.questions();
    let refused = answers.counts.refusals();
    Some(status::Dns {
        listening: listening.iter().map(ToString::to_string).collect(),
        host: host.name().into(),
        host_asks,
        zones: known.table.zones().iter().map(zone).collect(),
        routed: wanted.routed.iter().map(routed).collect(),
        forwards: wanted.forwards.iter().map(forward).collect(),
        upstreams: known.upstreams.iter().filter_map(server).collect(),
        questions: questions
            .map(|(by, result, count)| status::DnsQuestions { by: by.into(), result: result.into(), count })
            .collect(),
        refused: refused
            .map(|(reason, count)| status::DnsFailures { reason: reason.into(), count })
            .collect(),
    })
}

fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}
