//! Answers one question: decides who holds its name, has that said, and follows names that stand for others.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::counts::{By, Counts, Outcome};
use super::forward::Forwarder;
use super::message::Asked;
use super::routed::{Routed, RoutedFailure};
use super::zones::{Holder, Kind, Look, Table};

/// Names that a name may be another one for, one after the other.
const HOPS: usize = 8;
/// Names of a chain that one answer is read for; the rest is asked for anew.
const LINKS: usize = 16;
/// How long all of that may take: what is said later is said to nobody.
const PATIENCE: Duration = Duration::from_secs(9);

/// Answers questions by what is known now.
#[derive(Default)]
pub(super) struct Answers {
    known: RwLock<Arc<Known>>,
    routed: RwLock<Option<Arc<dyn Routed>>>,
    pub(super) forwarder: Forwarder,
    pub(super) counts: Counts,
}

/// What questions are answered by. A question goes on with what was known when it was asked.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) table: Table,
    /// The host's own name servers, as they were before this agent came.
    pub(super) upstreams: Vec<SocketAddr>,
}

/// What somebody says of a name.
#[derive(Debug)]
struct Said {
    by: By,
    code: ResponseCode,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    /// Whether whoever says so answers for the name.
    authoritative: bool,
    /// Whether a name server has checked signatures.
    authentic: bool,
}

