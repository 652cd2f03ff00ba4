//! Questions to the kernel about devices, asked and answered in the calling thread: which XDP programs are on one, and
//! whether a qdisc is still needed.

use std::io;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
};
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Ids of the XDP programs on a device, by mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct XdpPrograms {
    /// Run by the driver.
    pub(super) native: Option<u32>,
    /// Run by the stack, once there is an skb.
    pub(super) generic: Option<u32>,
    /// Run by the card.
    pub(super) offloaded: Option<u32>,
}

impl XdpPrograms {
    /// Any of them that is not `own`.
    pub(super) fn other_than(self, own: Option<u32>) -> Option<u32> {
        [self.native, self.generic, self.offloaded].into_iter().flatten().find(|id| Some(*id) != own)
    }
}

/// What XDP programs there are on the device with `index`.
pub(super) fn xdp_programs(index: u32) -> io::Result<XdpPrograms> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let mut programs = XdpPrograms::default();
    for answer in ask(RouteNetlinkMessage::GetLink(message), 0)? {
        let RouteNetlinkMessage::NewLink(link) = answer else { continue };
        let told = link.attributes.iter().filter_map(|attribute| match attribute {
            LinkAttribute::Xdp(told) => Some(told),
            _ => None,
        });
        for attribute in told.flatten() {
            match attribute {
                LinkXdp::DrvProgId(id) => programs.native = Some(*id),
                LinkXdp::SkbProgId(id) => programs.generic = Some(*id),
                LinkXdp::HwProgId(id) => programs.offloaded = Some(*id),
                _ => {}
            }
        }
    }
    Ok(programs)
}

/// A VLAN device's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vlan {
    /// EtherType of the tag: 0x8100 or 0x88a8.
    pub(super) protocol: u16,
    /// VLAN id, 12 bits.
    pub(super) id: u16,
}

/// What frames of a device look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkFacts {
    /// Its own address, when that is an Ethernet's.
    pub(super) mac: Option<[u8; 6]>,
    /// For a VLAN device: index of the device below it, in the same network namespace, and its tag.
    pub(super) vlan: Option<(u32, Vlan)>,
    /// Whether it is up, as an operator wants it.
    pub(super) up: bool,
    /// Its kind, for a device that is not a card's.
    pub(super) kind: Option<String>,
}

/// Facts about the device with `index`.
pub(super) fn link(index: u32) -> io::Result<LinkFacts> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let mut facts = LinkFacts::default();
    for answer in ask(RouteNetlinkMessage::GetLink(message), 0)? {
        let RouteNetlinkMessage::NewLink(link) = answer else { continue };
        facts = facts_of(link);
    }
    Ok(facts)
}

/// Whether there are VLAN devices on the device with `index`, in this network namespace.
pub(super) fn has_vlans(index: u32) -> io::Result<bool> {
    let all = ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
    Ok(all.into_iter().any(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => facts_of(link).vlan.is_some_and(|(below, _)| below == index),
        _ => false,
    }))
}

fn facts_of(link: LinkMessage) -> LinkFacts {
    let mut facts = LinkFacts { up: link.header.flags.contains(LinkFlags::Up), ..LinkFacts::default() };
    let (mut below, mut elsewhere, mut id) = (None, false, None);
    let mut protocol = 0x8100;
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::Address(address) => facts.mac = address.try_into().ok(),
            LinkAttribute::Link(index) => below = Some(index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => facts.kind = Some(kind.to_string()),
                        LinkInfo::Data(InfoData::Vlan(data)) => {
                            for info in data {
                                match info {
                                    InfoVlan::Id(number) => id = Some(number),
                                    InfoVlan::Protocol(tag) => protocol = tag.into(),
                                    _ => {}
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    facts.vlan = below.filter(|_| !elsewhere).zip(id.map(|id| Vlan { protocol, id }));
    facts
}

/// Ids of the eBPF programs that filters of this priority and handle run at a side of the device with `index`: one, or none.
pub(super) fn filter_programs(index: u32, egress: bool, priority: u16, handle: u32) -> io::Result<Vec<u32>> {
    let minor = if egress { TcHandle::MIN_EGRESS } else { TcHandle::MIN_INGRESS };
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.parent = TcHandle { major: u16::MAX, minor };
    let mut programs = Vec::new();
    for answer in ask(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP)? {
        let RouteNetlinkMessage::NewTrafficFilter(filter) = answer else { continue };
        // The priority is the upper half (net/sched/cls_api.c, TC_H_MAKE).
        if filter.header.info >> 16 != u32::from(priority) || u32::from(filter.header.handle) != handle {
            continue;
        }
        for attribute in filter.attributes {
            let TcAttribute::Options(options) = attribute else { continue };
            programs.extend(options.into_iter().filter_map(|option| match option {
                TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(id),
                _ => None,
            }));
        }
    }
    Ok(programs)
}

/// Deletes the clsact qdisc of the device with `index`, unless somebody's filter hangs on it. Whether it did.
pub(super) fn remove_idle_clsact(index: u32) -> io::Result<bool> {
    let message = |parent: TcHandle| {
        let mut message = TcMessage::default();
        message.header.index = index.cast_signed();
        message.header.parent = parent;
        message
    };
    for side in [TcHandle::MIN_INGRESS, TcHandle::MIN_EGRESS] {
        let parent = TcHandle { major: u16::MAX, minor: side };
        let answers = ask(RouteNetlinkMessage::GetTrafficFilter(message(parent)), NLM_F_DUMP)?;
        if answers.iter().any(|answer| matches!(answer, RouteNetlinkMessage::NewTrafficFilter(_))) {
            return Ok(false);
        }
    }
    let mut qdisc = message(TcHandle::CLSACT);
    qdisc.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    match ask(RouteNetlinkMessage::DelQueueDiscipline(qdisc), NLM_F_ACK) {
        Ok(_) => Ok(true),
        // Somebody else was faster.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Sends one request and returns everything the kernel answers.
fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut packet = NetlinkMessage::from(request);
    packet.header.flags = NLM_F_REQUEST | flags;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            // Messages start on four bytes (netlink(7), NLMSG_ALIGN).
            let length = (answer.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(length..).unwrap_or_default();
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => answers.push(message),
                NetlinkPayload::Done(_) => return Ok(answers),
                // An acknowledgement is an error of zero.
                NetlinkPayload::Error(e) if e.code.is_none() => return Ok(answers),
                NetlinkPayload::Error(e) => return Err(e.to_io()),
                _ => {}
            }
        }
        if flags & NLM_F_DUMP == 0 && !answers.is_empty() {
            return Ok(answers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_programs_has_none_and_a_missing_one_is_an_error() {
        let lo = crate::datapath::device::index("lo").unwrap();
        assert_eq!(xdp_programs(lo).unwrap(), XdpPrograms::default());
        assert_eq!(xdp_programs(i32::MAX as u32).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn ours_is_no_neighbour() {
        let programs = XdpPrograms { native: Some(3), ..XdpPrograms::default() };
        assert_eq!((programs.other_than(Some(3)), programs.other_than(None)), (None, Some(3)));
    }
}
