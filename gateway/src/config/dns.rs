//! How the host's questions for names are answered.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ConfigError, File, RunFlags, pick};

/// How the host is had to ask this agent for names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum HostMode {
    /// It is not; this agent answers whoever of the host asks it.
    #[default]
    #[serde(rename = "off")]
    Off,
    /// By its resolv.conf, which is replaced while this agent answers, and put back.
    #[serde(rename = "resolv.conf")]
    #[value(name = "resolv.conf")]
    ResolvConf,
    /// Through systemd-resolved, which asks this agent for control's domains alone unless control names servers for all.
    #[serde(rename = "systemd-resolved")]
    SystemdResolved,
}

impl HostMode {
    /// The name in files and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::ResolvConf => "resolv.conf",
            Self::SystemdResolved => "systemd-resolved",
        }
    }
}

/// `[dns]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsKeys {
    /// Where questions are answered, in the place of port 53 of the overlay addresses.
    pub listen: Option<Vec<ListenAt>>,
    /// How the host is had to ask.
    pub host: Option<HostMode>,
    /// The host's resolv.conf.
    pub resolv_conf: Option<PathBuf>,
}

/// How the host's questions for names are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Where; nowhere named: port 53 of the agent's overlay addresses.
    pub listen: Vec<SocketAddr>,
    /// How the host is had to ask.
    pub host: HostMode,
    /// The host's resolv.conf.
    pub resolv_conf: PathBuf,
}

/// Where questions are answered, as it is written: `127.0.0.153`, or with its port `[::1]:5353`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenAt(SocketAddr);

/// The port at which names are asked for.
const PORT: u16 = 53;

/// From flags, environment and file.
pub(super) fn resolve(run: &RunFlags, file: &File) -> Result<Dns, ConfigError> {
    let listen = match run.dns_listen.is_empty() {
        true => file.dns.listen.clone().unwrap_or_default(),
        false => run.dns_listen.clone(),
    };
    let host = pick(&run.dns_host, &file.dns.host, HostMode::default);
    let listen: Vec<SocketAddr> = listen.into_iter().map(|ListenAt(address)| address).collect();
    // A resolv.conf has no place for a port.
    let unreachable = !listen.is_empty() && listen.iter().all(|address| address.port() != PORT);
    if host == HostMode::ResolvConf && unreachable {
        let why = "[dns] host = \"resolv.conf\" has programs ask at port 53, and [dns] listen names other ports only";
        return Err(ConfigError::Value(why.into()));
    }
    Ok(Dns { listen, host, resolv_conf: file.resolv_conf() })
}

impl FromStr for ListenAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let address = match (text.parse::<SocketAddr>(), bracketed.parse::<IpAddr>()) {
            (Ok(address), _) => address,
            (_, Ok(address)) => SocketAddr::new(address, PORT),
            (Err(_), Err(_)) => {
                return Err(format!("{text:?} is no address, with a port where that is not {PORT}"));
            }
        };
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(format!(
                "{text:?} cannot be asked: name addresses of loopback or this agent's own in the overlay"
            ));
        }
        Ok(Self(address))
    }
}

impl TryFrom<String> for ListenAt {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_ask_have_port_53_or_their_own() {
        for (text, address) in [
            ("127.0.0.153", "127.0.0.153:53"),
            ("127.0.0.153:5353", "127.0.0.153:5353"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[::1]:5353", "[::1]:5353"),
        ] {
            assert_eq!(text.parse(), Ok(ListenAt(address.parse().unwrap())), "{text}");
        }
        for text in ["", "localhost", "0.0.0.0", "[::]:53", "127.0.0.1:0", "ff02::1"] {
            assert!(text.parse::<ListenAt>().unwrap_err().contains(&format!("{text:?}")), "{text}");
        }
    }
}
