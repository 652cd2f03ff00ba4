//! Questions as they are read off the wire, and answers as they are written to it.

use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, RecordType};
use hickory_resolver::proto::serialize::binary::{BinDecodable as _, BinDecoder};

/// Bytes of a datagram that every client takes (RFC 1035 4.2.1).
const DATAGRAM: u16 = 512;
/// Bytes of a datagram at the most, whatever a client says it takes.
pub(super) const LONGEST_DATAGRAM: u16 = 4096;
/// Bytes of a message over TCP at the most, by its length of two bytes.
pub(super) const LONGEST: u16 = u16::MAX;

/// One question and how it was put.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) question: Query,
    /// Whether signatures are wanted with the answer (RFC 3225).
    pub(super) dnssec: bool,
    /// Whether whoever asks checks them itself.
    pub(super) unchecked: bool,
    /// Whether whoever asks understands that answers are checked (RFC 6840 5.7).
    pub(super) authentic: bool,
    /// Bytes of a datagram that the client takes.
    datagram: u16,
    id: u16,
    recursion: bool,
    edns: bool,
}

/// What came off the wire.
#[derive(Debug)]
pub(super) enum Read {
    /// A question.
    Asked(Box<Asked>),
    /// No question that can be answered; what is said to that.
    Wrong(Box<Message>),
    /// Nothing that anything is said to.
    Nothing,
}

/// Reads what came off the wire.
pub(super) fn read(bytes: &[u8]) -> Read {
    let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else { return Read::Nothing };
    // An answer to an answer could go on for ever.
    if header.message_type == MessageType::Response {
        return Read::Nothing;
    }
    let wrong = |code| Read::Wrong(Box::new(Message::error_msg(header.id, header.op_code, code)));
    if header.op_code != OpCode::Query {
        return wrong(ResponseCode::NotImp);
    }
    let Ok(message) = Message::from_vec(bytes) else { return wrong(ResponseCode::FormErr) };
    let [question] = &message.queries[..] else { return wrong(ResponseCode::FormErr) };
    let edns = message.edns.as_ref();
    let asked = Asked {
        question: question.clone(),
        dnssec: edns.is_some_and(|edns| edns.flags().dnssec_ok),
        unchecked: header.checking_disabled,
        authentic: header.authentic_data,
        datagram: edns.map_or(DATAGRAM, Edns::max_payload).clamp(DATAGRAM, LONGEST_DATAGRAM),
        id: header.id,
        recursion: header.recursion_desired,
        edns: edns.is_some(),
    };
    let refused = |code| Read::Wrong(Box::new(asked.response(code)));
    if edns.is_some_and(|edns| edns.version() > 0) {
        return refused(ResponseCode::BADVERS);
    }
    let transfer = matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR);
    if question.query_class() != DNSClass::IN || transfer {
        return refused(ResponseCode::Refused);
    }
    Read::Asked(Box::new(asked))
}

impl Asked {
    /// The head of an answer, still without records.
    pub(super) fn response(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.response_code = code;
        message.metadata.recursion_desired = self.recursion;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.unchecked;
        message.add_query(self.question.clone());
        if self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(LONGEST_DATAGRAM).set_dnssec_ok(self.dnssec);
            message.set_edns(edns);
        }
        message
    }

    /// Bytes of an answer by UDP at the most.
    pub(super) fn datagram(&self) -> u16 {
        self.datagram
    }
}

