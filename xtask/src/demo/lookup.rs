//! A question for the addresses of a name, as any program's: by UDP to a name server (RFC 1035).

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sluicegate_lab::Namespace;

use super::topology::Family;

/// How long a program waits for an answer, as resolv.conf(5) has it.
const ANSWER: Duration = Duration::from_secs(5);
const HEADER: usize = 12;

/// What a name server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The name's addresses of one family, maybe none.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoSuchName,
    /// It could not or would not say: the code of its answer.
    Failed(u8),
    /// It said nothing in time.
    Nothing,
}

impl Said {
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Addresses(addresses) if addresses.is_empty() => "no address".into(),
            Self::Addresses(addresses) => {
                addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
            }
            Self::NoSuchName => "no such name".into(),
            Self::Failed(2) => "server failure".into(),
            Self::Failed(5) => "refused".into(),
            Self::Failed(code) => format!("code {code}"),
            Self::Nothing => "no answer".into(),
        }
    }
}

/// Asks the server at `server`, port 53, from `namespace`.
pub(crate) fn ask(namespace: &Namespace, server: IpAddr, name: &str, family: Family) -> Result<Said> {
    let question = question(name, family);
    let asked = namespace.enter(|| -> Result<Said> {
        let any: IpAddr = if server.is_ipv6() { [0_u16; 8].into() } else { [0_u8; 4].into() };
        let socket = UdpSocket::bind((any, 0)).context("a socket for a question")?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.connect(SocketAddr::new(server, 53))?;
        let mut answer = [0; 4096];
        match socket.send(&question).and_then(|_| socket.recv(&mut answer)) {
            Ok(length) => read(&answer[..length], &question),
            Err(_) => Ok(Said::Nothing),
        }
    })?;
    asked.with_context(|| format!("the answer of {server} for {name}"))
}

fn question(name: &str, family: Family) -> Vec<u8> {
    // A number, recursion desired, one question.
    let mut bytes = vec![0x51, 0x57, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    let kind = if family == Family::V4 { 1 } else { 28 };
    bytes.extend([0, 0, kind, 0, 1]);
    bytes
}

fn read(answer: &[u8], question: &[u8]) -> Result<Said> {
    let asked = &question[HEADER..];
    if answer.len() < question.len()
        || answer[..2] != question[..2]
        || answer[HEADER..question.len()] != *asked
    {
        bail!("it is none to the question");
    }
    match answer[3] & 15 {
        0 => {}
        3 => return Ok(Said::NoSuchName),
        code => return Ok(Said::Failed(code)),
    }
    let (mut at, mut addresses) = (question.len(), Vec::new());
    for _ in 0..u16::from_be_bytes([answer[6], answer[7]]) {
        // Names are labels, or labels and a pointer.
        while answer.get(at).is_some_and(|length| (1..0xc0).contains(length)) {
            at += 1 + usize::from(answer[at]);
        }
        at += if answer.get(at).is_some_and(|length| *length >= 0xc0) { 2 } else { 1 };
        let Some(head) = answer.get(at..at + 10) else { bail!("it ends early") };
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let Some(data) = answer.get(at + 10..at + 10 + length) else { bail!("it ends early") };
        at += 10 + length;
        if let Ok(v4) = <[u8; 4]>::try_from(data) {
            addresses.push(v4.into());
        } else if let Ok(v6) = <[u8; 16]>::try_from(data) {
            addresses.push(v6.into());
        }
    }
    Ok(Said::Addresses(addresses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_its_names_written_out_or_pointed_to() {
        for family in Family::BOTH {
            let question = question("a.example", family);
            let data: &[u8] = if family == Family::V4 {
                &[192, 0, 2, 1]
            } else {
                &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
            };
            let mut answer = question.clone();
            (answer[2], answer[3], answer[7]) = (0x81, 0x80, 2);
            for name in [&b"\x01a\x07example\x00"[..], &[0xc0, 12]] {
                answer.extend(name);
                answer.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
                answer.extend(data);
            }
            let address: IpAddr =
                if family == Family::V4 { "192.0.2.1" } else { "2001:db8::1" }.parse().unwrap();
            assert_eq!(read(&answer, &question).unwrap(), Said::Addresses(vec![address; 2]));
            assert!(read(&answer[..answer.len() - 1], &question).is_err());
            answer[3] = 0x83;
            assert_eq!(read(&answer, &question).unwrap(), Said::NoSuchName);
            answer[3] = 0x82;
            assert_eq!(read(&answer, &question).unwrap(), Said::Failed(2));
            answer[1] ^= 1;
            assert!(read(&answer, &question).is_err());
        }
    }
}
