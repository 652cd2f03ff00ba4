//! Who reaches what: default deny, allow, ports, protocols, both families.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use sluicegate_lab::Namespace;

use super::agent::Agent;
use super::client::{Ask, Seen};
use super::table::{Row, Table};
use super::topology::{DB, Family, GW1, METRICS, WEB, site};
use super::world::World;

/// As many questions at once as make the waiting for denied ones bearable and leave the machine room to answer.
const AT_ONCE: usize = 4;

/// One row to be.
struct Question<'a> {
    who: &'a str,
    namespace: &'a Namespace,
    /// The host's name in the table.
    host: String,
    to: IpAddr,
    ask: Ask,
    /// The address the server is to see, for what is allowed.
    allowed_as: Option<Option<IpAddr>>,
    /// Whether `explain` can be asked: the source is a peer.
    explainable: bool,
}

pub(crate) fn before_any_policy(world: &World<'_>, table: &mut Table) -> Result<()> {
    let mut questions = Vec::new();
    for family in Family::BOTH {
        for peer in [&world.alice, &world.carol, &world.mona] {
            questions.push(to_site(peer, "web", WEB, Ask::Http(443), family, false));
        }
        questions.push(to_overlay(&world.alice, &world.gw1, world, Ask::Ping, family)?);
    }
    ask_all(world, &questions, table)
}

pub(crate) fn under_the_policies(world: &World<'_>, table: &mut Table) -> Result<()> {
    let (alice, carol, mona) = (&world.alice, &world.carol, &world.mona);
    let matrix: [(&Agent, &str, u8, Ask, bool); 17] = [
        (alice, "web", WEB, Ask::Http(443), true),
        (alice, "web", WEB, Ask::Tcp(8443), true),
        (alice, "web", WEB, Ask::Udp(443), true),
        (alice, "web", WEB, Ask::Ping, true),
        (alice, "web", WEB, Ask::Tcp(2222), false),
        (alice, "metrics", METRICS, Ask::Http(9100), false),
        (alice, "db", DB, Ask::Tcp(5432), false),
        (carol, "web", WEB, Ask::Http(443), true),
        (carol, "web", WEB, Ask::Tcp(8443), false),
        (carol, "web", WEB, Ask::Udp(443), false),
        (carol, "web", WEB, Ask::Ping, false),
        (carol, "metrics", METRICS, Ask::Http(9100), false),
        (carol, "db", DB, Ask::Tcp(5432), false),
        (mona, "metrics", METRICS, Ask::Http(9100), true),
        (mona, "metrics", METRICS, Ask::Ping, false),
        (mona, "web", WEB, Ask::Http(443), false),
        (mona, "db", DB, Ask::Tcp(5432), false),
    ];
    let mut questions = Vec::new();
    for family in Family::BOTH {
        for (peer, host, number, ask, allowed) in matrix {
            questions.push(to_site(peer, host, number, ask, family, allowed));
        }
        questions.push(to_overlay(alice, &world.carol, world, Ask::Ping, family)?);
        questions.push(to_overlay(alice, &world.gw1, world, Ask::Ping, family)?);
        questions.push(Question {
            who: "web server",
            namespace: &world.site.web,
            host: "alice".into(),
            to: alice.overlay(&world.control, family)?,
            ask: Ask::Ping,
            allowed_as: None,
            explainable: false,
        });
    }
    ask_all(world, &questions, table)
}

fn to_site<'a>(
    peer: &'a Agent,
    host: &str,
    number: u8,
    ask: Ask,
    family: Family,
    allowed: bool,
) -> Question<'a> {
    // Ping's answer does not tell which address the host saw.
    let seen_as = (ask != Ask::Ping).then(|| site(GW1, family));
    Question {
        who: peer.name(),
        namespace: &peer.namespace,
        host: host.into(),
        to: site(number, family),
        ask,
        allowed_as: allowed.then_some(seen_as),
        explainable: true,
    }
}

fn to_overlay<'a>(
    peer: &'a Agent,
    to: &Agent,
    world: &World<'_>,
    ask: Ask,
    family: Family,
) -> Result<Question<'a>> {
    Ok(Question {
        who: peer.name(),
        namespace: &peer.namespace,
        host: format!("{} itself", to.name()),
        to: to.overlay(&world.control, family)?,
        ask,
        allowed_as: None,
        explainable: true,
    })
}

/// Asks some at a time; rows come in the order of the questions.
fn ask_all(world: &World<'_>, questions: &[Question<'_>], table: &mut Table) -> Result<()> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((number, question)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|number| Some((number, questions.get(number)?)))
                {
                    let answer = question.answer(world);
                    answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((number, answer));
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    answers.sort_by_key(|(number, _)| *number);
    for (_, row) in answers {
        table.add(row?);
    }
    Ok(())
}

impl Question<'_> {
    fn answer(&self, world: &World<'_>) -> Result<Row> {
        let seen = match self.allowed_as {
            Some(_) => self.ask.until_answered(self.namespace, self.to, &world.traffic)?,
            None => self.ask.once(self.namespace, self.to, &world.traffic)?,
        };
        let family = if self.to.is_ipv4() { Family::V4 } else { Family::V6 };
        let (explained, rule) = if self.explainable {
            let explanation = explain(world, self.who, &self.ask.flow(self.to))?;
            (explanation.allowed == self.allowed_as.is_some(), explanation.reason)
        } else {
            (true, "none: it was not asked by a peer".into())
        };
        let as_expected = match (&seen, self.allowed_as) {
            (Seen::Answered(by), Some(expected)) => *by == expected,
            (Seen::Nothing(_), None) => true,
            _ => false,
        };
        Ok(Row {
            who: self.who.to_owned(),
            what: format!("{}, {}", self.ask.describe(&self.host), family.name()),
            expected: match self.allowed_as {
                Some(Some(address)) => format!("answered, as {address}"),
                Some(None) => "answered".into(),
                None => "nothing".into(),
            },
            seen: seen.describe(),
            rule,
            as_expected: as_expected && explained,
        })
    }
}

/// What `sluice policy explain` says.
pub(crate) struct Explanation {
    pub(crate) allowed: bool,
    /// `policy / rule`, or what is missing.
    pub(crate) reason: String,
}

pub(crate) fn explain(world: &World<'_>, peer: &str, flow: &str) -> Result<Explanation> {
    let finished = world.control.sluice(&["policy", "explain", peer, flow, "--output", "json"])?;
    // 0 is allowed, 4 is denied; anything else is a failure to explain.
    let code = finished.status.and_then(|status| status.code());
    let Some(code @ (0 | 4)) = code else {
        finished.output()?;
        return Err(anyhow!("`sluice policy explain {peer} {flow}` ended in an unknown way"));
    };
    let document: Value = serde_json::from_str(&finished.stdout).with_context(|| {
        format!("`sluice policy explain {peer} {flow}` wrote something unexpected: {}", finished.stdout)
    })?;
    Ok(Explanation { allowed: code == 0, reason: reason(&document["explanation"]) })
}

fn reason(explanation: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let rule = &explanation["rule"];
    match (text(&rule["policy_name"]), text(&rule["rule_name"])) {
        (Some(policy), Some(rule)) => format!("{policy} / {rule}"),
        _ => text(&explanation["summary"]).unwrap_or_else(|| "no rule".into()),
    }
}