/// An answer in `most` bytes at the most: what does not fit is left out, and that is said.
pub(super) fn write(message: &Message, most: u16) -> Result<Vec<u8>, ProtoError> {
    let whole = message.to_vec();
    match whole {
        Ok(bytes) if bytes.len() <= usize::from(most) => Ok(bytes),
        _ => message.truncate().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::TXT;
    use hickory_resolver::proto::rr::{Name, RData, Record};

    use super::*;

    fn question() -> Message {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii("A.example.org.").unwrap(), RecordType::A));
        message.metadata.recursion_desired = true;
        message
    }

    fn asked(message: &Message) -> Asked {
        match read(&message.to_vec().unwrap()) {
            Read::Asked(asked) => *asked,
            other => panic!("{other:?}"),
        }
    }

    fn code(bytes: &[u8]) -> Option<ResponseCode> {
        match read(bytes) {
            Read::Wrong(message) => Some(message.metadata.response_code),
            Read::Asked(_) | Read::Nothing => None,
        }
    }

    #[test]
    fn a_question_comes_back_in_its_answer_as_it_was_written() {
        let sent = question();
        let response = asked(&sent).response(ResponseCode::NoError);
        assert_eq!((response.metadata.id, &response.queries), (sent.metadata.id, &sent.queries));
        assert!(response.queries[0].name().eq_case(sent.queries[0].name()), "upper case stays");
        assert!(response.metadata.recursion_desired && response.metadata.recursion_available);
        assert_eq!(response.edns, None, "who does not speak EDNS is not spoken to in it");
        let mut with_edns = sent;
        with_edns.edns = Some(Edns::new().set_max_payload(9000).set_dnssec_ok(true).clone());
        let asked = asked(&with_edns);
        assert_eq!((asked.datagram(), asked.dnssec), (LONGEST_DATAGRAM, true));
        assert!(asked.response(ResponseCode::NoError).edns.unwrap().flags().dnssec_ok);
    }

    #[test]
    fn what_is_no_question_is_refused_or_nothing_at_all() {
        let bytes = question().to_vec().unwrap();
        assert!(matches!(read(&bytes[..11]), Read::Nothing));
        assert_eq!(code(&bytes[..20]), Some(ResponseCode::FormErr));
        let mut none = question();
        none.queries.clear();
        assert_eq!(code(&none.to_vec().unwrap()), Some(ResponseCode::FormErr));
        let mut two = question();
        two.add_query(two.queries[0].clone());
        assert_eq!(code(&two.to_vec().unwrap()), Some(ResponseCode::FormErr));
        let mut notify = question();
        notify.metadata.op_code = OpCode::Notify;
        assert_eq!(code(&notify.to_vec().unwrap()), Some(ResponseCode::NotImp));
        let mut newer = question();
        newer.edns = Some(Edns::new().set_version(1).clone());
        assert_eq!(code(&newer.to_vec().unwrap()), Some(ResponseCode::BADVERS));
        for (class, kind) in [(DNSClass::CH, RecordType::A), (DNSClass::IN, RecordType::AXFR)] {
            let mut other = question();
            other.queries[0].set_query_class(class).set_query_type(kind);
            assert_eq!(code(&other.to_vec().unwrap()), Some(ResponseCode::Refused));
        }
        let answer = question().into_response();
        assert!(matches!(read(&answer.to_vec().unwrap()), Read::Nothing));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let bytes = question().to_vec().unwrap();
        for at in 0..bytes.len() {
            for value in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
                let mut spoilt = bytes.clone();
                spoilt[at] = value;
                drop(read(&spoilt));
                drop(read(&spoilt[..at]));
            }
        }
    }

    #[test]
    fn what_does_not_fit_into_a_datagram_is_left_out_and_that_is_said() {
        let asked = asked(&question());
        let mut response = asked.response(ResponseCode::NoError);
        let name = asked.question.name().clone();
        for n in 0..20 {
            let text = RData::TXT(TXT::new(vec![format!("{n}{}", "x".repeat(50))]));
            response.add_answer(Record::from_rdata(name.clone(), 5, text));
        }
        let short = write(&response, asked.datagram()).unwrap();
        assert!(short.len() <= 512);
        let short = Message::from_vec(&short).unwrap();
        assert!(short.metadata.truncation && short.answers.is_empty() && short.queries.len() == 1);
        let whole = Message::from_vec(&write(&response, LONGEST).unwrap()).unwrap();
        assert!(!whole.metadata.truncation && whole.answers.len() == 20);
    }
}
