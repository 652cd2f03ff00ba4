//! `host 10.20.0.10 port 443 proto tcp verdict drop`: which packets or flows are wanted.

use std::str::FromStr;

/// Everything given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Either address, or the name of either end.
    pub host: Option<String>,
    /// Either port.
    pub port: Option<u16>,
    /// `tcp`, `udp`, `icmp` or a protocol number.
    pub protocol: Option<String>,
    /// `drop` or `pass`.
    pub verdict: Option<String>,
}

impl Filter {
    /// Protocol numbers that match; ICMP has one for each family.
    pub(crate) fn protocol_number(&self) -> Option<Vec<u32>> {
        Some(match self.protocol.as_deref()? {
            "tcp" => vec![6],
            "udp" => vec![17],
            "icmp" => vec![1, 58],
            number => number.parse().into_iter().collect(),
        })
    }

    /// As the agent takes it.
    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let text = |name, value: &Option<String>| value.clone().map(|value| (name, value));
        [
            text("host", &self.host),
            self.port.map(|port| ("port", port.to_string())),
            text("proto", &self.protocol),
            text("verdict", &self.verdict),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write any of: host ADDRESS, port N, proto tcp|udp|icmp|N, verdict drop|pass";
        let mut filter = Self::default();
        let mut words = text.split_whitespace().filter(|word| *word != "and");
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("'{word}' needs a value; {FORM}"));
            let twice = match word {
                "host" => filter.host.replace(value()?.trim_matches(['[', ']']).to_owned()).is_some(),
                "port" => {
                    let port = value()?;
                    let number = port.parse().map_err(|_| format!("'{port}' is no port; {FORM}"))?;
                    filter.port.replace(number).is_some()
                }
                "proto" => {
                    let protocol = value()?.to_ascii_lowercase();
                    let known =
                        matches!(protocol.as_str(), "tcp" | "udp" | "icmp") || protocol.parse::<u8>().is_ok();
                    if !known {
                        return Err(format!("'{protocol}' is no protocol; {FORM}"));
                    }
                    filter.protocol.replace(protocol).is_some()
                }
                "tcp" | "udp" | "icmp" => filter.protocol.replace(word.to_owned()).is_some(),
                "verdict" => {
                    let verdict = value()?;
                    if !matches!(verdict, "drop" | "pass") {
                        return Err(format!("'{verdict}' is no verdict; {FORM}"));
                    }
                    filter.verdict.replace(verdict.to_owned()).is_some()
                }
                other => return Err(format!("'{other}' is not understood; {FORM}")),
            };
            if twice {
                return Err(format!("'{word}' is there twice, and every part must match; {FORM}"));
            }
        }
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_read() {
        let filter: Filter = "host [fd20::10] and port 443 and tcp verdict drop".parse().unwrap();
        assert_eq!(
            filter,
            Filter {
                host: Some("fd20::10".into()),
                port: Some(443),
                protocol: Some("tcp".into()),
                verdict: Some("drop".into())
            }
        );
        assert_eq!(filter.query().len(), 4);
        assert_eq!("".parse::<Filter>().unwrap(), Filter::default());
        assert_eq!("proto icmp".parse::<Filter>().unwrap().protocol_number(), Some(vec![1, 58]));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, says) in [
            ("host", "needs a value"),
            ("port http", "no port"),
            ("proto sctpx", "no protocol"),
            ("verdict maybe", "no verdict"),
            ("or host 10.0.0.1", "not understood"),
            ("tcp udp", "twice"),
        ] {
            let error = text.parse::<Filter>().unwrap_err();
            assert!(error.contains(says) && error.contains("write any of"), "{text}: {error}");
        }
    }
}
