//! The range of ports masquerading may use, as it is written: `20000-32767`.

use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Deserialize;

/// Ports and ICMP ids for masqueraded flows; the default lies below the kernel's own range (32768-60999).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NatPorts(RangeInclusive<u16>);

impl NatPorts {
    /// The range.
    pub fn range(self) -> RangeInclusive<u16> {
        self.0
    }
}

impl Default for NatPorts {
    fn default() -> Self {
        Self(20_000..=32_767)
    }
}

impl FromStr for NatPorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a range of ports; write it as 20000-32767");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let port = |p: &str| p.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = (port(first)?, port(last)?);
        if first == 0 || first > last {
            return Err(wrong());
        }
        Ok(Self(first..=last))
    }
}

impl TryFrom<String> for NatPorts {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
