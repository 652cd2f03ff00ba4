//! One question of a real client, and what came of it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use sluicegate_lab::traffic::read_reports;
use sluicegate_lab::{Finished, Namespace, Program, wait};

/// How long a client waits for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long an allowed question is asked again: routes and sessions may still be coming up.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A page by curl.
    Http(u16),
    /// A connection and its greeting.
    Tcp(u16),
    /// Datagrams and their echoes.
    Udp(u16),
    /// An echo request by ping.
    Ping,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It was answered; the server saw this address, when it tells.
    Answered(Option<IpAddr>),
    /// It was not, in the client's words.
    Nothing(String),
}

impl Ask {
    /// As in the table: `curl web 443`.
    pub(crate) fn describe(self, host: &str) -> String {
        match self {
            Self::Http(port) => format!("curl {host}:{port}"),
            Self::Tcp(port) => format!("tcp {host}:{port}"),
            Self::Udp(port) => format!("udp {host}:{port}"),
            Self::Ping => format!("ping {host}"),
        }
    }

    /// As `sluice policy explain` takes it.
    pub(crate) fn flow(self, to: IpAddr) -> String {
        let port = |port, protocol| format!("{}/{protocol}", SocketAddr::new(to, port));
        match self {
            Self::Http(number) | Self::Tcp(number) => port(number, "tcp"),
            Self::Udp(number) => port(number, "udp"),
            Self::Ping if to.is_ipv6() => format!("[{to}]/icmp"),
            Self::Ping => format!("{to}/icmp"),
        }
    }

    /// Asks once from `namespace`.
    pub(crate) fn once(self, namespace: &Namespace, to: IpAddr, traffic: &Path) -> Result<Seen> {
        let program = match self {
            Self::Http(port) => {
                let url = format!("http://{}/", SocketAddr::new(to, port));
                let seconds = (ANSWER - Duration::from_millis(300)).as_secs_f32().to_string();
                Program::new("curl").args([
                    "--silent",
                    "--show-error",
                    "--globoff",
                    "--max-time",
                    &seconds,
                    &url,
                ])
            }
            Self::Tcp(port) => {
                Program::new(traffic).args(["tcp-stream", &SocketAddr::new(to, port).to_string()])
            }
            Self::Udp(port) => {
                let to = SocketAddr::new(to, port).to_string();
                Program::new(traffic).args(["udp-stream", &to, "--count", "3", "--patience-ms", "1000"])
            }
            Self::Ping => Program::new("ping").args(["-n", "-c", "1", "-W", "2", &to.to_string()]),
        };
        let finished = namespace.run(&program, ANSWER)?;
        Ok(self.read(&finished))
    }

    /// Asks until it is answered, or patience ends.
    pub(crate) fn until_answered(self, namespace: &Namespace, to: IpAddr, traffic: &Path) -> Result<Seen> {
        let mut last = Seen::Nothing("not tried".into());
        wait::until(PATIENCE, || -> Result<_> {
            last = self.once(namespace, to, traffic)?;
            Ok(self.is_whole(&last).then_some(()))
        })?;
        Ok(last)
    }

    /// Whether it is answered, and the server told whom it sees where it does so: of datagrams that are sent while the way is being opened the first,
    /// which asks for it, may be lost and others answered.
    fn is_whole(self, seen: &Seen) -> bool {
        match seen {
            Seen::Answered(address) => address.is_some() || self == Self::Ping,
            Seen::Nothing(_) => false,
        }
    }

    fn read(self, finished: &Finished) -> Seen {
        let answered = match self {
            // Three datagrams that were all lost are reported, too.
            Self::Udp(_) => read_reports(&finished.stdout).1.is_some_and(|report| report.received > 0),
            _ => finished.success(),
        };
        if answered {
            return Seen::Answered(seen_address(&finished.stdout));
        }
        Seen::Nothing(match finished.status {
            None => "no answer".into(),
            Some(_) => reason(&finished.stderr),
        })
    }
}

impl Seen {
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Answered(Some(address)) => format!("answered; the server saw {address}"),
            Self::Answered(None) => "answered".into(),
            Self::Nothing(why) => why.clone(),
        }
    }
}

/// The address after the word `seen`, which all of the lab's servers send.
fn seen_address(text: &str) -> Option<IpAddr> {
    let mut words = text.split_whitespace().skip_while(|word| *word != "seen").skip(1);
    let word = words.find(|word| *word != "as")?;
    word.parse::<IpAddr>().ok().or_else(|| word.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The system's word for it, from what a client wrote.
fn reason(stderr: &str) -> String {
    for (sign, word) in [
        ("refused", "connection refused"),
        ("Couldn't connect to server", "could not connect"),
        ("unreachable", "no route"),
        ("No route to host", "no route"),
        ("timed out", "no answer"),
        ("reset", "connection reset"),
    ] {
        if stderr.contains(sign) {
            return word.into();
        }
    }
    match stderr.trim() {
        "" => "no answer".into(),
        other => other.lines().last().unwrap_or(other).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_view_is_found_in_every_servers_words() {
        let v4 = Some("10.20.0.1".parse().unwrap());
        assert_eq!(seen_address("web seen 10.20.0.1\n"), v4);
        assert_eq!(seen_address("seen as 10.20.0.1:1234\n{\"report\":1}"), v4);
        assert_eq!(seen_address("seen as [fd00:20::1]:9\n"), Some("fd00:20::1".parse().unwrap()));
        assert_eq!(seen_address("# HELP x\n# seen 10.20.0.1\n"), v4);
        assert_eq!(seen_address("64 bytes from 10.20.0.10"), None);
    }

    #[test]
    fn datagrams_that_came_back_without_telling_whom_the_server_sees_are_sent_again() {
        let seen = Some("10.20.0.1".parse().unwrap());
        assert!(Ask::Udp(443).is_whole(&Seen::Answered(seen)) && Ask::Ping.is_whole(&Seen::Answered(None)));
        assert!(!Ask::Udp(443).is_whole(&Seen::Answered(None)));
        assert!(!Ask::Ping.is_whole(&Seen::Nothing("no answer".into())));
    }

    #[test]
    fn a_flow_is_named_as_explain_wants_it() {
        let (v4, v6) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        assert_eq!(Ask::Http(443).flow(v4), "10.0.0.1:443/tcp");
        assert_eq!(Ask::Udp(53).flow(v6), "[fd00::1]:53/udp");
        assert_eq!(Ask::Ping.flow(v6), "[fd00::1]/icmp");
        assert_eq!(Ask::Ping.flow(v4), "10.0.0.1/icmp");
    }
}
