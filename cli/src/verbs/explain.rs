//! `sluice policy explain`: control's evaluator, the same as the compiler's, in a person's words.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use sluicegate_policy::evaluate::{self, Query, Verdict};
use sluicegate_policy::model::Action;
use sluicegate_policy::service::Probe;
use sluicegate_policy::{Compiler, reach};

use super::policy::file;
use super::read;
use crate::client::Client;
use crate::destination::Destination;
use crate::error::Failure;
use crate::rest::explain::{Carrier, End, Explanation, Fact, Judgement, Loser, NearMiss, RuleRef};
use crate::terminal::{Terminal, Tone};

/// Prints whether a flow is admitted and why; exit code 4 when it is not.
pub(crate) async fn run(
    client: &Client,
    terminal: &mut Terminal<'_>,
    source: &str,
    destination: &Destination,
) -> Result<(), Failure> {
    let query = [("source", source), ("destination", &destination.host), ("service", &destination.service())];
    let answer: Value = client.query("/api/explain", &query).await?;
    let told: Explanation = read(&answer, "an explanation")?;
    tell(terminal, source, destination, &told, answer)
}

/// The same for a file as if it were all there is.
pub(crate) fn offline(
    terminal: &mut Terminal<'_>,
    path: &Path,
    source: &str,
    destination: &Destination,
) -> Result<(), Failure> {
    let file = file::read(path, terminal)?;
    let failed = |why: String| Failure::failed(format!("cannot judge {} alone", file.name)).why(why);
    let mut alone = file.file.alone().map_err(|error| failed(error.to_string()))?;
    for remark in &alone.remarks {
        terminal.note(format!("remark: {remark}"));
    }
    reach::stand_in(&mut [&mut alone.state]);
    let compiler = Compiler::new(Arc::new(alone.state)).map_err(|error| failed(error.to_string()))?;
    let probe = Probe::parse(&destination.service()).map_err(|error| Failure::usage(error.to_string()))?;
    let query = Query { source: source.to_owned(), destination: destination.host.clone(), probe };
    let told = explained(evaluate::explain(&compiler, &query));
    let answer = json!({ "allowed": told.allowed, "verdict": told.verdict, "summary": told.summary });
    tell(terminal, source, destination, &told, answer)
}

fn tell(
    terminal: &mut Terminal<'_>,
    source: &str,
    destination: &Destination,
    told: &Explanation,
    answer: Value,
) -> Result<(), Failure> {
    if told.verdict == "unknown" {
        let why: Vec<&str> = told.missing.iter().map(|fact| fact.sentence.as_str()).collect();
        return Err(Failure::failed(format!("cannot explain {source} -> {destination}"))
            .why(if why.is_empty() { told.summary.clone() } else { why.join("\n") })
            .next("see `sluice peer list` and `sluice network list`"));
    }
    if terminal.is_json() {
        terminal.json("policy-explain", json!({ "explanation": answer }))?;
    } else {
        print(terminal, told)?;
    }
    if matches!(told.verdict.as_str(), "allowed" | "not_judged") { Ok(()) } else { Err(Failure::denied()) }
}

fn print(terminal: &mut Terminal<'_>, told: &Explanation) -> Result<(), Failure> {
    let (tone, word) = match told.verdict.as_str() {
        "allowed" => (Tone::Good, "allowed"),
        "not_judged" => (Tone::Warn, "not judged"),
        _ => (Tone::Bad, "denied"),
    };
    let word = terminal.paint(tone, word);
    let end = |end: &Option<_>| end.as_ref().map(ToString::to_string).unwrap_or_default();
    terminal.line(format!(
        "{word}: {} -> {}, {}",
        end(&told.source),
        end(&told.destination),
        told.service
    ))?;

    let mut fact = |name: &str, value: String| terminal.line(format!("  {name:<8} {value}"));
    match &told.rule {
        Some(rule) => fact("by", says(rule))?,
        None if told.verdict == "no_rule" => fact("by", "no rule: what no rule accepts is denied".into())?,
        None => fact("because", told.summary.trim_start_matches("not judged: ").to_owned())?,
    }
    if let Some(gateway) = &told.gateway {
        let masquerade = if gateway.masquerade { "masqueraded" } else { "with the peer's own address" };
        fact(
            "through",
            format!(
                "{} (metric {}) into network '{}', resource '{}' {}, {masquerade}",
                gateway.name, gateway.metric, gateway.network, gateway.resource, gateway.prefix
            ),
        )?;
        for other in &gateway.others {
            fact("not via", format!("{}: {}", other.name, other.why))?;
        }
    }
    // The agents' own answers say something new only when they differ from the whole.
    if told.judgements.iter().any(|judgement| judgement.accepts != told.allowed) {
        for judgement in &told.judgements {
            let word = if judgement.accepts { "accepts" } else { "denies" };
            let rule = judgement.rule.as_ref().map_or_else(|| "no rule".to_owned(), says);
            fact("at", format!("{}: {word}, by {rule}", judgement.agent_name))?;
        }
    }
    for missing in &told.missing {
        fact("missing", missing.sentence.clone())?;
    }
    for near in &told.near_misses {
        let lacks: Vec<&str> = near.unmet.iter().map(|unmet| unmet.sentence.as_str()).collect();
        fact("nearest", format!("{}, but {}", near.rule, lacks.join(" and ")))?;
    }
    Ok(())
}

/// What the evaluator says, in the words of the REST interface.
fn explained(told: evaluate::Explanation) -> Explanation {
    fn facts<T: ToString>(facts: &[T]) -> Vec<Fact> {
        facts.iter().map(|fact| Fact { sentence: fact.to_string() }).collect()
    }
    let end = |end: evaluate::Endpoint| End {
        name: end.name.unwrap_or_default(),
        address: end.address.to_string(),
        resources: end.resources,
    };
    let rule = |rule: evaluate::RuleRef| RuleRef {
        policy_name: rule.policy_name,
        rule_name: rule.rule_name,
        action: if rule.action == Action::Accept { "accept" } else { "drop" }.to_owned(),
        service: rule.service,
    };
    let carrier = |carrier: evaluate::Carrier| Carrier {
        name: carrier.router.name,
        metric: carrier.router.metric,
        network: carrier.network,
        resource: carrier.resource,
        prefix: carrier.prefix.to_string(),
        masquerade: carrier.masquerade,
        others: (carrier.others.into_iter())
            .map(|other| Loser { name: other.router.name, why: other.why })
            .collect(),
    };
    let verdict = match told.verdict {
        Verdict::Allowed => "allowed",
        Verdict::Dropped => "dropped",
        Verdict::NoRule => "no_rule",
        Verdict::NotJudged => "not_judged",
        Verdict::Unknown => "unknown",
    };
    Explanation {
        allowed: told.allowed(),
        verdict: verdict.to_owned(),
        summary: told.summary,
        service: told.service,
        source: told.source.map(end),
        destination: told.destination.map(end),
        rule: told.rule.map(rule),
        gateway: told.carrier.map(carrier),
        judgements: (told.judgements.into_iter())
            .map(|said| Judgement {
                agent_name: said.agent_name,
                accepts: said.accepts,
                rule: said.rule.map(rule),
            })
            .collect(),
        missing: facts(&told.missing),
        near_misses: (told.near_misses.into_iter())
            .map(|near| NearMiss { rule: rule(near.rule), unmet: facts(&near.unmet) })
            .collect(),
    }
}

fn says(rule: &RuleRef) -> String {
    format!("{rule}: {} {}", rule.action, rule.service)
}
