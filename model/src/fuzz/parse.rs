//! Bytes as a packet: the engine's reading of them must be the model's.

use std::net::{IpAddr, Ipv6Addr};

use sluicegate_engine::family::{Family, V4, V6};
use sluicegate_engine::network::Header as Readable;
use sluicegate_engine::packet::{Network, Slice, Transport, echo, protocol, transport};

use crate::parse::{self, Header, Kind};

/// The bytes as a packet of either family.
pub fn parse(bytes: &[u8]) {
    // More is no IP packet.
    let bytes = &bytes[..bytes.len().min(1 << 16)];
    read::<V4>(bytes);
    read::<V6>(bytes);
}

fn read<F: Readable>(bytes: &[u8]) {
    let mut buffer = bytes.to_vec();
    let packet = Slice(&mut buffer);
    let mut network = Network::<F::Address>::default();
    let read = F::network(&packet, &mut network);
    let model = parse::network(bytes, F::VERSION == 6);
    let (header, problem) = match (model, read) {
        (Ok(model), Ok(())) => model,
        (Err(ours), Err(theirs)) => return assert_eq!(ours, theirs, "why the header cannot be read"),
        (model, read) => panic!("the model reads {model:?}, the engine {read:?}"),
    };
    let address = |a: F::Address| Ipv6Addr::from(F::mapped(a));
    let mapped = |a: IpAddr| match a {
        IpAddr::V4(a) => a.to_ipv6_mapped(),
        IpAddr::V6(a) => a,
    };
    assert_eq!(mapped(header.source), address(network.source), "source");
    assert_eq!(mapped(header.destination), address(network.destination), "destination");
    assert_eq!(header.length as u32, network.length, "length");
    assert_eq!(header.ttl, network.ttl, "TTL");
    assert_eq!(problem, network.problem, "what stands in the way");
    if problem.is_none() {
        assert_eq!(header.protocol, network.protocol, "protocol");
        assert_eq!(header.transport as u32, network.transport, "offset of the transport header");
        behind::<F>(bytes, &header, transport::<F>(&packet, &network));
    }
}

fn behind<F: Family>(bytes: &[u8], header: &Header, read: Result<Transport, sluicegate_engine::DropReason>) {
    let (model, read) = match (parse::transport(bytes, header), read) {
        (Ok(model), Ok(read)) => (model, read),
        (Err(ours), Err(theirs)) => {
            return assert_eq!(ours, theirs, "why the transport header cannot be read");
        }
        (model, read) => panic!("the model reads {model:?}, the engine {read:?}"),
    };
    assert_eq!(model.source_port, read.source_port, "source port");
    assert_eq!(model.destination_port, read.destination_port, "destination port");
    assert_eq!(model.axis, read.axis, "axis");
    let kind = match header.protocol {
        protocol::TCP => {
            assert_eq!(model.flags & 0x3f, read.flags, "TCP flags");
            Kind::Tcp
        }
        p if p == F::ICMP && read.flags == echo::REQUEST => Kind::EchoRequest,
        p if p == F::ICMP && read.flags == echo::REPLY => Kind::EchoReply,
        _ if read.quotes => Kind::Error,
        _ => Kind::Datagram,
    };
    assert_eq!(model.kind, kind, "what it can do for a flow");
    let opens = matches!(kind, Kind::Datagram | Kind::EchoRequest);
    assert_eq!(opens, read.opens, "whether it opens a flow");
}
