//! What a datapath is opened with.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{FlowSettings, XdpSettings};

/// Which datapath the operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The kernel's, and where its programs cannot be loaded the user-space one.
    #[default]
    Auto,
    /// The kernel's or none.
    Ebpf,
    /// The user-space one.
    Userspace,
}

/// What a datapath is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which datapath.
    pub choice: Choice,
    /// Where programs and maps are pinned, on a bpffs.
    pub bpf_dir: PathBuf,
    /// Names of the devices that lead to the site; none on a peer. A device may be missing now and appear later.
    pub site_devices: Vec<String>,
    /// Ports and ICMP ids for masqueraded flows, host order.
    pub nat_ports: RangeInclusive<u16>,
    /// Live half-entries the flow table can hold (two for each flow).
    pub flow_entries: u32,
    /// 32-bit words one half of the image map can hold.
    pub image_words: u32,
    /// MTU of the overlay device.
    pub mtu: u16,
    /// How long flows live, and how many there can be from whom.
    pub flows: FlowSettings,
    /// What XDP is used for, and how.
    pub xdp: XdpSettings,
}
