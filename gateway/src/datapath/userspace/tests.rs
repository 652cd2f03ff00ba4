//! The tables alone, through the trait the engine sees them by.

use sluicegate_engine::event::{About, EventKind};
use sluicegate_engine::family::{Address4, Address6, V4, V6};
use sluicegate_engine::flow::{Exit, Flow, Key, REPLY, Side, State};
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::tables::{NotConfirmed, Refused, Stage, Tables};

use super::tables::{Limits, UserTables};
use crate::datapath;

const HZ: u32 = 100;

fn tables(confirmed: usize, half_open: usize) -> UserTables {
    let mut tables = UserTables::new(Limits { confirmed, half_open, events: 4, ticks_per_second: HZ });
    tables.set_image(Vec::new(), 1, 8);
    tables
}

/// Key of the first half of flow `n`.
fn key(n: u8) -> Key<Address4> {
    Key {
        source: Address4([100, 64, 0, n]),
        destination: Address4([10, 0, 0, 1]),
        source_port: 1000,
        destination_port: 443,
        protocol: 6,
        side: Side::Overlay as u8,
        padding: 0,
    }
}

fn first(flow: &mut Flow<Address4>, n: u8, now: u32) {
    *flow = Flow {
        packets: 1,
        bytes: 60,
        last_seen: now,
        timeout: 10 * HZ,
        rule: 3,
        source: key(n).source,
        destination: key(n).destination,
        source_port: 1000,
        destination_port: 443,
        state: State::SynSent as u8,
        other_side: Side::Site as u8,
        exit: Exit::Site as u8,
        ..Flow::default()
    };
}

fn reply_key(n: u8) -> Key<Address4> {
    let mut flow = Flow::default();
    first(&mut flow, n, 0);
    flow.other_key(6)
}

/// Inserts both halves of flow `n` as the engine does.
fn open(tables: &mut UserTables, n: u8, now: u32) {
    let reply = |flow: &mut Flow<Address4>| {
        first(flow, n, now);
        flow.packets = 0;
        flow.bytes = 0;
        (flow.source, flow.destination) = (key(n).destination, key(n).source);
        (flow.source_port, flow.destination_port) = (443, 1000);
        flow.other_side = Side::Overlay as u8;
        flow.exit = Exit::Overlay as u8;
        flow.flags = REPLY;
    };
    Tables::<V4>::insert_flow(tables, Stage::HalfOpen, &reply_key(n), true, reply).unwrap();
    Tables::<V4>::insert_flow(tables, Stage::HalfOpen, &key(n), true, |f| first(f, n, now)).unwrap();
}

/// Moves both halves into the confirmed table as the engine does.
fn confirm(tables: &mut UserTables, n: u8) -> Result<(), NotConfirmed> {
    for key in [reply_key(n), key(n)] {
        Tables::<V4>::confirm_flow(tables, &key, |f| f.state = State::Established as u8)?;
    }
    for key in [reply_key(n), key(n)] {
        Tables::<V4>::remove_flow(tables, Stage::HalfOpen, &key);
    }
    Ok(())
}

fn has(tables: &mut UserTables, stage: Stage, key: &Key<Address4>) -> bool {
    Tables::<V4>::with_flow(tables, stage, key, |_| ()).is_some()
}

#[test]
fn a_flood_of_half_open_flows_evicts_the_oldest_and_leaves_confirmed_ones_alone() {
    let mut t = tables(8, 4);
    open(&mut t, 1, 0);
    confirm(&mut t, 1).unwrap();
    open(&mut t, 2, 0);
    open(&mut t, 3, 0);
    // Flow 2 was used last: flow 3 is the one to go.
    assert!(has(&mut t, Stage::HalfOpen, &reply_key(2)) && has(&mut t, Stage::HalfOpen, &key(2)));
    open(&mut t, 4, 0);
    assert!(!has(&mut t, Stage::HalfOpen, &key(3)) && !has(&mut t, Stage::HalfOpen, &reply_key(3)));
    assert!(has(&mut t, Stage::HalfOpen, &key(2)) && has(&mut t, Stage::HalfOpen, &key(4)));
    for n in 5..100 {
        open(&mut t, n, 0);
    }
    assert!(has(&mut t, Stage::Confirmed, &key(1)) && has(&mut t, Stage::Confirmed, &reply_key(1)));
    assert_eq!((t.entries(), t.halves::<V4>().count()), ((2, 16), 2 + 4));
}

