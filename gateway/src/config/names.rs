//! Name servers other than this machine's own.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;

use super::{ConfigError, File, RunFlags};

/// `[names]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamesKeys {
    /// Name servers to ask in the place of those in resolv.conf.
    pub servers: Option<Vec<NameServer>>,
}

/// A name server as it is written: `192.0.2.53`, `2001:db8::53`, or with its port `[2001:db8::53]:5353`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NameServer(SocketAddr);

/// The port of name servers.
const PORT: u16 = 53;
/// As many are asked one after the other within the time of a question.
const MOST: usize = 3;

/// From flags, environment and file.
pub(super) fn resolve(run: &RunFlags, file: &File) -> Result<Vec<SocketAddr>, ConfigError> {
    let servers = match run.name_servers.is_empty() {
        true => file.names.servers.clone().unwrap_or_default(),
        false => run.name_servers.clone(),
    };
    if servers.len() > MOST {
        let why = format!("[names] servers: {} are named, and no more than {MOST} are asked", servers.len());
        return Err(ConfigError::Value(why));
    }
    Ok(servers.into_iter().map(|NameServer(address)| address).collect())
}

impl FromStr for NameServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "{text:?} is not a name server: {why}; write its address, with a port where that is not {PORT}: 192.0.2.53 or \
                 [2001:db8::53]:5353"
            )
        };
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let address = match (text.parse::<SocketAddr>(), bracketed.parse::<IpAddr>()) {
            (Ok(address), _) => address,
            (_, Ok(address)) => SocketAddr::new(address, PORT),
            (Err(_), Err(_)) => return Err(wrong("it is no address")),
        };
        if matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) {
            return Err(wrong("a link-local address with its device cannot be asked"));
        }
        let ip = address.ip();
        if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
            return Err(wrong("nobody can be asked there"));
        }
        Ok(Self(address))
    }
}

impl TryFrom<String> for NameServer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_both_families_have_port_53_or_their_own() {
        for (text, address) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
        ] {
            assert_eq!(text.parse(), Ok(NameServer(address.parse().unwrap())), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused_and_named() {
        for text in [
            "",
            "dns.example.org",
            "192.0.2.53:0",
            "192.0.2.53:99999",
            "192.0.2.300",
            "0.0.0.0",
            "[::]:53",
            "224.0.0.251",
            "ff02::fb",
            "[fe80::1%2]:53",
            "[192.0.2.53",
        ] {
            let error = text.parse::<NameServer>().unwrap_err();
            assert!(error.contains(&format!("{text:?} is not a name server")), "{error}");
        }
    }
}