impl Answers {
    /// From now on questions are answered by this.
    pub(super) fn know(&self, known: Known) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }

    /// From now on names of resources are asked for by `routed`, or by nobody.
    pub(super) fn route(&self, routed: Option<Arc<dyn Routed>>) {
        *self.routed.write().unwrap_or_else(PoisonError::into_inner) = routed;
    }

    /// The answer to a question. Comes to an end by itself.
    pub(super) async fn answer(&self, asked: &Asked) -> Message {
        let known = self.known();
        let first = by(&known.table.holder(asked.question.name(), asked.question.query_type()));
        let said = match tokio::time::timeout(PATIENCE, self.follow(&known, asked)).await {
            Ok(said) => said,
            Err(_) => Said::failed(first),
        };
        self.counts.question(first, outcome(&said));
        let mut message = asked.response(said.code);
        message.metadata.authoritative = said.authoritative;
        message.metadata.authentic_data = said.authentic && (asked.dnssec || asked.authentic);
        message.answers = said.answers;
        message.authorities = said.authorities;
        message
    }

    /// Asks for the name, and for the ones that it leads to, each of whoever holds it.
    async fn follow(&self, known: &Known, asked: &Asked) -> Said {
        let kind = asked.question.query_type();
        let mut whole: Option<Said> = None;
        let mut asked = asked.clone();
        for _ in 0..HOPS {
            let name = asked.question.name().clone();
            let holder = known.table.holder(&name, kind);
            let mut said = self.say(known, holder, &asked).await;
            let own = |name: &Name| same(&holder, &known.table.holder(name, kind));
            let (end, next) = said.keep_own(&name, kind, own);
            // Who does not know it may not say that it has no addresses either, and clients take it so (RFC 8020).
            if said.code == ResponseCode::NXDomain && known.table.shares(&end, kind) {
                (said.code, said.authentic) = (ResponseCode::NoError, false);
            }
            let all = match whole.take() {
                Some(before) => before.then(said),
                None => said,
            };
            let Some(next) = next else { return all };
            let mut question = Query::query(next, kind);
            question.set_query_class(asked.question.query_class());
            asked.question = question;
            whole = Some(all);
        }
        // It leads in a circle, or as good as that.
        whole.map_or_else(|| Said::failed(By::Host), |said| Said::failed(said.by))
    }

    /// What the holder of a name says of it.
    async fn say(&self, known: &Known, holder: Holder<'_>, asked: &Asked) -> Said {
        let by = by(&holder);
        match holder {
            Holder::Zone(zone) => {
                let (code, answers) = match zone.look(asked.question.name(), asked.question.query_type()) {
                    Look::Records(records) => (ResponseCode::NoError, records),
                    Look::Nothing => (ResponseCode::NoError, Vec::new()),
                    Look::NoSuchName => (ResponseCode::NXDomain, Vec::new()),
                };
                let authorities = if answers.is_empty() { vec![zone.soa()] } else { Vec::new() };
                Said { by, code, answers, authorities, authoritative: true, authentic: false }
            }
            Holder::Routed(resources) => self.say_routed(resources, asked).await,
            Holder::Forward(servers) => self.say_forward(by, &servers.0, asked).await,
            Holder::Host => self.say_forward(by, &known.upstreams, asked).await,
        }
    }

    async fn say_routed(&self, resources: &[String], asked: &Asked) -> Said {
        let routed = self.routed.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut failed = Said::failed(By::Routed);
        let Some(routed) = routed else { return failed };
        for resource in resources {
            match routed.ask(resource, &asked.question).await {
                Ok(answer) => {
                    let (code, answers) = (answer.code, answer.records);
                    return Said { code, answers, ..failed };
                }
                Err(why) => {
                    tracing::debug!("{} is not answered by a router: {why}", asked.question.name());
                    if why == RoutedFailure::Refused {
                        failed.code = ResponseCode::Refused;
                    }
                }
            }
        }
        failed
    }

    async fn say_forward(&self, by: By, servers: &[SocketAddr], asked: &Asked) -> Said {
        let Some(answer) = self.forwarder.ask(servers, asked).await else { return Said::failed(by) };
        Said {
            by,
            code: answer.metadata.response_code,
            authentic: answer.metadata.authentic_data,
            authoritative: false,
            answers: answer.answers,
            authorities: answer.authorities,
        }
    }

    /// What questions are answered by now.
    pub(super) fn known(&self) -> Arc<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Said {
    fn failed(by: By) -> Self {
        Self {
            by,
            code: ResponseCode::ServFail,
            answers: Vec::new(),
            authorities: Vec::new(),
            authoritative: false,
            authentic: false,
        }
    }

    /// Leaves what is said of `name` and of the names that it leads to, as far as those are `own` names of whoever says so; the
    /// last of them, and the first one that is to be asked for beyond them.
    fn keep_own(
        &mut self,
        name: &Name,
        kind: RecordType,
        own: impl Fn(&Name) -> bool,
    ) -> (Name, Option<Name>) {
        let mut chain = vec![name.clone()];
        let mut beyond = None;
        let leads = !matches!(kind, RecordType::CNAME | RecordType::ANY);
        while let Some(next) = chain.last().filter(|_| leads).and_then(|end| self.alias(end)) {
            if chain.len() == LINKS || !own(next) {
                beyond = Some(next.clone());
                break;
            }
            if chain.contains(next) {
                break;
            }
            chain.push(next.clone());
        }
        // What names for others are made of, which signatures are checked by (RFC 6672).
        let above = |record: &Record| {
            let leads = leads && matches!(record.record_type(), RecordType::DNAME | RecordType::RRSIG);
            leads && chain.iter().any(|link| record.name.zone_of(link)) && own(&record.name)
        };
        self.answers.retain(|record| chain.contains(&record.name) || above(record));
        (chain.pop().unwrap_or_else(|| name.clone()), beyond)
    }

    /// The name that `name` is another one for.
    fn alias(&self, name: &Name) -> Option<&Name> {
        self.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(alias) if record.name == *name => Some(&alias.0),
            _ => None,
        })
    }

    /// What is said of a name and then of the one that it leads to. Who answers for the first is as good as for the whole (RFC
    /// 1035 4.1.1), and what nobody has checked is not checked.
    fn then(mut self, next: Self) -> Self {
        self.answers.extend(next.answers);
        self.authentic &= next.authentic;
        Self { code: next.code, authorities: next.authorities, ..self }
    }
}

fn by(holder: &Holder<'_>) -> By {
    match holder {
        Holder::Zone(zone) => match zone.kind {
            Kind::Peers => By::Peers,
            Kind::Records => By::Zone,
            Kind::Reverse => By::Reverse,
        },
        Holder::Routed(_) => By::Routed,
        Holder::Forward(_) => By::Forward,
        Holder::Host => By::Host,
    }
}

/// Whether it is the same who holds both, and not a zone of this agent's own, which says nothing but of the name asked for.
fn same(one: &Holder<'_>, other: &Holder<'_>) -> bool {
    match (one, other) {
        (Holder::Routed(one), Holder::Routed(other)) => one == other,
        (Holder::Forward(one), Holder::Forward(other)) => std::ptr::eq(*one, *other),
        (Holder::Host, Holder::Host) => true,
        _ => false,
    }
}

fn outcome(said: &Said) -> Outcome {
    match said.code {
        ResponseCode::NoError if said.answers.is_empty() => Outcome::Nothing,
        ResponseCode::NoError => Outcome::Answered,
        ResponseCode::NXDomain => Outcome::NoSuchName,
        _ => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests;
