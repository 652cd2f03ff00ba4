//! Captured packets as pcapng, each with its verdict as a comment, which Wireshark and tshark show.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError, PcapResult};

use crate::error::Failure;

/// Bytes of each packet that a datapath captures.
pub(super) const SNAPLEN: u32 = 128;
/// Sides in the order of their interfaces, and what a packet there is.
const SIDES: [(&str, &str); 3] = [
    ("overlay", "decrypted packets from the overlay"),
    ("site", "packets from site devices"),
    ("local", "packets this host sends into the overlay"),
];
/// Timestamps count nanoseconds: 10^-9.
const NANOSECONDS: u8 = 9;

/// One packet as it goes into the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    /// Since 1970.
    pub(super) time: Duration,
    /// `overlay`, `site` or `local`.
    pub(super) side: &'a str,
    /// Bytes it had on the wire, from the IP header on.
    pub(super) length: u32,
    /// The first of them.
    pub(super) bytes: &'a [u8],
    /// What became of it.
    pub(super) comment: &'a str,
    /// Packets that were not captured since the one before.
    pub(super) lost: u64,
}

/// A capture file that is being written: one interface for each side.
pub(super) struct Writer<W: Write>(PcapNgWriter<W>);

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub(super) fn new(writer: W) -> Result<Self, Failure> {
        let begun = (|| {
            let section = SectionHeaderBlock {
                endianness: Endianness::Little,
                options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(concat!(
                    "sluice ",
                    env!("CARGO_PKG_VERSION")
                )))],
                ..SectionHeaderBlock::default()
            };
            let mut writer = PcapNgWriter::with_section_header(writer, section)?;
            for (name, description) in SIDES {
                writer.write_pcapng_block(InterfaceDescriptionBlock {
                    linktype: DataLink::RAW,
                    snaplen: SNAPLEN,
                    options: vec![
                        InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                        InterfaceDescriptionOption::IfDescription(Cow::Borrowed(description)),
                        InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                    ],
                })?;
            }
            Ok(writer)
        })();
        begun.map(Self).map_err(failed)
    }

    /// Adds a packet.
    pub(super) fn packet(&mut self, packet: &Packet<'_>) -> Result<(), Failure> {
        let interface = SIDES.iter().position(|(name, _)| *name == packet.side).unwrap_or(0);
        let mut options = vec![EnhancedPacketOption::Comment(Cow::Borrowed(packet.comment))];
        if packet.lost > 0 {
            options.push(EnhancedPacketOption::DropCount(packet.lost));
        }
        let written: PcapResult<usize> = self.0.write_pcapng_block(EnhancedPacketBlock {
            interface_id: interface as u32,
            timestamp: packet.time,
            original_len: packet.length,
            data: Cow::Borrowed(packet.bytes),
            options,
        });
        written.map(drop).map_err(failed)
    }

    /// Hands everything on to the disk or the pipe.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.0.get_mut().flush().map_err(Failure::from)
    }
}

fn failed(error: PcapError) -> Failure {
    match error {
        PcapError::IoError(error) => Failure::from(error),
        other => Failure::failed("the packet does not fit into the capture file").why(other),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    /// Packets in a file: side, bytes and comment.
    pub(in crate::verbs::local) fn read(file: &[u8]) -> Vec<(String, Vec<u8>, String)> {
        let mut reader = PcapNgReader::new(file).unwrap();
        let mut names = Vec::new();
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(interface) => {
                    names.extend(interface.options.iter().find_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                        _ => None,
                    }));
                }
                Block::EnhancedPacket(packet) => {
                    let comment = packet.options.iter().find_map(|option| match option {
                        EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
                        _ => None,
                    });
                    let side = names[packet.interface_id as usize].clone();
                    packets.push((side, packet.data.to_vec(), comment.unwrap_or_default()));
                }
                _ => {}
            }
        }
        packets
    }

    #[test]
    fn a_file_holds_each_packet_with_its_side_and_comment() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        for (side, bytes) in [("site", &[0x45, 0, 0, 20][..]), ("overlay", &[0x60, 0, 0])] {
            let packet = Packet {
                time: Duration::from_nanos(1_795_332_909_120_000_001),
                side,
                length: 1500,
                bytes,
                comment: "drop: no_flow",
                lost: 3,
            };
            writer.packet(&packet).unwrap();
        }
        let packets = read(&file);
        let comment = "drop: no_flow".to_owned();
        assert_eq!(
            packets,
            [
                ("site".into(), vec![0x45, 0, 0, 20], comment.clone()),
                ("overlay".into(), vec![0x60, 0, 0], comment)
            ]
        );
    }
}
