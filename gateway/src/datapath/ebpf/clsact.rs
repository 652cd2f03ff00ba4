//! TC programs where there is no tcx, before Linux 6.6: filters below a clsact qdisc.
//!
//! A filter stays when whoever made it goes, but there is no link to it that could be pinned. What is pinned in its place is the
//! program: a filter of ours is there when one with our priority and handle runs the program that is pinned.

use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::Context as _;
use aya::programs::links::Link as _;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{SchedClassifier, TcAttachType};

use super::{links, netlink, sys};
use crate::datapath::device;

/// The first that the kernel asks. Others may have filters of the same priority; the one that came last runs first.
const PRIORITY: u16 = 1;
/// Nobody else's, so that a new agent replaces its own filter and no other.
const HANDLE: u32 = 0x5c47_0001;

/// Puts `program` on `side` of `device`, in place of an earlier agent's in one step, and pins it at `pin`.
pub(super) fn attach(
    program: &mut SchedClassifier,
    device: &str,
    side: TcAttachType,
    pin: &Path,
) -> anyhow::Result<()> {
    let handle = TcHandle::from(HANDLE);
    let earlier = SchedClassifierLink::attached(device, side, PRIORITY, handle, None)?;
    let id = program.attach_to_link(earlier).or_else(|_| {
        let options = NlOptions { priority: PRIORITY, handle, classid: None };
        program.attach_with_options(device, side, TcAttachOptions::Netlink(options))
    });
    let id = id.with_context(|| {
        format!(
            "priority {PRIORITY} may be taken by a filter that is no eBPF program (`tc filter show dev {device}` tells), which goes \
             on undisturbed: give it another one"
        )
    })?;
    // Dropping aya's link would remove the filter.
    std::mem::forget(program.take_link(id)?);
    program.pin(pin)?;
    Ok(())
}

/// Id of the program pinned at `pin`, when it runs on `side` of the device with `index`.
pub(super) fn live(pin: &Path, index: u32, side: TcAttachType) -> Option<u32> {
    let program = pinned(pin)?;
    let there = netlink::filter_programs(index, side == TcAttachType::Egress, PRIORITY, HANDLE).ok()?;
    there.contains(&program).then_some(program)
}

/// Takes the program pinned at `pin` off `side` of `device`, if it is there.
pub(super) fn remove(pin: &Path, device: &str, side: TcAttachType) -> anyhow::Result<()> {
    let Some(index) = device::index(device) else { return Ok(()) };
    if live(pin, index, side).is_some() {
        let filter = SchedClassifierLink::attached(device, side, PRIORITY, HANDLE.into(), None)?;
        filter.detach().with_context(|| format!("the filter on {device} could not be removed"))?;
    }
    Ok(())
}

fn pinned(pin: &Path) -> Option<u32> {
    let program = sys::open_pinned(pin).ok()?;
    links::program_id(program.as_fd()).ok()
}
