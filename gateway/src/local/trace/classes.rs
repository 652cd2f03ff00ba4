//! How the image came to its answer: rows, columns, their cell, and the interval of the service list.

use std::net::IpAddr;

use sluicegate_engine::classify::{Line, Lines as _, Wide, better};
use sluicegate_engine::image::{Decision, LINE, LIST_MAX, Places, axis, header};

/// The steps of a judgement (see `sluicegate_engine::image`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Classes {
    /// Rows of the source; none is nobody's.
    pub(super) rows: Vec<u32>,
    /// Rows there are.
    pub(super) rows_of: u32,
    /// Columns of the destination; none is nowhere, or where no rule leads.
    pub(super) columns: Vec<u32>,
    /// Columns there are.
    pub(super) columns_of: u32,
    /// How the pair of row and column is decided whose decision holds.
    pub(super) service: Service,
    /// What it comes to.
    pub(super) decision: Decision,
}

/// How a pair of row and column is decided.
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
    let (rows, class) = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let (from, to) = (u32::from(from), u32::from(to));
            let host = from.wrapping_sub(head(header::HOSTS4_BASE));
            let rows = if host < head(header::HOSTS4_LEN) {
                word(head(header::HOSTS4) + host)
            } else {
                word(
                    head(header::SRC4_CLASS)
                        + image.search4(head(header::SRC4), head(header::SRC4_LEN), from),
                )
            };
            let i = image.search4(head(header::DST4), head(header::DST4_LEN), to);
            (rows, word(head(header::DST4_CLASS) + i))
        }
        (from, to) => {
            let i = image.search6(head(header::SRC6), head(header::SRC6_LEN), wide(from)?);
            let j = image.search6(head(header::DST6), head(header::DST6_LEN), wide(to)?);
            (word(head(header::SRC6_CLASS) + i), word(head(header::DST6_CLASS) + j))
        }
    };
    let columns = word(head(header::CLASSES) + 2 * class + 1);
    let listed = |lists: usize, places: u32| -> Vec<u32> {
        let numbers = match Places(places).list() {
            None => vec![places],
            Some(list) => (0..LIST_MAX as u32).map(|i| word(head(lists) + list * LINE as u32 + i)).collect(),
        };
        numbers.into_iter().take_while(|&number| number != 0).collect()
    };
    let rows = listed(header::ROW_LISTS, rows);
    let columns = listed(header::COLUMN_LISTS, columns);
    let (mut service, mut decision) = (Service::None, 0);
    for (&row, &column) in rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column))) {
        let cell = image.cell(row, column)?;
        let (how, word) = if cell == 0 {
            continue;
        } else if Decision(cell).is_set() {
            (Service::Everything, cell)
        } else {
            interval(image, head(header::SERVICES) + (cell >> 4) * 16, 1 << (cell & 15), value)
        };
        let best = better(image, decision, word);
        if service == Service::None || best != decision {
            (service, decision) = (how, best);
        }
    }
    Some(Classes {
        rows,
        rows_of: head(header::ROWS_LEN),
        columns,
        columns_of: head(header::COLUMNS_LEN),
        service,
        decision: Decision(decision),
    })
}

/// Looks through the list from its start: intervals are padded with starts of all ones.
fn interval(image: &[Line], set: u32, len: u32, value: u32) -> (Service, u32) {
    let starts = (0..len).map(|i| image.word(set + i * 2));
    let real: Vec<u32> = starts.take_while(|start| *start < axis::END).collect();
    let index = real.iter().rposition(|start| *start <= value).unwrap_or(0);
    let last = real.get(index + 1).map_or(axis::END - 1, |next| next - 1);
    let service =
        Service::Interval { first: real.get(index).copied().unwrap_or(0), last, of: real.len() as u32 };
    (service, image.word(set + index as u32 * 2 + 1))
}

fn wide(address: IpAddr) -> Option<Wide> {
    let IpAddr::V6(v6) = address else { return None };
    let whole = v6.to_bits();
    Some(((whole >> 64) as u64, whole as u64))
}
