//! What a capture records of a packet, and which packets it wants.
//!
//! The bytes are taken before the engine sees the packet, as it came; what became of it is added when that is known.

use crate::family::Family;
use crate::packet::protocol;
use crate::pipeline::Verdict;
use crate::reason::DropReason;
use crate::work::Work;

/// Bytes of a packet that are recorded, from its IP header on.
pub const BYTES: usize = 128;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// Dropped, whether or not its sender was told.
    Drop = 0,
    /// To the host's own stack.
    Host = 1,
    /// Out of a site device.
    Site = 2,
    /// Into the overlay.
    Overlay = 3,
}

impl Fate {
    /// What a verdict comes to, and the index of the device it names; 0 for none.
    #[inline(always)]
    pub const fn of(verdict: Verdict) -> (Self, u32) {
        match verdict {
            Verdict::Drop(_) | Verdict::Answer => (Fate::Drop, 0),
            Verdict::Pass | Verdict::Host => (Fate::Host, 0),
            Verdict::Site(device) => (Fate::Site, device),
            Verdict::Overlay => (Fate::Overlay, 0),
        }
    }

    /// The fate with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Fate::Host,
            2 => Fate::Site,
            3 => Fate::Overlay,
            _ => Fate::Drop,
        }
    }

    /// The name in captures.
    pub const fn name(self) -> &'static str {
        match self {
            Fate::Drop => "drop",
            Fate::Host => "host",
            Fate::Site => "site",
            Fate::Overlay => "overlay",
        }
    }
}

/// One packet and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Captured {
    /// When, by the machine's monotonic clock, nanoseconds.
    pub nanoseconds: u64,
    /// Source after translation, network order, IPv4 mapped into IPv6; zero when it did not change.
    pub translated: [u8; 16],
    /// Length from the IP header on.
    pub length: u32,
    /// Slot + 1 of the rule by which it was let go or refused; 0 for none.
    pub rule: u32,
    /// Index of the site device it leaves by; 0 for none.
    pub device: u32,
    /// Source port after translation, host order.
    pub translated_port: u16,
    /// `Fate`.
    pub fate: u8,
    /// `DropReason` of a packet that was dropped.
    pub reason: u8,
    /// `Side` it came from.
    pub side: u8,
    /// How many of `bytes` there are.
    pub captured: u8,
    /// Zero.
    pub padding: [u8; 2],
    /// The packet, as it came.
    pub bytes: [u8; BYTES],
}

const _: () = assert!(size_of::<Captured>() == 176 && size_of::<Filter>() == 40);

impl Default for Captured {
    fn default() -> Self {
        Self {
            nanoseconds: 0,
            translated: [0; 16],
            length: 0,
            rule: 0,
            device: 0,
            translated_port: 0,
            fate: 0,
            reason: 0,
            side: 0,
            captured: 0,
            padding: [0; 2],
            bytes: [0; BYTES],
        }
    }
}

impl Captured {
    /// Adds what became of the packet in `work`; bytes and length are there already.
    #[inline(always)]
    pub fn describe<F: Family>(&mut self, work: &Work<F::Address>, fate: Fate, device: u32) {
        let leaving = &work.leaving;
        self.fate = fate as u8;
        self.device = device;
        self.rule = leaving.rule;
        self.side = work.side;
        self.reason = if matches!(fate, Fate::Drop) { leaving.reason } else { 0 };
        self.translated = [0; 16];
        self.translated_port = 0;
        let left = !matches!(fate, Fate::Drop) && leaving.rule != 0;
        if left && leaving.translated && leaving.to.source != work.network.source {
            self.translated = F::mapped(leaving.to.source);
            self.translated_port = leaving.to.source_port;
        }
    }
}

/// Which packets are wanted: all parts that are set must match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Filter {
    /// Source or destination as it came, in network order, one of IPv4, mapped into IPv6, and one of IPv6. Zeros are an
    /// address nobody has; both zero are any.
    pub addresses: [[u32; 4]; 2],
    /// Source or destination port, host order; 0 for any.
    pub port: u16,
    /// IP protocol, where the number of ICMP for IPv4 stands for ICMPv6 too; 0 for any.
    pub protocol: u8,
    /// `DROPS`, `PASSES`, or 0 for both.
    pub verdicts: u8,
    /// Zero.
    pub padding: u32,
}

/// Only packets that are dropped.
pub const DROPS: u8 = 1;
/// Only packets that go on.
pub const PASSES: u8 = 2;

const ICMP: u8 = 1;

impl Filter {
    /// Whether the packet in `work`, which ended like that, is wanted.
    #[inline(always)]
    pub fn wants<F: Family>(&self, work: &Work<F::Address>, fate: Fate) -> bool {
        let dropped = matches!(fate, Fate::Drop);
        if self.verdicts == DROPS && !dropped || self.verdicts == PASSES && dropped {
            return false;
        }
        let any = self.addresses.as_flattened().iter().all(|word| *word == 0);
        // Of a packet whose header cannot be read nothing is known but that.
        let unreadable = leaves_nothing(work.leaving.reason);
        if dropped && unreadable && !(any && self.protocol == 0 && self.port == 0) {
            return false;
        }
        let network = &work.network;
        let protocol = if self.protocol == ICMP { F::ICMP } else { self.protocol };
        if protocol != 0 && network.protocol != protocol {
            return false;
        }
        if self.port != 0 {
            let has_ports = matches!(network.protocol, protocol::TCP | protocol::UDP);
            let (source, destination) = (work.transport.source_port, work.transport.destination_port);
            if !has_ports || (source != self.port && destination != self.port) {
                return false;
            }
        }
        any || self.is::<F>(network.source) || self.is::<F>(network.destination)
    }

