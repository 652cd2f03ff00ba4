//! A question for a name as it goes through the tunnel, and its answer: DNS messages (RFC 1035), the question with the id of the
//! resource before it.
//!
//! Only A and AAAA have answers. Those of other types, such as HTTPS, may hold addresses that nobody has opened: of them the answer is that
//! the name has none. An answer has the addresses as the name's own, without the names that it is another one for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::overlay::BODY;

/// How long an answer is good for at the most: clients ask again long before a router lets go of what was asked.
pub(super) const GOOD_FOR: Duration = Duration::from_secs(300);

/// A question that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Whose name it is said to be, a resource's id.
    pub(super) resource: String,
    /// The name, in lower case and without a dot at its end.
    pub(super) name: String,
    /// As it was asked.
    pub(super) query: Query,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) code: ResponseCode,
    pub(super) records: Vec<Record>,
}

/// The question as it goes out; `None` where it is none that could.
pub(super) fn encode(resource: &str, query: &Query) -> Option<Vec<u8>> {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.add_query(query.clone());
    let mut body = vec![u8::try_from(resource.len()).ok()?];
    body.extend(resource.as_bytes());
    body.extend(message.to_vec().ok()?);
    (body.len() <= BODY).then_some(body)
}

/// Reads a question; `None` where it is none.
pub(super) fn decode(body: &[u8]) -> Option<Question> {
    let (length, rest) = body.split_first()?;
    let (resource, message) = rest.split_at_checked(usize::from(*length))?;
    let message = Message::from_vec(message).ok()?;
    let [query] = &message.queries[..] else { return None };
    let is_question =
        message.metadata.message_type == MessageType::Query && message.metadata.op_code == OpCode::Query;
    if !is_question || query.query_class != DNSClass::IN {
        return None;
    }
    let resource = String::from_utf8(resource.to_vec()).ok()?;
    Some(Question { resource, name: text(&query.name), query: query.clone() })
}

/// The answer as it goes out: as many of the addresses as fit, as good as `ttl` says and no longer than [`GOOD_FOR`].
pub(super) fn answer(
    query: &Query,
    code: ResponseCode,
    addresses: &BTreeSet<IpAddr>,
    ttl: Duration,
) -> Vec<u8> {
    let mut message = Message::response(0, OpCode::Query);
    message.metadata.response_code = code;
    message.add_query(query.clone());
    let ttl = u32::try_from(ttl.min(GOOD_FOR).as_secs()).unwrap_or_default();
    message.add_answers(addresses.iter().map(|address| {
        let data = match *address {
            IpAddr::V4(v4) => RData::A(v4.into()),
            IpAddr::V6(v6) => RData::AAAA(v6.into()),
        };
        Record::from_rdata(query.name.clone(), ttl, data)
    }));
    loop {
        // A name that was read can be written.
        let body = message.to_vec().unwrap_or_default();
        if body.len() <= BODY || message.answers.pop().is_none() {
            return body;
        }
    }
}

/// Reads an answer to `query`; `None` where it is none. What it says of other names is nobody's.
pub(super) fn read(body: &[u8], query: &Query) -> Option<Said> {
    let message = Message::from_vec(body).ok()?;
    if message.metadata.message_type != MessageType::Response || message.queries != [query.clone()] {
        return None;
    }
    let most = u32::try_from(GOOD_FOR.as_secs()).unwrap_or(u32::MAX);
    let ours = |record: &Record| record.name == query.name && record.record_type() == query.query_type;
    let records = message.answers.into_iter().filter(ours).map(|mut record| {
        record.ttl = record.ttl.min(most);
        record
    });
    Some(Said { code: message.metadata.response_code, records: records.collect() })
}

/// Whether addresses are asked for, and of which family; those of IPv6 where true.
pub(super) fn family(query: &Query) -> Option<bool> {
    match query.query_type {
        RecordType::A => Some(false),
        RecordType::AAAA => Some(true),
        _ => None,
    }
}

