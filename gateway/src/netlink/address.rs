//! Addresses of devices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};

use super::{Netlink, NetlinkError, errno, failed};

impl Netlink {
    /// The global addresses of a device, each with its prefix length.
    pub async fn addresses(&self, index: u32) -> Result<Vec<IpNet>, NetlinkError> {
        let messages = self.address_messages(index).await?;
        Ok(messages.iter().filter_map(address_of).collect())
    }

    /// The global addresses of every device, each with its prefix length.
    pub async fn all_addresses(&self) -> Result<Vec<IpNet>, NetlinkError> {
        let found: Result<Vec<AddressMessage>, _> = self.handle.address().get().execute().try_collect().await;
        let messages = found.map_err(|e| failed("the addresses of this machine cannot be read", e))?;
        Ok(messages.iter().filter_map(address_of).collect())
    }

    /// Makes `wanted` the global addresses of a device.
    pub async fn set_addresses(&self, index: u32, wanted: &BTreeSet<IpNet>) -> Result<(), NetlinkError> {
        let mut there = BTreeSet::new();
        for message in self.address_messages(index).await? {
            let Some(address) = address_of(&message) else { continue };
            if wanted.contains(&address) {
                there.insert(address);
                continue;
            }
            match self.handle.address().del(message).execute().await {
                Err(e) if errno(&e) != libc::EADDRNOTAVAIL => {
                    return Err(failed(
                        format!("address {address} cannot be removed from the overlay device"),
                        e,
                    ));
                }
                _ => {}
            }
        }
        for address in wanted.difference(&there) {
            let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
            // Nobody else can have it: control gave it to us. Without this it could not be used for a second.
            if address.addr().is_ipv6() {
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            let added = request.replace().execute().await;
            added
                .map_err(|e| failed(format!("address {address} cannot be given to the overlay device"), e))?;
        }
        Ok(())
    }

    /// Gives a device those of `wanted` that it lacks, and takes none away.
    pub async fn add_addresses(&self, index: u32, wanted: &BTreeSet<IpNet>) -> Result<(), NetlinkError> {
        let all = wanted.iter().copied().chain(self.addresses(index).await?).collect();
        self.set_addresses(index, &all).await
    }

    async fn address_messages(&self, index: u32) -> Result<Vec<AddressMessage>, NetlinkError> {
        let found = self.handle.address().get().set_link_index_filter(index).execute().try_collect().await;
        found.map_err(|e| failed(format!("the addresses of device {index} cannot be read"), e))
    }
}

fn address_of(message: &AddressMessage) -> Option<IpNet> {
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    let mut address: Option<IpAddr> = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point device `Address` is the other end's.
            AddressAttribute::Local(local) => address = Some(*local),
            AddressAttribute::Address(own) if address.is_none() => address = Some(*own),
            _ => {}
        }
    }
    IpNet::new(address?, message.header.prefix_len).ok()
}
