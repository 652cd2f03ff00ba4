//! How XDP programs are attached, and what the underlay guard is set to.

use serde::{Deserialize, Serialize};

/// How XDP programs are to be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum XdpChoice {
    /// By the driver, before an skb exists.
    #[default]
    Native,
    /// By the stack, for drivers that cannot: an skb exists already, so a dropped packet costs two to three times as much. Never
    /// chosen unasked.
    Generic,
    /// Not at all: TC alone judges.
    Off,
}

/// What XDP is used for, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpSettings {
    /// How programs are attached.
    pub choice: XdpChoice,
    /// The underlay guard, where it is asked for.
    pub guard: Option<GuardSettings>,
}

/// What the underlay guard is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSettings {
    /// Names of the devices that WireGuard's packets arrive on. A device may be missing now and appear later.
    pub devices: Vec<String>,
    /// Handshake initiations one source prefix may send a second.
    pub handshakes_per_second: u32,
    /// How many it may send at once after silence.
    pub burst: u32,
}

/// What the underlay guard does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardState {
    /// The devices named in the settings.
    pub devices: Vec<String>,
    /// The UDP port it guards; 0 while it is not known.
    pub port: u16,
    /// Handshake initiations one source prefix may send a second.
    pub handshakes_per_second: u32,
    /// How many it may send at once after silence.
    pub burst: u32,
}

/// How XDP is attached to one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpDevice {
    /// Name of the device.
    pub device: String,
    /// How.
    pub mode: XdpMode,
    /// Whether XDP sends frames by it: between two Ethernets that it sends by, packets never become skbs.
    pub sends: bool,
}

/// How an XDP program of ours is attached, by the kernel's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// Run by the driver.
    Native,
    /// Run by the stack.
    Generic,
    /// Not, because the operator does not want it.
    Off,
    /// Not, and `degraded` says why.
    Refused,
}

impl XdpMode {
    /// The name in status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
            Self::Refused => "refused",
        }
    }
}
