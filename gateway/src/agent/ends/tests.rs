use sluicegate_api::agent::End;

use super::*;

const HOUR: u64 = 3_600_000;

fn moment(boot: &str, boot_ms: u64, wall_ms: u64) -> Moment {
    Moment { boot: boot.into(), boot_ms, wall_ms }
}

/// Ends after one hour and after two, by a control whose clock was at `wall_ms` when it said so.
fn schedule(wall_ms: u64) -> Schedule {
    let end = |hours: u64| End {
        left_ms: hours * HOUR,
        at_ms: wall_ms + hours * HOUR,
        revision: 10 + hours,
        hash: vec![hours as u8; 32],
        delta: vec![hours as u8],
    };
    Schedule { base_hash: vec![0; 32], ends: vec![end(1), end(2)] }
}

fn kept() -> Kept {
    Kept { schedule: schedule(1000 * HOUR), at: moment("a", 5 * HOUR, 1000 * HOUR) }
}

/// Time left, in minutes, as told at a later moment.
fn left(now: &Moment, seen: Option<&Moment>) -> Vec<u64> {
    let told = kept().told_at(now, seen);
    assert_eq!(told.at, *now);
    told.schedule.ends.iter().map(|end| end.left_ms / 60_000).collect()
}

#[test]
fn a_schedule_is_read_from_the_image_that_is_in_force() {
    let schedule = schedule(0);
    let first = Ends::of(&schedule, &[0; 32], 7).unwrap();
    let bases: Vec<(u8, u8, u64, u64)> = first
        .0
        .iter()
        .map(|end| (end.delta.base_hash[0], end.delta.hash[0], end.delta.revision, end.due_ms))
        .collect();
    assert_eq!(bases, [(0, 1, 11, 7 + HOUR), (1, 2, 12, 7 + 2 * HOUR)]);
    // Who is past the first end has one left, and past the last none.
    assert_eq!(Ends::of(&schedule, &[1; 32], 7).unwrap().0[0], first.0[1]);
    assert_eq!(Ends::of(&schedule, &[2; 32], 7).unwrap().len(), 0);
    assert_eq!(Ends::of(&schedule, &[3; 32], 7), None);
}

#[test]
fn what_is_due_is_due_from_its_millisecond_on_and_one_after_the_other() {
    let mut ends = Ends::of(&schedule(0), &[0; 32], 7).unwrap();
    assert_eq!(ends.due(6 + HOUR), None);
    assert_eq!(ends.left(6 + HOUR), Some(Duration::from_millis(1)));
    assert_eq!(ends.due(7 + HOUR).unwrap().revision, 11);
    assert_eq!(ends.left(9 * HOUR), Some(Duration::ZERO));
    ends.done();
    assert_eq!(ends.due(7 + HOUR), None);
    assert_eq!(ends.due(9 * HOUR).unwrap().revision, 12);
    ends.done();
    assert_eq!((ends.due(u64::MAX), ends.left(0), ends.len()), (None, None, 0));
}

#[test]
fn the_newest_that_knows_an_image_counts() {
    let known = |base: u8, left_ms: u64| {
        let mut schedule = schedule(0);
        schedule.base_hash = vec![base; 32];
        schedule.ends[0].left_ms = left_ms;
        Kept { schedule, at: moment("a", 0, 0) }
    };
    let kept = [known(8, 10), known(9, 20), known(8, 30)];
    assert_eq!(Ends::kept(&kept, &[8; 32]).left(0), Some(Duration::from_millis(10)));
    assert_eq!(Ends::kept(&kept, &[9; 32]).left(0), Some(Duration::from_millis(20)));
    assert_eq!(Ends::kept(&kept, &[7; 32]), Ends::default());
}

#[test]
fn in_the_same_run_of_the_kernel_the_wall_clock_does_not_matter() {
    for wall in [0, 1000 * HOUR, u64::MAX] {
        assert_eq!(left(&moment("a", 5 * HOUR + HOUR / 2, wall), None), [30, 90]);
        assert_eq!(left(&moment("a", 7 * HOUR, wall), None), [0, 0]);
    }
}

#[test]
fn a_clock_that_begins_anew_and_a_run_without_a_name_are_another_start() {
    let half = 1000 * HOUR + HOUR / 2;
    assert_eq!(left(&moment("a", 5 * HOUR - 1, half), None), [30, 90]);
    let nameless = Kept { at: moment("", 5 * HOUR, 1000 * HOUR), ..kept() };
    let told = nameless.told_at(&moment("", 5 * HOUR + 1, half), None);
    assert_eq!(told.schedule.ends[0].left_ms, HOUR / 2);
}

#[test]
fn after_another_start_the_time_away_counts() {
    // Half an hour by the wall clock, of which nothing is known but that.
    assert_eq!(left(&moment("b", 60_000, 1000 * HOUR + HOUR / 2), None), [30, 90]);
    // It ran for 20 minutes, though by the wall clock for none, and was away for 10.
    let seen = moment("a", 5 * HOUR + HOUR / 3, 1000 * HOUR);
    let now = moment("b", 0, 1000 * HOUR + HOUR / 6);
    assert_eq!(left(&now, Some(&seen)), [30, 90]);
    assert_eq!(left(&moment("b", 0, 1003 * HOUR), Some(&seen)), [0, 0]);
    // A moment of yet another run says nothing.
    assert_eq!(left(&now, Some(&moment("c", 9 * HOUR, 0))), [50, 110]);
}

#[test]
fn a_wall_clock_that_went_back_over_a_start_ends_everything() {
    assert_eq!(left(&moment("b", 0, 1000 * HOUR - 1), None), [0, 0]);
    let seen = moment("a", 6 * HOUR - 1, 1001 * HOUR);
    assert_eq!(left(&moment("b", 0, 1001 * HOUR - 1), Some(&seen)), [0, 0]);
}

#[test]
fn over_a_start_the_wall_clock_of_control_ends_it_too() {
    // This clock was half an hour ahead when control said so, and is right now.
    let ahead = Kept { schedule: schedule(1000 * HOUR), at: moment("a", 0, 1000 * HOUR + HOUR / 2) };
    let told = ahead.told_at(&moment("b", 0, 1000 * HOUR + HOUR * 2 / 3), None);
    assert_eq!(told.schedule.ends[0].left_ms, HOUR / 3);
}
