//! Asks the routers of a resource for its names: the live one of lowest metric first, then the next.
//!
//! An answer is handed on when this agent reaches the addresses, and only with those.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use hickory_resolver::proto::op::{Query, ResponseCode};
use tokio::sync::watch;

use super::gate::{Gate, Side};
use super::question::{self, Said};
use super::tally::{Came, Tally};
use crate::overlay::Questions;
use crate::resolver::{Routed, RoutedAnswer, RoutedFailure};

/// Questions that are under way at the same time; equal ones are one.
const AT_ONCE: usize = 256;
/// How long a question may take, over all routers.
const QUESTION: Duration = Duration::from_secs(12);

/// Of whom names are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routers {
    /// Metric and overlay address of each router, by resource id.
    pub of: Arc<BTreeMap<String, BTreeSet<(u32, Ipv6Addr)>>>,
    /// Those that were heard of lately.
    pub live: BTreeSet<Ipv6Addr>,
}

impl Routers {
    /// The routers of a resource in the order in which they are asked: those that were not heard of lately last.
    fn in_turn(&self, resource: &str) -> Vec<Ipv6Addr> {
        let mut all: Vec<(bool, u32, Ipv6Addr)> = self
            .of
            .get(resource)
            .into_iter()
            .flatten()
            .map(|&(metric, router)| (!self.live.contains(&router), metric, router))
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(_, _, router)| router).collect()
    }
}

type Outcome = Result<RoutedAnswer, RoutedFailure>;
type Flights = HashMap<(String, Query), Shared<BoxFuture<'static, Outcome>>>;

/// Asks routers; clones are the same.
#[derive(Clone)]
pub struct Asker(Arc<Inner>);

struct Inner {
    questions: Arc<Questions>,
    routers: watch::Receiver<Routers>,
    gate: Gate,
    tally: Tally,
    flights: Mutex<Flights>,
}

impl Asker {
    pub(super) fn new(questions: Arc<Questions>, routers: watch::Receiver<Routers>, gate: Gate) -> Self {
        let (tally, flights) = (Tally::default(), Mutex::default());
        Self(Arc::new(Inner { questions, routers, gate, tally, flights }))
    }

    pub(super) fn tally(&self) -> Vec<(&'static str, u64)> {
        self.0.tally.all()
    }

    async fn share(&self, resource: &str, query: &Query) -> Outcome {
        let key = (resource.to_owned(), query.clone());
        let flight = {
            let mut flights = self.0.flights();
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None if flights.len() >= AT_ONCE => {
                    self.0.tally.note(Came::Limited);
                    return Err(RoutedFailure::NoAnswer);
                }
                None => {
                    let (inner, of) = (self.0.clone(), key.clone());
                    // A task of its own: who asked first may go away while others wait.
                    let task = tokio::spawn(async move {
                        let landing = Landing { inner, of };
                        landing.inner.ask(&landing.of.0, &landing.of.1).await
                    });
                    let flight =
                        task.map(|done| done.unwrap_or(Err(RoutedFailure::NoAnswer))).boxed().shared();
                    flights.insert(key, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }
}

/// A question that is under way no more, however that came.
struct Landing {
    inner: Arc<Inner>,
    of: (String, Query),
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.flights().remove(&self.of);
    }
}

impl Routed for Asker {
    fn ask<'a>(&'a self, resource_id: &'a str, question: &'a Query) -> BoxFuture<'a, Outcome> {
        self.share(resource_id, question).boxed()
    }
}

impl Inner {
    async fn ask(&self, resource: &str, query: &Query) -> Outcome {
        let asked = tokio::time::timeout(QUESTION, self.ask_in_turn(resource, query)).await;
        let (came, outcome) = asked.unwrap_or((Came::Silent, Err(RoutedFailure::NoAnswer)));
        self.tally.note(came);
        outcome
    }

    async fn ask_in_turn(&self, resource: &str, query: &Query) -> (Came, Outcome) {
        let routers = self.routers.borrow().in_turn(resource);
        let Some(body) = question::encode(resource, query) else {
            return (Came::Refused, Err(RoutedFailure::Refused));
        };
        let mut last = (Came::Silent, Err(RoutedFailure::NoRouter));
        for router in routers {
            let answer = self.questions.ask(router, &body).await;
            last = match answer.and_then(|answer| question::read(&answer, query)) {
                None => (Came::Silent, Err(RoutedFailure::NoAnswer)),
                Some(Said { code: ResponseCode::NoError, records }) if records.is_empty() => {
                    return (Came::Nothing, Ok(RoutedAnswer { code: ResponseCode::NoError, records }));
                }
                Some(said @ Said { code: ResponseCode::NoError, .. }) => {
                    return self.open(resource, said).await;
                }
                Some(Said { code: code @ ResponseCode::NXDomain, .. }) => {
                    return (Came::Nothing, Ok(RoutedAnswer { code, records: Vec::new() }));
                }
                Some(Said { code: ResponseCode::Refused, .. }) => {
                    (Came::Refused, Err(RoutedFailure::Refused))
                }
                Some(_) => (Came::Failed, Err(RoutedFailure::Unresolved)),
            };
        }
        last
    }

    /// Waits until this agent reaches the addresses; what it does not reach is not told.
    async fn open(&self, resource: &str, said: Said) -> (Came, Outcome) {
        let addresses: BTreeSet<IpAddr> =
            said.records.iter().filter_map(|record| record.data.ip_addr()).collect();
        let open = self.gate.pass(Side::Reached, resource, &addresses).await;
        let mut records = said.records;
        records.retain(|record| record.data.ip_addr().is_some_and(|address| open.contains(&address)));
        match records.is_empty() {
            true => (Came::Late, Err(RoutedFailure::NoAnswer)),
            false => (Came::Answered, Ok(RoutedAnswer { code: said.code, records })),
        }
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
