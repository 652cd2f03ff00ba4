//! What XDP carries, beside what TC would have made of it.

extern crate std;

use std::vec::Vec;

use super::world::{SITE, Twin, World, port, segment};
use crate::family::{V4, V6};
use crate::flow::Side;
use crate::packet::tcp::{ACK, RST, SYN};
use crate::pipeline::Verdict;
use crate::reason::DropReason;

/// Opens a connection from `source_port`; whether XDP carried the packet that completed the handshake.
fn connect<F: Twin>(world: &mut World<F>, source_port: u16, now: u64) -> (bool, Verdict) {
    let there = |flags| segment::<F>((F::PEER, source_port), (F::FAR, super::world::SERVER), Some(flags));
    let mut syn = there(SYN);
    let (carried, verdict) = world.carry(Side::Overlay, &mut syn, now);
    if verdict != Verdict::Site(SITE) {
        return (carried, verdict);
    }
    let mut answer = world.answer(&syn, Some(SYN | ACK));
    assert_eq!(world.carry(Side::Site, &mut answer, now + 1).1, Verdict::Overlay);
    world.carry(Side::Overlay, &mut there(ACK), now + 2)
}

fn openings_are_taken_back<F: Twin>() {
    let mut world = World::<F>::new(true);
    world.config.half_open_per_source = 3;
    for number in 0..8u16 {
        let (carried, verdict) = connect(&mut world, 40_000 + number, 100 + 10 * u64::from(number));
        assert_eq!((carried, verdict), (true, Verdict::Site(SITE)), "connection {number}");
    }
    // What nobody answers counts.
    let silent = (0..4u16).map(|number| {
        let mut syn = segment::<F>((F::PEER, 50_000 + number), (F::FAR, 443), Some(SYN));
        world.carry(Side::Overlay, &mut syn, 200).1
    });
    let refused = silent.filter(|verdict| *verdict == Verdict::Drop(DropReason::SourceLimit)).count();
    assert_eq!(refused, 1);
}

#[test]
fn answered_openings_are_taken_back_where_xdp_carries_the_answer() {
    openings_are_taken_back::<V4>();
    openings_are_taken_back::<V6>();
}

fn is_revoked_at_once<F: Twin>() {
    let mut world = World::<F>::new(true);
    assert_eq!(connect(&mut world, 40_000, 100), (true, Verdict::Site(SITE)));
    (world.epoch, world.accepts) = (2, false);
    let (_, verdict) = world.carry(Side::Overlay, &mut world.there(Some(ACK)), 103);
    assert_eq!(verdict, Verdict::Drop(DropReason::Revoked));
    assert!(world.confirmed.is_empty());
}

/// With its neighbour learned in the same tick.
#[test]
fn a_revoked_flow_is_not_carried_for_as_long_as_its_neighbour_is_good() {
    is_revoked_at_once::<V4>();
    is_revoked_at_once::<V6>();
}

fn is_clamped<F: Twin>(largest: u16) {
    let mut world = World::<F>::new(true);
    for now in 100..103 {
        let mut syn = world.there(Some(SYN));
        assert_eq!(world.carry(Side::Overlay, &mut syn, now).1, Verdict::Site(SITE));
        let at = F::TRANSPORT + 22;
        assert_eq!(syn[at..at + 2], largest.to_be_bytes(), "SYN at {now}");
        let mut answer = world.answer(&syn, Some(SYN | ACK));
        assert_eq!(world.carry(Side::Site, &mut answer, now).1, Verdict::Overlay);
        assert_eq!(answer[at..at + 2], largest.to_be_bytes(), "its answer at {now}");
    }
}

/// Repeated ones too, which come when the neighbour is known.
#[test]
fn a_syn_leaves_with_the_size_that_fits_whoever_carries_it() {
    is_clamped::<V4>(1380);
    is_clamped::<V6>(1360);
}

fn reads_once<F: Twin>() {
    let mut world = World::<F>::new(true);
    let syn = world.there(Some(SYN));
    let sent = look(&mut world, Side::Overlay, syn, 100);
    let answer = world.answer(&sent, Some(SYN | ACK));
    look(&mut world, Side::Site, answer, 101);
    let ack = world.there(Some(ACK));
    look(&mut world, Side::Overlay, ack.clone(), 102);
    look(&mut world, Side::Overlay, ack.clone(), 103);
    world.epoch = 2;
    look(&mut world, Side::Overlay, ack.clone(), 104);
    (world.epoch, world.accepts) = (3, false);
    look(&mut world, Side::Overlay, ack.clone(), 105);
    look(&mut world, Side::Overlay, ack, 106);
}

fn look<F: Twin>(world: &mut World<F>, side: Side, mut packet: Vec<u8>, now: u64) -> Vec<u8> {
    world.reads.set(0);
    let verdict = world.judge(side, &mut packet, now);
    assert_eq!(world.reads.get(), 1, "{side:?} at {now}, {verdict:?}");
    packet
}

/// Judged by one revision: between two looks there may be another.
#[test]
fn which_image_is_in_force_is_looked_at_once_for_each_packet() {
    reads_once::<V4>();
    reads_once::<V6>();
}

fn stays_half_open<F: Twin>() {
    let mut world = World::<F>::new(true);
    let mut syn = world.there(Some(SYN));
    world.carry(Side::Overlay, &mut syn, 100);
    let mut refusal = world.answer(&syn, Some(RST | ACK));
    assert_eq!(world.carry(Side::Site, &mut refusal, 101).1, Verdict::Overlay);
    assert_eq!((world.half_open.len(), world.confirmed.len()), (2, 0), "a RST has confirmed a flow");

    let mut world = World::<F>::new(true);
    let mut question = world.there(None);
    world.carry(Side::Overlay, &mut question, 100);
    let mut answer = world.answer(&question, None);
    assert_eq!(world.carry(Side::Site, &mut answer, 101).1, Verdict::Overlay);
    assert_eq!((world.half_open.len(), world.confirmed.len()), (2, 0), "one answer has confirmed a flow");
    let mut more = world.there(None);
    assert_eq!(world.carry(Side::Overlay, &mut more, 102), (true, Verdict::Site(SITE)));
    assert_eq!(port::<F>(&more), port::<F>(&question));
    assert_eq!((world.half_open.len(), world.confirmed.len()), (0, 2));
}

/// A peer that may open flows would fill the table that never makes room, at one packet of its own for each.
#[test]
fn one_packet_of_the_opener_confirms_nothing() {
    stays_half_open::<V4>();
    stays_half_open::<V6>();
}