#[test]
fn a_full_confirmed_table_refuses_and_keeps_what_it_has() {
    let mut t = tables(2, 8);
    open(&mut t, 1, 0);
    confirm(&mut t, 1).unwrap();
    open(&mut t, 2, 0);
    assert_eq!(confirm(&mut t, 2), Err(NotConfirmed::Full));
    let refused = Tables::<V4>::insert_flow(&mut t, Stage::Confirmed, &key(3), false, |_| ());
    assert_eq!(refused, Err(Refused::Full));
    assert!(has(&mut t, Stage::Confirmed, &key(1)) && has(&mut t, Stage::HalfOpen, &key(2)));
    // What is there may be written again.
    let again = Tables::<V4>::insert_flow(&mut t, Stage::Confirmed, &key(1), true, |f| first(f, 1, 0));
    assert_eq!(again, Ok(()));
}

#[test]
fn a_key_that_is_there_is_not_given_twice() {
    let mut t = tables(8, 8);
    open(&mut t, 1, 0);
    let refused = Tables::<V4>::insert_flow(&mut t, Stage::HalfOpen, &key(1), false, |f| f.packets = 9);
    assert_eq!(refused, Err(Refused::Exists));
    assert_eq!(Tables::<V4>::with_flow(&mut t, Stage::HalfOpen, &key(1), |f| f.packets), Some(1));
    let missing = Tables::<V4>::confirm_flow(&mut t, &key(2), |_| ());
    assert_eq!(missing, Err(NotConfirmed::Missing));
}

#[test]
fn families_do_not_share_flows() {
    let mut t = tables(8, 8);
    open(&mut t, 1, 0);
    let key6 = Key::<Address6> { protocol: 6, ..Key::default() };
    Tables::<V6>::insert_flow(&mut t, Stage::HalfOpen, &key6, false, |f| f.packets = 1).unwrap();
    assert_eq!((t.halves::<V4>().count(), t.halves::<V6>().count()), (2, 1));
}

#[test]
fn a_flow_is_over_when_both_halves_are() {
    let mut t = tables(8, 8);
    open(&mut t, 1, 0);
    confirm(&mut t, 1).unwrap();
    Tables::<V4>::with_flow(&mut t, Stage::Confirmed, &reply_key(1), |f| {
        f.last_seen = 5 * HZ;
        f.packets += 2;
        f.bytes += 100;
    });
    let live = t.sweep(10 * HZ + 1);
    assert_eq!(live.len(), 1, "the reply half is not over yet");
    assert_eq!((live[0].packets, live[0].bytes, live[0].state), (3, 160, "established"));
    assert_eq!(live[0].idle.as_millis(), 5010);
    assert!(t.take_ended().is_empty());

    assert!(t.sweep(15 * HZ + 1).is_empty());
    let ended = t.take_ended();
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].kind, ended[0].packets, ended[0].bytes), (datapath::EventKind::End, 3, 160));
    assert_eq!((ended[0].rule, ended[0].source.to_string()), (Some(3), "100.64.0.1".to_owned()));
    assert_eq!(t.halves::<V4>().count(), 0);
    assert_eq!((t.totals().rules[3].packets, t.totals().rules[3].bytes), (3, 160));
}

#[test]
fn a_half_without_its_other_one_goes_when_it_is_over() {
    let mut t = tables(8, 8);
    open(&mut t, 1, 0);
    Tables::<V4>::remove_flow(&mut t, Stage::HalfOpen, &key(1));
    assert_eq!(t.take_ended().len(), 1);
    t.sweep(10 * HZ);
    assert_eq!(t.halves::<V4>().count(), 1);
    t.sweep(10 * HZ + 1);
    assert_eq!(t.halves::<V4>().count(), 0);
    assert!(t.take_ended().is_empty(), "its end was told already");
}

