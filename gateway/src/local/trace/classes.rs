//! How the image came to its answer: the classes, their cell, and the interval of the service list.

use std::net::IpAddr;

use sluicegate_engine::classify::{Line, Lines as _, Wide};
use sluicegate_engine::image::{Decision, LINE, axis, header};

/// The steps of a judgement (see `sluicegate_engine::image`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Classes {
    /// Class of the source; 0 is nobody's.
    pub(super) source: u32,
    /// Source classes there are.
    pub(super) sources: u32,
    /// Class of the destination; 0 is nowhere.
    pub(super) destination: u32,
    /// Destination classes there are.
    pub(super) destinations: u32,
    /// How the pair of classes is decided.
    pub(super) service: Service,
    /// What it comes to.
    pub(super) decision: Decision,
}

/// How a pair of classes is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// No rule names the pair.
    None,
    /// One rule decides it whatever the protocol.
    Everything,
    /// By protocol and port: the interval that holds the packet, both ends on the axis, and the number of intervals.
    Interval {
        /// First and last value.
        first: u32,
        /// See `first`.
        last: u32,
        /// Intervals of the list.
        of: u32,
    },
}

/// The steps for a packet from `source` to `destination`; `None` without an image.
pub(super) fn classes(image: &[Line], source: IpAddr, destination: IpAddr, value: u32) -> Option<Classes> {
    let word = |index: u32| image.word(index);
    let head = |index: usize| image.word(index as u32);
    image.line(1)?;
    let (source, destination) = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let (from, to) = (u32::from(from), u32::from(to));
            let host = from.wrapping_sub(head(header::HOSTS4_BASE));
            let source = if host < head(header::HOSTS4_LEN) {
                word(head(header::HOSTS4) + host)
            } else {
                word(
                    head(header::SRC4_CLASS)
                        + image.search4(head(header::SRC4), head(header::SRC4_LEN), from),
                )
            };
            let i = image.search4(head(header::DST4), head(header::DST4_LEN), to);
            (source, word(head(header::DST4_CLASS) + i))
        }
        (from, to) => {
            let i = image.search6(head(header::SRC6), head(header::SRC6_LEN), wide(from)?);
            let j = image.search6(head(header::DST6), head(header::DST6_LEN), wide(to)?);
            (word(head(header::SRC6_CLASS) + i), word(head(header::DST6_CLASS) + j))
        }
    };
    let row = source * head(header::ROW_BLOCKS) + destination / LINE as u32;
    let block = word(head(header::ROWS) + row);
    let cell = word(head(header::BLOCKS) + block * LINE as u32 + destination % LINE as u32);
    let (service, decision) = if cell == 0 {
        (Service::None, Decision(0))
    } else if Decision(cell).is_set() {
        (Service::Everything, Decision(cell))
    } else {
        interval(image, head(header::SERVICES) + (cell >> 4) * 16, 1 << (cell & 15), value)
    };
    Some(Classes {
        source,
        sources: head(header::SRC_CLASSES),
        destination,
        destinations: head(header::DST_CLASSES),
        service,
        decision,
    })
}

/// Looks through the list from its start: intervals are padded with starts of all ones.
fn interval(image: &[Line], set: u32, len: u32, value: u32) -> (Service, Decision) {
    let starts = (0..len).map(|i| image.word(set + i * 2));
    let real: Vec<u32> = starts.take_while(|start| *start < axis::END).collect();
    let index = real.iter().rposition(|start| *start <= value).unwrap_or(0);
    let last = real.get(index + 1).map_or(axis::END - 1, |next| next - 1);
    let service =
        Service::Interval { first: real.get(index).copied().unwrap_or(0), last, of: real.len() as u32 };
    (service, Decision(image.word(set + index as u32 * 2 + 1)))
}

fn wide(address: IpAddr) -> Option<Wide> {
    let IpAddr::V6(v6) = address else { return None };
    let whole = v6.to_bits();
    Some(((whole >> 64) as u64, whole as u64))
}
