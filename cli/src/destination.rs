//! `DST:PORT/PROTO`, the destination of `policy explain`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Where a flow goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// An address, or the name or id of a peer or resource; IPv6 without brackets.
    pub host: String,
    /// Destination port; only tcp and udp have one.
    pub port: Option<u16>,
    /// `tcp`, `udp`, `icmp`, or an IP protocol number.
    pub protocol: String,
}

impl Destination {
    /// Protocol and port as the API takes them: `443/tcp`, `icmp`, `47`.
    pub fn service(&self) -> String {
        self.port.map_or_else(|| self.protocol.clone(), |port| format!("{port}/{}", self.protocol))
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "write HOST:PORT/tcp, HOST:PORT/udp or HOST/icmp, with an IPv6 address in brackets";
        let (target, protocol) =
            text.rsplit_once('/').ok_or_else(|| format!("'{text}' names no protocol; {FORM}"))?;
        let protocol = protocol.to_ascii_lowercase();
        let (host, port) = split_port(target).map_err(|why| format!("'{text}': {why}; {FORM}"))?;
        if host.is_empty() {
            return Err(format!("'{text}' names no destination; {FORM}"));
        }
        if !matches!(protocol.as_str(), "tcp" | "udp" | "icmp") && protocol.parse::<u8>().is_err() {
            return Err(format!("'{text}': '{protocol}' is no protocol; {FORM}"));
        }
        match (protocol.as_str(), port) {
            ("tcp" | "udp", None) => return Err(format!("'{text}': {protocol} needs a port; {FORM}")),
            ("tcp" | "udp", Some(_)) | (_, None) => {}
            (_, Some(_)) => return Err(format!("'{text}': {protocol} has no ports; {FORM}")),
        }
        Ok(Destination { host, port, protocol })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}/{}", self.host, self.protocol),
            Some(port) => write!(f, "{}:{port}/{}", self.host, self.protocol),
            None => write!(f, "{}/{}", self.host, self.protocol),
        }
    }
}

/// Splits `HOST`, `HOST:PORT`, `[V6]` and `[V6]:PORT`; a bare IPv6 address is a host without port.
fn split_port(target: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = if let Some(inner) = target.strip_prefix('[') {
        let (host, rest) = inner.split_once(']').ok_or("the bracket is not closed")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(format!("'{host}' is no IPv6 address"));
        }
        match rest {
            "" => (host, None),
            _ => (host, Some(rest.strip_prefix(':').ok_or("only a port may follow the bracket")?)),
        }
    } else if target.parse::<Ipv6Addr>().is_ok() {
        (target, None)
    } else {
        match target.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address with a port needs brackets".into());
            }
            Some((host, port)) => (host, Some(port)),
            None => (target, None),
        }
    };
    let port = match port {
        None => None,
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(format!("'{text}' is no port (1 to 65535)")),
        },
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_back() {
        for (text, host, port, protocol) in [
            ("10.20.0.10:443/tcp", "10.20.0.10", Some(443), "tcp"),
            ("[fd00:20::10]:443/udp", "fd00:20::10", Some(443), "udp"),
            ("fd00:20::10/icmp", "fd00:20::10", None, "icmp"),
            ("bob-laptop:22/tcp", "bob-laptop", Some(22), "tcp"),
            ("10.20.0.10/47", "10.20.0.10", None, "47"),
        ] {
            let read: Destination = text.parse().unwrap();
            assert_eq!(read, Destination { host: host.into(), port, protocol: protocol.into() });
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, says) in [
            ("10.0.0.1:443", "no protocol"),
            ("10.0.0.1/tcp", "needs a port"),
            ("10.0.0.1:80/icmp", "has no ports"),
            ("10.0.0.1:0/tcp", "no port"),
            ("10.0.0.1:65536/tcp", "no port"),
            ("10.0.0.1:80/sctpx", "no protocol"),
            ("10.0.0.1/all", "no protocol"),
            ("fd00:20::10:443/tcp", "needs a port"),
            ("fd00:20:1:2:3:4:5:6:443/tcp", "brackets"),
            ("[fd00::1:443/tcp", "not closed"),
            ("[10.0.0.1]:443/tcp", "no IPv6"),
            (":443/tcp", "no destination"),
        ] {
            let error = text.parse::<Destination>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