    #[inline(always)]
    fn is<F: Family>(&self, address: F::Address) -> bool {
        let address = F::mapped(address);
        let word =
            |i: usize| u32::from_ne_bytes([address[i], address[i + 1], address[i + 2], address[i + 3]]);
        let [a, b, c, d] = self.addresses[usize::from(F::VERSION == 6)];
        (word(0) ^ a) | (word(4) ^ b) | (word(8) ^ c) | (word(12) ^ d) == 0
    }
}

#[inline(always)]
const fn leaves_nothing(reason: u8) -> bool {
    reason == DropReason::Malformed as u8 || reason == DropReason::BadVersion as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{Address4, Address6, V4, V6};
    use crate::packet::Transport;

    fn work(protocol: u8) -> Work<Address4> {
        let mut work = Work::default();
        work.network.source = Address4([100, 64, 0, 2]);
        work.network.destination = Address4([10, 9, 0, 7]);
        work.network.protocol = protocol;
        work.transport = Transport { source_port: 4000, destination_port: 443, ..Transport::default() };
        work
    }

    fn host(address: [u8; 4]) -> [[u32; 4]; 2] {
        [words(V4::mapped(Address4(address))), [0; 4]]
    }

    fn words(mapped: [u8; 16]) -> [u32; 4] {
        core::array::from_fn(|i| u32::from_ne_bytes(core::array::from_fn(|j| mapped[i * 4 + j])))
    }

    #[test]
    fn a_host_of_two_families_is_found_in_both() {
        let four = work(protocol::TCP);
        let mut six: Work<Address6> = Work::default();
        six.network.source = Address6(core::array::from_fn(|i| i as u8));
        six.network.destination = Address6([9; 16]);
        let both = [host([10, 9, 0, 7])[0], words(six.network.source.0)];
        let wants = |addresses| {
            let filter = Filter { addresses, ..Filter::default() };
            (filter.wants::<V4>(&four, Fate::Site), filter.wants::<V6>(&six, Fate::Site))
        };
        assert_eq!(wants(both), (true, true));
        assert_eq!(wants([both[0], [0; 4]]), (true, false));
        assert_eq!(wants([[0; 4], both[1]]), (false, true));
    }

    #[test]
    fn every_part_that_is_set_must_match() {
        let tcp = work(protocol::TCP);
        let wants = |filter: Filter| filter.wants::<V4>(&tcp, Fate::Site);
        assert!(wants(Filter::default()));
        assert!(wants(Filter {
            addresses: host([10, 9, 0, 7]),
            port: 443,
            protocol: 6,
            ..Filter::default()
        }));
        assert!(wants(Filter { addresses: host([100, 64, 0, 2]), port: 4000, ..Filter::default() }));
        assert!(!wants(Filter { addresses: host([10, 9, 0, 8]), port: 443, ..Filter::default() }));
        assert!(!wants(Filter { port: 80, ..Filter::default() }));
        assert!(!wants(Filter { protocol: 17, ..Filter::default() }));
        assert!(!wants(Filter { verdicts: DROPS, ..Filter::default() }));
        assert!(wants(Filter { verdicts: PASSES, ..Filter::default() }));
        // The id of an echo is no port; ICMP is one word for both families.
        let echo = Filter { port: 443, ..Filter::default() };
        assert!(!echo.wants::<V4>(&work(V4::ICMP), Fate::Site));
        let icmp = Filter { protocol: V4::ICMP, ..Filter::default() };
        let mut six = Work::default();
        six.network.protocol = V6::ICMP;
        assert!(icmp.wants::<V4>(&work(V4::ICMP), Fate::Site) && icmp.wants::<V6>(&six, Fate::Site));
    }

    #[test]
    fn a_packet_that_cannot_be_read_is_not_taken_for_the_one_before() {
        let mut stale = work(protocol::TCP);
        stale.leaving.reason = DropReason::Malformed as u8;
        let tcp = Filter { protocol: 6, ..Filter::default() };
        assert!(!tcp.wants::<V4>(&stale, Fate::Drop));
        assert!(Filter { verdicts: DROPS, ..Filter::default() }.wants::<V4>(&stale, Fate::Drop));
    }

    #[test]
    fn a_translated_source_is_told_only_of_what_leaves() {
        let mut left = work(protocol::TCP);
        left.leaving.rule = 5;
        left.leaving.translated = true;
        left.leaving.to.source = Address4([10, 9, 0, 1]);
        left.leaving.to.source_port = 20_000;
        let mut captured = Captured::default();
        captured.describe::<V4>(&left, Fate::Site, 3);
        assert_eq!((captured.rule, captured.device, captured.translated_port), (5, 3, 20_000));
        assert_eq!(captured.translated[12..], [10, 9, 0, 1]);
        captured.describe::<V4>(&left, Fate::Drop, 0);
        assert_eq!((captured.translated, captured.translated_port), ([0; 16], 0));
    }
}
