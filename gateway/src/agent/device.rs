//! The overlay device: one of the agent's own, or one that was there before.

use anyhow::{Context as _, ensure};

use crate::config::{OverlayKind, Settings};
use crate::datapath::{self, Opened};
use crate::netlink::Netlink;
use crate::tun::Tun;

/// The device the overlay's packets come and go by.
#[derive(Clone)]
pub(super) enum Device {
    /// A TUN device that this agent made.
    Tun(Tun),
    /// An Ethernet device that is somebody else's: it is not made, set up or deleted here.
    Ethernet {
        /// Its name.
        name: String,
        /// Its index.
        index: u32,
    },
}

impl Device {
    /// Makes it, or finds it, and the MTU it has.
    pub(super) async fn open(settings: &Settings, netlink: &Netlink) -> anyhow::Result<(Self, u16)> {
        let (name, mtu) = (&settings.places.device, settings.datapath.mtu);
        match settings.overlay {
            OverlayKind::Wireguard => {
                let tun = Tun::open(name)?;
                netlink.bring_up(tun.index(), mtu).await?;
                Ok((Self::Tun(tun), mtu))
            }
            OverlayKind::Ethernet => {
                let link = netlink.link(name).await?.with_context(|| {
                    format!("overlay device {name} is not there; `[overlay] kind = \"ethernet\"` uses a device that is")
                })?;
                let ethernet = datapath::device::is_ethernet(name)
                    .with_context(|| format!("overlay device {name} cannot be looked at"))?;
                ensure!(ethernet, "overlay device {name} is not an Ethernet, which `[overlay] kind` says");
                let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
                Ok((Self::Ethernet { name: name.clone(), index: link.index }, mtu))
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Tun(tun) => tun.name(),
            Self::Ethernet { name, .. } => name,
        }
    }

    pub(super) fn index(&self) -> u32 {
        match self {
            Self::Tun(tun) => tun.index(),
            Self::Ethernet { index, .. } => *index,
        }
    }

    /// Whether addresses, routes and the device itself are this agent's to take away.
    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Tun(_))
    }

    /// The datapath on it.
    pub(super) fn judge(&self, settings: &datapath::Settings) -> anyhow::Result<Opened> {
        match self {
            Self::Tun(tun) => datapath::open(settings, tun),
            Self::Ethernet { name, .. } => datapath::open_ethernet(settings, name),
        }
    }
}
