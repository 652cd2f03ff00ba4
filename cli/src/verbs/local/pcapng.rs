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
/// Timestamps count nanoseconds: 10^-9.
const NANOSECONDS: u8 = 9;

/// One packet as it goes into the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    /// Since 1970.
    pub(super) time: Duration,
    /// Bytes it had on the wire, from the IP header on.
    pub(super) length: u32,
    /// The first of them.
    pub(super) bytes: &'a [u8],
    /// What became of it.
    pub(super) comment: &'a str,
    /// Packets that were not captured since the one before.
    pub(super) lost: u64,
}

/// A capture file that is being written. Where a packet came from is in its comment and not an interface of its own:
/// libpcap, and with it tcpdump, reads no file with several interfaces of raw IP.
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
            writer.write_pcapng_block(InterfaceDescriptionBlock {
                linktype: DataLink::RAW,
                snaplen: SNAPLEN,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed("sluicegate")),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ],
            })?;
            Ok(writer)
        })();
        begun.map(Self).map_err(failed)
    }

    /// Adds a packet.
    pub(super) fn packet(&mut self, packet: &Packet<'_>) -> Result<(), Failure> {
        let mut options = vec![EnhancedPacketOption::Comment(Cow::Borrowed(packet.comment))];
        if packet.lost > 0 {
            options.push(EnhancedPacketOption::DropCount(packet.lost));
        }
        let written: PcapResult<usize> = self.0.write_pcapng_block(EnhancedPacketBlock {
            interface_id: 0,
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
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    /// Packets in a file: bytes and comment.
    fn read(file: &[u8]) -> Vec<(Vec<u8>, String)> {
        let mut reader = PcapNgReader::new(file).unwrap();
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            let Block::EnhancedPacket(packet) = block.unwrap() else { continue };
            let comment = packet.options.iter().find_map(|option| match option {
                EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
                _ => None,
            });
            packets.push((packet.data.to_vec(), comment.unwrap_or_default()));
        }
        packets
    }

    #[test]
    fn a_file_holds_each_packet_with_its_comment() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        for (comment, bytes) in
            [("site -> drop no_flow", &[0x45, 0, 0, 20][..]), ("overlay -> host", &[0x60, 0, 0])]
        {
            let time = Duration::from_nanos(1_795_332_909_120_000_001);
            writer.packet(&Packet { time, length: 1500, bytes, comment, lost: 3 }).unwrap();
        }
        let told = |comment: &str| comment.to_owned();
        assert_eq!(
            read(&file),
            [
                (vec![0x45, 0, 0, 20], told("site -> drop no_flow")),
                (vec![0x60, 0, 0], told("overlay -> host"))
            ]
        );
    }
}
