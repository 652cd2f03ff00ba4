//! `SRC` or `SRC:PORT`, the source of `trace`.

use std::net::Ipv6Addr;
use std::str::FromStr;

/// Where a flow comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// An address, or the name or id of a peer; IPv6 without brackets.
    pub host: String,
    /// Source port, or ICMP id.
    pub port: Option<u16>,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write HOST, HOST:PORT, or [IPV6]:PORT";
        let host = |host: &str| Self { host: host.to_owned(), port: None };
        let port = |host: &str, port: &str| match port.parse::<u16>() {
            Ok(port) => Ok(Self { host: host.to_owned(), port: Some(port) }),
            Err(_) => Err(format!("'{text}': '{port}' is no port; {FORM}")),
        };
        if text.is_empty() {
            return Err(format!("there is no source; {FORM}"));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(host(text));
        }
        if let Some((inner, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            if inner.parse::<Ipv6Addr>().is_err() {
                return Err(format!("'{text}': '{inner}' is no IPv6 address; {FORM}"));
            }
            return match rest.strip_prefix(':') {
                Some(number) => port(inner, number),
                None if rest.is_empty() => Ok(host(inner)),
                None => Err(format!("'{text}': only a port may follow the bracket; {FORM}")),
            };
        }
        match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => {
                Err(format!("'{text}' is no IPv6 address, or one with a port that needs brackets; {FORM}"))
            }
            Some((name, number)) => port(name, number),
            None => Ok(host(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, host, port) in [
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:5000", "10.0.0.1", Some(5000)),
            ("alice-laptop", "alice-laptop", None),
            ("alice-laptop:7", "alice-laptop", Some(7)),
            ("fd00::1", "fd00::1", None),
            ("[fd00::1]", "fd00::1", None),
            ("[fd00::1]:9", "fd00::1", Some(9)),
        ] {
            assert_eq!(text.parse(), Ok(Source { host: host.into(), port }), "{text}");
        }
        for (text, says) in [
            ("", "no source"),
            ("10.0.0.1:x", "no port"),
            ("[10.0.0.1]:5", "no IPv6"),
            ("[fd00::1]5", "only a port"),
            ("fd00:0:0:0:0:0:0:1:99", "brackets"),
        ] {
            let error = text.parse::<Source>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
