//! `sluice policy explain`: control's evaluator, the same as the compiler's, in a person's words.

use serde_json::{Value, json};

use super::read;
use crate::client::Client;
use crate::destination::Destination;
use crate::error::Failure;
use crate::rest::explain::{Explanation, RuleRef};
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
    if told.verdict == "unknown" {
        let why: Vec<&str> = told.missing.iter().map(|fact| fact.sentence.as_str()).collect();
        return Err(Failure::failed(format!("cannot explain {source} -> {destination}"))
            .why(if why.is_empty() { told.summary } else { why.join("\n") })
            .next("see `sluice peer list` and `sluice network list`"));
    }
    if terminal.is_json() {
        terminal.json("policy-explain", json!({ "explanation": answer }))?;
    } else {
        print(terminal, &told)?;
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

fn says(rule: &RuleRef) -> String {
    format!("{rule}: {} {}", rule.action, rule.service)
}
