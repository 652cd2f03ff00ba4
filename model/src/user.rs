//! The engine over tables in this process, driven packet by packet.

use std::collections::BTreeMap;

use sluicegate_engine::classify::Line;
use sluicegate_engine::event::Event;
use sluicegate_engine::express::screen;
use sluicegate_engine::family::{Address4, Address6, V4, V6};
use sluicegate_engine::flow::{Flow, Key, Side, Timeouts};
use sluicegate_engine::hop::learn;
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::image::header;
use sluicegate_engine::packet::{Packet, Slice};
use sluicegate_engine::pipeline::{Verdict, process};
use sluicegate_engine::tables::{Config, Egress, Egresses, Stage, Tables};
use sluicegate_engine::work::Work;

use crate::case::{Arrival, Counters, Exit, FlowDump, Outcome, SLOTS, Setup};
use crate::tables;

/// The neighbour of every packet that leaves.
const NEIGHBOUR: [u8; 6] = [2, 9, 9, 9, 9, 9];

/// A half-entry and the table it is in.
pub type Half<A> = (Stage, Key<A>, Flow<A>);

/// Tables that the engine can be driven over: the gateway's own, or [`crate::plain::Plain`].
pub trait Twin {
    /// What the engine sees of them.
    type Tables: Tables<V4> + Tables<V6>;

    fn tables(&mut self) -> &mut Self::Tables;
    /// Puts a validated image in force.
    fn set_image(&mut self, lines: Vec<Line>, epoch: u32);
    fn set_egress(&mut self, egress: Vec<Egress>);
    /// By their mapped form.
    fn set_host_addresses(&mut self, host: BTreeMap<[u8; 16], HostAddress>);
    fn set_config(&mut self, config: Config);
    /// Events since the last call, oldest first.
    fn take_events(&mut self) -> Vec<Event>;
    /// The agent's pass over the flows.
    fn sweep(&mut self, now: u32);
    fn counters(&self) -> Counters;
    fn halves(&self) -> (Vec<Half<Address4>>, Vec<Half<Address6>>);
}

/// A gateway in this process.
pub struct User<T> {
    setup: Setup,
    /// Packets that XDP carried.
    pub carried: u64,
    twin: T,
    work4: Work<Address4>,
    work6: Work<Address6>,
}

impl<T: Twin> User<T> {
    /// Before a first image.
    pub fn new(setup: Setup, twin: T) -> Self {
        Self { setup, carried: 0, twin, work4: Work::default(), work6: Work::default() }
    }

    pub fn set_image(&mut self, revision: u32, lines: &[Line]) {
        assert!(lines[header::RULE_SLOTS / 16][header::RULE_SLOTS % 16] <= SLOTS as u32);
        self.twin.set_image(lines.to_vec(), revision);
    }

    /// Routes that are not named leave nowhere.
    pub fn set_egress(&mut self, ways: &[(u16, Exit)]) {
        let last = ways.iter().map(|(route, _)| usize::from(*route) + 1).max().unwrap_or(0);
        let mut egress = vec![Egress::default(); last];
        ways.iter().for_each(|(route, exit)| egress[usize::from(*route)] = tables::egress(exit));
        self.twin.set_egress(egress);
    }

    pub fn set_host_addresses(&mut self, host: BTreeMap<[u8; 16], HostAddress>) {
        self.twin.set_host_addresses(host);
    }

    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.setup.timeouts = timeouts;
    }

    /// The tables as the next packet will find them.
    pub fn tables(&mut self, now: u64, deadline: Option<u64>) -> &mut T::Tables {
        self.twin.set_config(tables::config(&self.setup, now, deadline));
        self.twin.tables()
    }

    pub fn packet(&mut self, arrival: &Arrival, now: u64, deadline: Option<u64>) -> Result<Outcome, String> {
        self.twin.set_config(tables::config(&self.setup, now, deadline));
        let (verdict, mut bytes) = if arrival.six {
            judge::<V6, _>(arrival, now, self.twin.tables(), &mut self.work6)?
        } else {
            judge::<V4, _>(arrival, now, self.twin.tables(), &mut self.work4)?
        };
        let (verdict, carried) = verdict;
        self.carried += u64::from(carried);
        if matches!(verdict, Verdict::Drop(_)) {
            bytes.clear();
        }
        Ok(Outcome { verdict, bytes, events: self.twin.take_events() })
    }

    pub fn sweep(&mut self, now: u64) {
        self.twin.sweep(now as u32);
    }

    pub fn counters(&self) -> Counters {
        self.twin.counters()
    }

    pub fn flows(&self, now: u64) -> Result<Vec<FlowDump>, String> {
        let (four, six) = self.twin.halves();
        let mut flows = tables::flows::<V4>(four.into_iter(), now)?;
        flows.extend(tables::flows::<V6>(six.into_iter(), now)?);
        flows.sort();
        Ok(flows)
    }
}

/// First XDP where it looks, then TC, then the program that learns neighbours: what becomes of the packet, whether XDP carried
/// it, and what it is then.
fn judge<F: Egresses, T: Tables<F>>(
    arrival: &Arrival,
    now: u64,
    tables: &mut T,
    work: &mut Work<F::Address>,
) -> Result<((Verdict, bool), Vec<u8>), String> {
    let side = arrival.side;
    let mut packet = Offloaded { bytes: arrival.bytes.clone(), segment: arrival.segment };
    if arrival.screened {
        let sends = tables.config().hop_lifetime != 0;
        let by_xdp = screen::<F, _, _>(&mut packet, side, sends, tables, now, work);
        if let Some(verdict) = by_xdp {
            return match verdict {
                Verdict::Pass | Verdict::Host => Err(format!("XDP said {verdict:?}")),
                _ => Ok(((verdict, !matches!(verdict, Verdict::Drop(_))), packet.bytes)),
            };
        }
        if packet.bytes != arrival.bytes {
            return Err("XDP changed a packet that it leaves to TC".into());
        }
    }
    let verdict = process::<F, _, _>(&mut packet, side, tables, now, work);
    let left_by = match verdict {
        Verdict::Site(device) => Some((device, Side::Site)),
        Verdict::Overlay => Some((tables.config().overlay_device, Side::Overlay)),
        _ => None,
    };
    if let Some((device, answers)) = left_by.filter(|_| work.hop(tables.config()).is_none()) {
        learn::<F, _, _>(&packet, device, answers, tables, now, NEIGHBOUR, work);
    }
    Ok(((verdict, false), packet.bytes))
}

/// A packet that the device may yet cut up.
struct Offloaded {
    bytes: Vec<u8>,
    segment: u16,
}

impl Packet for Offloaded {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.bytes.get(offset as usize..)?.first_chunk().copied()
    }

    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
        Slice(&mut self.bytes).write(offset, bytes)
    }

    fn length(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn segment_length(&self, headers: u32) -> u32 {
        if self.segment == 0 { self.length() } else { headers + u32::from(self.segment) }
    }

    fn requote(&mut self, headers: u32, quoted: u32) -> bool {
        self.bytes.truncate(quoted as usize);
        self.bytes.splice(..0, vec![0; headers as usize]);
        true
    }
}
