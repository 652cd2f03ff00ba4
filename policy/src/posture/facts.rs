//! What is known of a machine.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What is known of a machine. Empty text is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Version of its agent.
    pub version: String,
    /// Its operating system, as its agent calls it.
    pub os: String,
    /// Version of that system.
    pub os_version: String,
    /// Release of its kernel.
    pub kernel_version: String,
    /// What changes while it runs; `None` when it was not heard from lately.
    pub live: Option<Live>,
}

/// What changes while a machine runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Where its connection to control comes from.
    pub connection_ip: Option<IpAddr>,
    /// Where that address is.
    pub place: Option<Place>,
    /// The addresses of its interfaces with their prefixes, without loopback's and the overlay's; `None` when not reported.
    pub addresses: Option<Vec<IpNet>>,
    /// Of each path it was asked about, how it stands.
    pub processes: BTreeMap<String, ProcessState>,
}

/// A place on Earth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// ISO 3166-1 alpha-2, upper case.
    pub country_code: String,
    /// English name, empty when not known.
    pub city_name: String,
    /// The city's number at GeoNames, else 0.
    pub geoname_id: u32,
}

/// How an executable stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// A process runs it.
    Running,
    /// It is there, and no process runs it.
    Stopped,
    /// It is not there.
    Absent,
    /// The agent may not look.
    Hidden,
}

/// An operating system that checks know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Linux.
    Linux,
    /// macOS.
    Darwin,
    /// Windows.
    Windows,
    /// Android.
    Android,
    /// iOS.
    Ios,
}

impl Platform {
    /// The platform of a name as agents give it.
    pub fn parse(os: &str) -> Option<Self> {
        match os.to_ascii_lowercase().as_str() {
            "linux" => Some(Self::Linux),
            "darwin" | "macos" => Some(Self::Darwin),
            "windows" => Some(Self::Windows),
            "android" => Some(Self::Android),
            "ios" => Some(Self::Ios),
            _ => None,
        }
    }
}
