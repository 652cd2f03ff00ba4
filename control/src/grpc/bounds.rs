//! How much one message of an agent may hold, counted in its bytes before anything is made of it.
//!
//! An element of a list that has nothing in it is two bytes on the wire, and a hundred or two once it is decoded: four megabytes of
//! such would be hundreds. So the elements of each list are counted first, by walking the wire format (protobuf.dev,
//! "Encoding") along those fields of `agent.proto` that repeat, and a message with more than any honest one has is refused.

/// What is to be counted of a kind of message; other fields hold no more in memory than on the wire.
pub(super) struct Shape(&'static [(u32, Part)]);

enum Part {
    /// A list, or a map.
    Many(List),
    /// A message with lists in it.
    One(&'static Shape),
}

/// A list whose elements are counted, wherever in a message its parts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Acknowledgements,
    FlowEvents,
    Drops,
    Rules,
    Degraded,
    Links,
    Addresses,
    Processes,
    LiveFlows,
    RuleNames,
    Learned,
    DnsLabels,
}

/// What lists are called and how many elements they may have, in the order of [`List`]. Together they are less than 30 MB of memory.
const MOST: [(&str, usize); 12] = [
    ("acknowledgements", 1_024),
    ("flow events", 16_384),
    ("drop reasons", 1_024),
    ("rules", 65_536),
    ("degraded conditions", 1_024),
    ("links", 65_536),
    ("addresses", 65_536),
    ("processes", 65_536),
    ("live flows", 16_384),
    ("names of rules", 65_536),
    ("addresses of names", 16_384),
    ("DNS labels", 1_024),
];

/// `ReportRequest`.
pub(super) static REPORT: Shape = Shape(&[
    (1, Part::Many(List::Acknowledgements)),
    (2, Part::One(&HEALTH)),
    (3, Part::Many(List::FlowEvents)),
    (5, Part::One(&FACTS)),
    (6, Part::One(&FLOW_LIST)),
    (7, Part::One(&LEARNED)),
]);
/// `SyncRequest`.
pub(super) static SYNC: Shape = Shape(&[(6, Part::One(&FACTS))]);
/// `EnrollRequest`.
pub(super) static ENROLL: Shape = Shape(&[(7, Part::Many(List::DnsLabels))]);
static HEALTH: Shape = Shape(&[
    (7, Part::Many(List::Drops)),
    (8, Part::Many(List::Rules)),
    (9, Part::Many(List::Degraded)),
    (10, Part::Many(List::Links)),
]);
static FACTS: Shape = Shape(&[(1, Part::One(&ADDRESSES)), (2, Part::Many(List::Processes))]);
static ADDRESSES: Shape = Shape(&[(1, Part::Many(List::Addresses))]);
static LEARNED: Shape = Shape(&[(1, Part::Many(List::Learned))]);
static FLOW_LIST: Shape = Shape(&[(3, Part::Many(List::LiveFlows)), (4, Part::Many(List::RuleNames))]);

/// Why a message is not taken in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// More than any agent has to tell.
    #[error("the message has more than {1} {0}, which no agent has: it is not read")]
    TooMany(&'static str, usize),
    /// No message of agents.
    #[error("the message cannot be read: {0}")]
    Malformed(&'static str),
}

/// Refuses a message with more in one of its lists than there may be.
pub(super) fn check(message: &[u8], shape: &Shape) -> Result<(), Refusal> {
    walk(message, shape, &mut [0; MOST.len()])
}

/// A message may come in several parts, whose lists are put together: so `counts` is of the whole.
fn walk(mut rest: &[u8], shape: &Shape, counts: &mut [usize; MOST.len()]) -> Result<(), Refusal> {
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let field =
            u32::try_from(key >> 3).map_err(|_| Refusal::Malformed("a field's number is too large"))?;
        let part = shape.0.iter().find(|(number, _)| *number == field).map(|(_, part)| part);
        match (key & 7, part) {
            (2, part) => {
                let length = varint(&mut rest)?;
                let inside = take(&mut rest, length)?;
                match part {
                    Some(Part::One(shape)) => walk(inside, shape, counts)?,
                    Some(Part::Many(list)) => count(*list, counts)?,
                    None => {}
                }
            }
            (_, Some(_)) => return Err(Refusal::Malformed("a list or message in it is of another type")),
            (0, None) => drop(varint(&mut rest)?),
            (1, None) => drop(take(&mut rest, 8)?),
            (5, None) => drop(take(&mut rest, 4)?),
            // Groups, which this format's third version does not have, and what it never had.
            _ => return Err(Refusal::Malformed("a field in it is of a type that is not used")),
        }
    }
    Ok(())
}

fn count(list: List, counts: &mut [usize; MOST.len()]) -> Result<(), Refusal> {
    let (name, most) = MOST[list as usize];
    let count = &mut counts[list as usize];
    *count += 1;
    if *count > most { Err(Refusal::TooMany(name, most)) } else { Ok(()) }
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], Refusal> {
    let cut = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, left) = cut.ok_or(Refusal::Malformed("it ends in the middle of a field"))?;
    *rest = left;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Refusal> {
    prost::encoding::decode_varint(rest).map_err(|_| Refusal::Malformed("a number in it is not whole"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message;
    use sluicegate_api::agent::facts::Addresses;
    use sluicegate_api::agent::{
        Acknowledgement, EnrollRequest, Facts, FlowEvent, FlowList, Health, Learned, LearnedAddress,
        LinkState, LiveFlow, Process, ReportRequest, RuleCounter, RuleName, SyncRequest,
    };

    use super::*;

    fn report(of: List, many: usize) -> ReportRequest {
        let mut report = ReportRequest::default();
        let (mut health, mut list, mut facts) = (Health::default(), FlowList::default(), Facts::default());
        match of {
            List::Acknowledgements => report.acknowledgements = vec![Acknowledgement::default(); many],
            List::FlowEvents => report.flows = vec![FlowEvent::default(); many],
            List::Drops => health.drops = (0..many).map(|n| (n.to_string(), 1)).collect(),
            List::Rules => health.rules = vec![RuleCounter::default(); many],
            List::Degraded => health.degraded = vec![String::new(); many],
            List::Links => health.links = vec![LinkState::default(); many],
            List::Addresses => facts.addresses = Some(Addresses { prefixes: vec![String::new(); many] }),
            List::Processes => facts.processes = vec![Process::default(); many],
            List::LiveFlows => list.flows = vec![LiveFlow::default(); many],
            List::RuleNames => list.rules = vec![RuleName::default(); many],
            List::Learned => {
                report.learned = Some(Learned { addresses: vec![LearnedAddress::default(); many] });
            }
            List::DnsLabels => panic!("no report has those"),
        }
        report.health = Some(health);
        report.facts = Some(facts);
        report.flow_list = Some(list);
        report
    }

    const ALL: [List; MOST.len()] = [
        List::Acknowledgements,
        List::FlowEvents,
        List::Drops,
        List::Rules,
        List::Degraded,
        List::Links,
        List::Addresses,
        List::Processes,
        List::LiveFlows,
        List::RuleNames,
        List::Learned,
        List::DnsLabels,
    ];

    #[test]
    fn of_every_list_as_many_as_there_may_be_are_taken_and_not_one_more() {
        for (list, (name, most)) in ALL.into_iter().zip(MOST) {
            assert_eq!(ALL[list as usize], list);
            if list == List::DnsLabels {
                continue;
            }
            let whole = report(list, most).encode_to_vec();
            assert_eq!(check(&whole, &REPORT), Ok(()), "{name}");
            let refused = Err(Refusal::TooMany(name, most));
            assert_eq!(check(&report(list, most + 1).encode_to_vec(), &REPORT), refused);
            // Two halves of a message are one message.
            let halves = [whole, report(list, 1).encode_to_vec()].concat();
            if list != List::Drops {
                assert_eq!(check(&halves, &REPORT), refused);
            }
        }
        let facts = report(List::Processes, 65_537).facts;
        let sync = SyncRequest { facts, ..SyncRequest::default() };
        assert_eq!(check(&sync.encode_to_vec(), &SYNC), Err(Refusal::TooMany("processes", 65_536)));
        let join = |many| EnrollRequest { dns_labels: vec![String::new(); many], ..EnrollRequest::default() };
        assert_eq!(check(&join(1_024).encode_to_vec(), &ENROLL), Ok(()));
        assert_eq!(check(&join(1_025).encode_to_vec(), &ENROLL), Err(Refusal::TooMany("DNS labels", 1_024)));
    }

    #[test]
    fn what_is_taken_is_a_small_multiple_of_the_largest_message_in_memory() {
        let size = |list| match list {
            List::Acknowledgements => size_of::<Acknowledgement>(),
            List::FlowEvents => size_of::<FlowEvent>(),
            // An entry of a hash table that is half full.
            List::Drops => 2 * size_of::<(String, u64)>(),
            List::Rules => size_of::<RuleCounter>(),
            List::Degraded | List::Addresses | List::DnsLabels => size_of::<String>(),
            List::Links => size_of::<LinkState>(),
            List::Processes => size_of::<Process>(),
            List::LiveFlows => size_of::<LiveFlow>(),
            List::RuleNames => size_of::<RuleName>(),
            List::Learned => size_of::<LearnedAddress>(),
        };
        let memory: usize = ALL.into_iter().map(|list| MOST[list as usize].1 * size(list)).sum();
        assert!(memory < 30 << 20, "{memory}");
    }

    #[test]
    fn what_is_no_message_of_agents_is_refused() {
        for bytes in [
            &[0x0a, 5, 1][..],
            &[0x80],
            // A list as a number, a group, and types that never were.
            &[0x08, 1],
            &[0x33, 0x34],
            &[0x3b, 0x3c],
            &[0x3e],
            &[0xff; 11],
            &[0x39, 1],
        ] {
            assert!(matches!(check(bytes, &REPORT), Err(Refusal::Malformed(_))), "{bytes:?}");
        }
        // Of a later version, of every type that is in use.
        assert_eq!(
            check(&[0x78, 1, 0x7a, 1, 9, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7d, 1, 2, 3, 4], &REPORT),
            Ok(())
        );
    }

    /// Every list that a message of agents can hold is counted: held against `agent.proto`, so that a new one is not forgotten.
    #[test]
    fn every_list_of_agents_messages_is_counted() {
        let text = include_str!("../../../api/proto/agent.proto");
        let mut messages: BTreeMap<&str, Vec<(&str, &str, u32)>> = BTreeMap::new();
        let mut open: Vec<&str> = Vec::new();
        for line in text.lines().map(|line| line.split("//").next().unwrap().trim()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [kind, name, "{"] => open.push(if kind == "message" { name } else { "" }),
                ["}"] => drop(open.pop()),
                [.., "=", number] => {
                    let Some(message) = open.last().filter(|name| !name.is_empty()) else { continue };
                    let Ok(number) = number.trim_end_matches(';').parse() else { continue };
                    let many = words[0] == "repeated" || words[0].starts_with("map<");
                    let kind = if words[0] == "repeated" { words[1] } else { words[0] };
                    messages.entry(message).or_default().push((
                        if many { "many" } else { "one" },
                        kind,
                        number,
                    ));
                }
                _ => {}
            }
        }
        fn holds_lists(messages: &BTreeMap<&str, Vec<(&str, &str, u32)>>, message: &str) -> bool {
            let fields = messages.get(message).into_iter().flatten();
            fields.into_iter().any(|(many, kind, _)| *many == "many" || holds_lists(messages, kind))
        }
        fn compare(messages: &BTreeMap<&str, Vec<(&str, &str, u32)>>, message: &str, shape: &Shape) {
            let mut counted = 0;
            for (many, kind, number) in &messages[message] {
                let part = shape.0.iter().find(|(own, _)| own == number).map(|(_, part)| part);
                counted += usize::from(part.is_some());
                match (*many, part) {
                    ("many", Some(Part::Many(_))) => {
                        assert!(!holds_lists(messages, kind), "{kind} in {message} has lists of its own");
                    }
                    ("one", Some(Part::One(shape))) => compare(messages, kind, shape),
                    ("one", None) => assert!(!holds_lists(messages, kind), "{kind} in {message}"),
                    _ => panic!("field {number} of {message} is not counted as what it is"),
                }
            }
            assert_eq!(counted, shape.0.len(), "{message}");
        }
        compare(&messages, "ReportRequest", &REPORT);
        compare(&messages, "SyncRequest", &SYNC);
        compare(&messages, "EnrollRequest", &ENROLL);
    }
}