fn text(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: RecordType) -> Query {
        Query::query(Name::from_ascii(name).unwrap(), kind)
    }

    #[test]
    fn a_question_is_read_as_it_was_written_its_name_in_lower_case() {
        let query = query("A.Example.org.", RecordType::AAAA);
        let read = decode(&encode("resource-1", &query).unwrap()).unwrap();
        assert_eq!((&*read.resource, &*read.name, &read.query), ("resource-1", "a.example.org", &query));
        assert_eq!(encode(&"r".repeat(256), &query), None);
    }

    #[test]
    fn what_is_no_question_is_not_read() {
        let whole = encode("r", &query("a.example.org.", RecordType::A)).unwrap();
        assert!(decode(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), None, "{length}");
        }
        let with = |message: Message| [&[1, b'r'][..], &message.to_vec().unwrap()].concat();
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        assert_eq!(decode(&with(message.clone())), None, "nothing is asked");
        message.add_query(query("a.example.org.", RecordType::A));
        assert!(decode(&with(message.clone())).is_some());
        message.add_query(query("b.example.org.", RecordType::A));
        assert_eq!(decode(&with(message)), None, "two things are asked");
        let mut chaos = query("a.example.org.", RecordType::A);
        chaos.set_query_class(DNSClass::CH);
        assert_eq!(decode(&encode("r", &chaos).unwrap()), None);
        assert_eq!(decode(&with(Message::response(0, OpCode::Query))), None);
    }

    #[test]
    fn an_answer_has_the_addresses_and_is_good_for_five_minutes_at_the_most() {
        let query = query("a.example.org.", RecordType::A);
        let addresses = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap()).into();
        for (ttl, good_for) in [(37, 37), (86_400, 300)] {
            let body = answer(&query, ResponseCode::NoError, &addresses, Duration::from_secs(ttl));
            let said = read(&body, &query).unwrap();
            let seen: BTreeSet<IpAddr> =
                said.records.iter().filter_map(|record| record.data.ip_addr()).collect();
            assert_eq!((said.code, seen), (ResponseCode::NoError, addresses.clone()));
            assert!(said.records.iter().all(|record| record.ttl == good_for), "{said:?}");
        }
        let none = answer(&query, ResponseCode::NXDomain, &BTreeSet::new(), Duration::ZERO);
        assert_eq!(read(&none, &query), Some(Said { code: ResponseCode::NXDomain, records: Vec::new() }));
    }

    #[test]
    fn an_answer_to_another_question_is_none_and_other_names_in_it_are_nobodys() {
        let query = query("a.example.org.", RecordType::A);
        let addresses = ["192.0.2.1".parse().unwrap()].into();
        let body = answer(&query, ResponseCode::NoError, &addresses, GOOD_FOR);
        assert_eq!(read(&body, &self::query("b.example.org.", RecordType::A)), None);
        assert_eq!(read(&body, &self::query("a.example.org.", RecordType::AAAA)), None);
        assert_eq!(read(&body[1..], &query), None);
        let mut message = Message::from_vec(&body).unwrap();
        let other = |name: &str, data| Record::from_rdata(Name::from_ascii(name).unwrap(), 7, data);
        message.add_answer(other("b.example.org.", RData::A("192.0.2.9".parse().unwrap())));
        message.add_answer(other("a.example.org.", RData::AAAA("2001:db8::9".parse().unwrap())));
        let said = read(&message.to_vec().unwrap(), &query).unwrap();
        assert_eq!(said.records.len(), 1, "{said:?}");
    }

    #[test]
    fn of_more_addresses_than_a_packet_carries_those_that_fit_are_told() {
        let name = format!("{0}.{0}.{0}.example.org.", "a".repeat(60));
        for (kind, all, told) in [(RecordType::A, 64, 58..=64), (RecordType::AAAA, 64, 30..=40)] {
            let address = |n: u16| match kind {
                RecordType::A => IpAddr::from([192, 0, 2, n as u8]),
                _ => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]),
            };
            let query = query(&name, kind);
            let body = answer(&query, ResponseCode::NoError, &(0..all).map(address).collect(), GOOD_FOR);
            assert!(body.len() <= BODY);
            let count = read(&body, &query).unwrap().records.len();
            assert!(told.contains(&count), "{kind}: {count}");
        }
    }
}