#[test]
fn a_flow_that_moves_does_not_end_and_one_the_engine_forgets_ends_once() {
    let mut t = tables(8, 8);
    open(&mut t, 1, 0);
    confirm(&mut t, 1).unwrap();
    assert!(t.take_ended().is_empty());
    Tables::<V4>::with_flow(&mut t, Stage::Confirmed, &reply_key(1), |f| f.packets += 4);
    // The engine names the half whose packet it has in hand first: here the reply half.
    Tables::<V4>::remove_flow(&mut t, Stage::Confirmed, &reply_key(1));
    Tables::<V4>::remove_flow(&mut t, Stage::Confirmed, &key(1));
    let ended = t.take_ended();
    assert_eq!((ended.len(), ended[0].packets), (1, 5));
}

#[test]
fn a_revoked_flow_is_told_of_by_the_engine_alone() {
    let mut t = tables(16, 16);
    (1..=6).for_each(|n| open(&mut t, n, 0));
    // One more than there is room for: a revoked flow took the event of the one before with it.
    for n in 1..=5 {
        for key in [key(n), reply_key(n)] {
            Tables::<V4>::remove_flow(&mut t, Stage::HalfOpen, &key);
        }
    }
    for key in [key(6), reply_key(6)] {
        Tables::<V4>::remove_revoked(&mut t, Stage::HalfOpen, &key);
    }
    Tables::<V4>::emit(&mut t, About { kind: EventKind::Revoke, reason: None, rule: 1 }, |_| ());
    let told: Vec<String> = t.take_ended().iter().map(|e| e.source.to_string()).collect();
    assert_eq!(told, ["100.64.0.1", "100.64.0.2", "100.64.0.3", "100.64.0.4"]);
    assert_eq!((t.take_events().len(), t.totals().lost), (1, 1));
}

#[test]
fn events_beyond_the_queue_are_counted_as_lost() {
    let mut t = tables(8, 8);
    let about = |rule| About { kind: EventKind::Start, reason: None, rule };
    for n in 0..6 {
        Tables::<V4>::emit(&mut t, about(n), |_| ());
    }
    assert_eq!((t.totals().lost, t.totals().suppressed), (2, 0));
    assert_eq!(t.take_events().iter().map(|e| e.rule).collect::<Vec<_>>(), [0, 1, 2, 3]);
    Tables::<V4>::emit(&mut t, about(7), |_| ());
    assert_eq!(t.take_events().len(), 1);
}

#[test]
fn a_flood_of_one_sort_does_not_hide_the_first_of_another() {
    let mut t = tables(8, 8);
    let about = |reason| About { kind: EventKind::Drop, reason: Some(reason), rule: 0 };
    for _ in 0..1000 {
        Tables::<V4>::emit(&mut t, about(DropReason::NoRule), |_| ());
    }
    Tables::<V4>::emit(&mut t, about(DropReason::SpoofedSource), |_| ());
    assert_eq!((t.totals().lost, t.totals().suppressed), (0, 998));
    let reasons: Vec<u8> = t.take_events().iter().map(|e| e.reason).collect();
    assert_eq!(reasons, [DropReason::NoRule, DropReason::NoRule, DropReason::SpoofedSource].map(|r| r as u8));
}

#[test]
fn rules_without_a_slot_are_not_counted_and_slots_outlive_a_smaller_image() {
    let mut t = tables(8, 8);
    Tables::<V4>::count_admitted(&mut t, 7);
    Tables::<V4>::count_refused(&mut t, 8);
    t.set_image(Vec::new(), 2, 1);
    assert_eq!((t.totals().rules.len(), t.totals().rules[7].admitted, t.totals().started), (8, 1, 1));
}
