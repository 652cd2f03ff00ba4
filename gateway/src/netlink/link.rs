//! Devices.

use futures_util::TryStreamExt as _;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags};

use super::{Netlink, NetlinkError, errno, failed};

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its index; another when the device has been made anew.
    pub index: u32,
    /// Whether it is up.
    pub up: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
}

impl Netlink {
    /// The device called `name`, if there is one.
    pub async fn link(&self, name: &str) -> Result<Option<LinkInfo>, NetlinkError> {
        let mut found = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        let message = match found.try_next().await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(e) if errno(&e) == libc::ENODEV => return Ok(None),
            Err(e) => return Err(failed(format!("network device {name} cannot be looked up"), e)),
        };
        let mtu = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        let up = message.header.flags.contains(LinkFlags::Up);
        Ok(Some(LinkInfo { index: message.header.index, up, mtu: mtu.unwrap_or(0) }))
    }

    /// Brings an overlay device up with `mtu` bytes and no addresses the kernel thinks up: link-local ones would make the
    /// host send router solicitations and multicast reports to nobody.
    pub async fn bring_up(&self, index: u32, mtu: u16) -> Result<(), NetlinkError> {
        let quiet = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![
                AfSpecInet6::AddrGenMode(In6AddrGenMode::None),
            ])]))
            .build();
        // A host without IPv6 has no such setting; what needs IPv6 says so itself.
        if let Err(e) = self.handle.link().set(quiet).execute().await {
            tracing::debug!("the overlay device keeps its link-local address: {e}");
        }
        let up = LinkUnspec::new_with_index(index).mtu(u32::from(mtu)).up().build();
        let set = self.handle.link().set(up).execute().await;
        set.map_err(|e| failed(format!("the overlay device (index {index}) cannot be brought up"), e))
    }
}
