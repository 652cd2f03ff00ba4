//! Routes: the ones we set on the overlay device, and the look-up of where others lead.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{Netlink, NetlinkError, errno, failed};

/// Marks our routes (`proto 83` in `ip route`), so that no other's is ever touched. Not in the kernel's list of
/// assigned numbers (include/uapi/linux/rtnetlink.h).
const OURS: u8 = 83;

/// Where packets to an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTo {
    /// To what.
    pub target: Target,
    /// The next router, when the destination is not on the device's own link.
    pub via: Option<IpAddr>,
    /// The source address the kernel would take.
    pub source: Option<IpAddr>,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Out of the device with this index.
    Device(u32),
    /// To this host, or to everybody.
    Here,
}

impl Netlink {
    /// Makes `wanted` the prefixes that we route into the device `index`.
    pub async fn set_routes(&self, index: u32, wanted: &BTreeSet<IpNet>) -> Result<(), NetlinkError> {
        let mut there = BTreeSet::new();
        for message in self.our_routes(index).await? {
            let Some(prefix) = destination(&message) else { continue };
            if wanted.contains(&prefix) {
                there.insert(prefix);
                continue;
            }
            match self.handle.route().del(message).execute().await {
                Err(e) if errno(&e) != libc::ESRCH => {
                    return Err(failed(format!("the route to {prefix} cannot be removed"), e));
                }
                _ => {}
            }
        }
        for prefix in wanted.difference(&there) {
            let added = self.handle.route().add(message(index, prefix)).replace().execute().await;
            added.map_err(|e| failed(format!("the route to {prefix} cannot be set"), e))?;
        }
        Ok(())
    }

    /// Where a packet to `address` would go; `None` when nowhere.
    pub async fn route_to(&self, address: IpAddr) -> Result<Option<RouteTo>, NetlinkError> {
        let request = match address {
            IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, 32).build(),
            IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).build(),
        };
        let mut found = std::pin::pin!(self.handle.route().get(request).execute());
        let message = match found.try_next().await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(e)
                if matches!(
                    errno(&e),
                    libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(failed(format!("the route to {address} cannot be looked up"), e)),
        };
        if !matches!(
            message.header.kind,
            RouteType::Unicast | RouteType::Local | RouteType::Broadcast | RouteType::Anycast
        ) {
            return Ok(None);
        }
        let mut device = None;
        let mut source = None;
        let mut via = None;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => device = Some(*index),
                RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => source = Some(IpAddr::V4(*v4)),
                RouteAttribute::PrefSource(RouteAddress::Inet6(v6)) => source = Some(IpAddr::V6(*v6)),
                RouteAttribute::Gateway(RouteAddress::Inet(v4)) => via = Some(IpAddr::V4(*v4)),
                RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => via = Some(IpAddr::V6(*v6)),
                _ => {}
            }
        }
        let target = match (message.header.kind, device) {
            (RouteType::Unicast, Some(device)) => Target::Device(device),
            (RouteType::Unicast, None) => return Ok(None),
            _ => Target::Here,
        };
        Ok(Some(RouteTo { target, via, source }))
    }

    async fn our_routes(&self, index: u32) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut ours = Vec::new();
        for any in
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            let mut routes = std::pin::pin!(self.handle.route().get(any).execute());
            while let Some(route) =
                routes.try_next().await.map_err(|e| failed("the routes cannot be read", e))?
            {
                let leads_there =
                    route.attributes.iter().any(|a| matches!(a, RouteAttribute::Oif(o) if *o == index));
                if route.header.protocol == RouteProtocol::from(OURS) && leads_there {
                    ours.push(route);
                }
            }
        }
        Ok(ours)
    }
}

fn message(index: u32, prefix: &IpNet) -> RouteMessage {
    let protocol = RouteProtocol::from(OURS);
    match prefix {
        IpNet::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(v4.network(), v4.prefix_len())
            .output_interface(index)
            .protocol(protocol)
            .scope(RouteScope::Link)
            .build(),
        IpNet::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6.network(), v6.prefix_len())
            .output_interface(index)
            .protocol(protocol)
            .build(),
    }
}

fn destination(message: &RouteMessage) -> Option<IpNet> {
    let length = message.header.destination_prefix_length;
    let address = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    let unspecified = match u8::from(message.header.address_family) as i32 {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    IpNet::new(address.unwrap_or(unspecified), length).ok()
}
