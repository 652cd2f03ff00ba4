use sluicegate_api::agent::End;

use super::super::ends::Moment;
use super::super::store::Kept;
use super::*;
use crate::datapath::fake::FakeDatapath;

fn image(words: &[u32]) -> Image {
    Image { words: words.to_vec(), ..Image::default() }
}

fn snapshot(revision: u64, image: &Image) -> Snapshot {
    Snapshot { revision, hash: image.hash().to_vec(), image: image.encode() }
}

fn delta(from: (u64, &Image), to: (u64, &Image)) -> Delta {
    Delta {
        base_revision: from.0,
        base_hash: from.1.hash().to_vec(),
        revision: to.0,
        hash: to.1.hash().to_vec(),
        delta: image::Delta::between(from.1, to.1).encode(),
    }
}

fn nowhere(_: &BTreeMap<u32, RouteInfo>) -> anyhow::Result<Vec<Egress>> {
    Ok(Vec::new())
}

struct Bench {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    fake: FakeDatapath,
    policy: Policy,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::new(dir.path()));
    let mut fake = FakeDatapath::default();
    let policy = Policy::start(store.clone(), &mut fake, &mut nowhere);
    Bench { dir, store, fake, policy }
}

impl Bench {
    fn in_force(&self) -> Option<u64> {
        self.fake.in_force().map(|now| now.revision)
    }
}

#[test]
fn a_snapshot_and_a_delta_come_into_force_and_are_remembered() {
    let mut b = bench();
    let (one, two) = (image(&[1, 2, 3]), image(&[1, 9, 3, 4]));
    let outcome = b.policy.snapshot(&mut b.fake, &snapshot(5, &one), None, &mut nowhere);
    assert!(outcome.acknowledgement.applied && outcome.refused.is_none());
    let outcome = b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)), None, &mut nowhere);
    assert!(outcome.acknowledgement.applied, "{}", outcome.acknowledgement.refusal);
    assert_eq!(b.store.image().unwrap().unwrap().image, two);
    assert_eq!(b.policy.known(&b.fake), Known { revision: 6, hash: Some(two.hash()), ends: 0 });
}

#[test]
fn bad_images_are_refused_as_a_whole_and_the_old_one_stays() {
    let mut b = bench();
    let (one, two) = (image(&[1]), image(&[2, 2]));
    b.policy.snapshot(&mut b.fake, &snapshot(5, &one), None, &mut nowhere);
    let whole = snapshot(6, &two);
    let truncated = {
        let image = whole.image[..whole.image.len() - 1].to_vec();
        Snapshot { image, ..whole.clone() }
    };
    let unknown = {
        let image = [&whole.image[..], &[0]].concat();
        Snapshot { image, ..whole.clone() }
    };
    let cases = [
        (truncated, "malformed"),
        (unknown, "malformed"),
        (Snapshot { hash: vec![0; 32], ..whole.clone() }, "hash"),
        (Snapshot { hash: vec![], ..whole.clone() }, "hash"),
        (Snapshot { revision: 4, ..whole.clone() }, "stale"),
        (Snapshot { revision: 5, ..whole }, "stale"),
    ];
    for (bad, label) in cases {
        let outcome = b.policy.snapshot(&mut b.fake, &bad, None, &mut nowhere);
        assert_eq!(outcome.refused, Some(label));
        assert!(!outcome.acknowledgement.applied && !outcome.acknowledgement.refusal.is_empty());
        assert_eq!(b.in_force(), Some(5));
        assert_eq!(b.store.image().unwrap().unwrap().image, one);
    }
}

#[test]
fn an_image_too_large_for_the_maps_is_refused() {
    let mut b = bench();
    b.fake.0.lock().unwrap().refuse_above = Some(2);
    let outcome = b.policy.snapshot(&mut b.fake, &snapshot(1, &image(&[1, 2, 3])), None, &mut nowhere);
    assert_eq!(outcome.refused, Some("too_large"));
    assert!(outcome.acknowledgement.refusal.contains("image_words"));
    assert_eq!(b.in_force(), None);
}

#[test]
fn a_delta_to_another_base_asks_for_a_whole_image() {
    let mut b = bench();
    let (one, two, three) = (image(&[1]), image(&[2]), image(&[3]));
    b.policy.snapshot(&mut b.fake, &snapshot(5, &one), None, &mut nowhere);
    let outcome = b.policy.delta(&mut b.fake, &delta((5, &two), (6, &three)), None, &mut nowhere);
    assert_eq!((outcome.refused, outcome.resync), (Some("base"), true));
    let damaged = Delta { hash: vec![1; 32], ..delta((5, &one), (6, &three)) };
    let outcome = b.policy.delta(&mut b.fake, &damaged, None, &mut nowhere);
    assert_eq!((outcome.refused, outcome.resync), (Some("hash"), true));
    assert_eq!(b.in_force(), Some(5));
    assert_eq!(b.policy.known(&b.fake), Known { revision: 5, hash: None, ends: 0 });
}

/// Whatever refuses a difference, what is held is as it was, so that the next one fits.
#[test]
fn a_refused_delta_leaves_nothing_half_applied() {
    let mut b = bench();
    let one = image(&(0..5000).collect::<Vec<u32>>());
    let two = {
        let mut two = image(&(0..6000).map(|i| i * 3).collect::<Vec<u32>>());
        two.rules.insert(7, rule("r"));
        two
    };
    b.policy.snapshot(&mut b.fake, &snapshot(5, &one), None, &mut nowhere);
    /// The outcome, what is sent, and what is done to the bench before.
    type Refused = (&'static str, Delta, fn(&mut Bench));
    let refusals: [Refused; 4] = [
        ("hash", Delta { hash: vec![1; 32], ..delta((5, &one), (6, &two)) }, |_| {}),
        ("too_large", delta((5, &one), (6, &two)), |b| b.fake.0.lock().unwrap().refuse_above = Some(5500)),
        ("stale", delta((5, &one), (5, &two)), |_| {}),
        ("malformed", Delta { delta: vec![9, 9], ..delta((5, &one), (6, &two)) }, |_| {}),
    ];
    for (label, bad, prepare) in refusals {
        prepare(&mut b);
        assert_eq!(b.policy.delta(&mut b.fake, &bad, None, &mut nowhere).refused, Some(label));
        b.fake.0.lock().unwrap().refuse_above = None;
        assert_eq!(b.in_force(), Some(5));
        let held = b.policy.held.as_ref().unwrap();
        assert_eq!((&*held.image, &held.hashes, held.revision), (&one, &Hashes::of(&one), 5), "{label}");
        assert_eq!(b.store.image().unwrap().unwrap().image, one);
    }
    let outcome = b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)), None, &mut nowhere);
    assert!(outcome.acknowledgement.applied, "{}", outcome.acknowledgement.refusal);
    assert_eq!(b.fake.0.lock().unwrap().images.last().unwrap().1, two);
    assert_eq!(b.store.image().unwrap().unwrap().image, two);
}

fn rule(id: &str) -> RuleInfo {
    let text = || id.to_owned();
    RuleInfo { policy_id: text(), policy_name: text(), rule_id: text(), rule_name: text(), accept: true }
}

#[test]
fn a_rule_that_a_delta_removed_is_still_known_by_name() {
    let mut b = bench();
    let (mut one, mut two) = (image(&[1]), image(&[2]));
    one.rules = [(1, rule("a")), (2, rule("b"))].into();
    two.rules = [(1, rule("c"))].into();
    b.policy.snapshot(&mut b.fake, &snapshot(5, &one), None, &mut nowhere);
    b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)), None, &mut nowhere);
    let name = |slot| b.policy.rule(slot).map(|rule| rule.rule_id.as_str());
    assert_eq!((name(1), name(2), name(3)), (Some("c"), Some("b"), None));
}

/// The agent died when a change was in force, and before it was on disk.
#[test]
fn a_change_in_force_that_was_not_remembered_stays_in_force() {
    let mut b = bench();
    let (one, two) = (image(&[1]), image(&[2]));
    b.policy.snapshot(&mut b.fake, &snapshot(5, &one), None, &mut nowhere);
    b.fake.apply(6, &two).unwrap();
    let mut again = Policy::start(b.store.clone(), &mut b.fake, &mut nowhere);
    assert_eq!(b.in_force(), Some(6));
    assert_eq!(again.known(&b.fake), Known { revision: 6, hash: None, ends: 0 });
    let outcome = again.delta(&mut b.fake, &delta((5, &one), (7, &two)), None, &mut nowhere);
    assert_eq!((outcome.refused, outcome.resync), (Some("base"), true));
    assert!(again.snapshot(&mut b.fake, &snapshot(7, &two), None, &mut nowhere).acknowledgement.applied);
}

/// The agent died while it wrote a change to disk, and the kernel started again with it.
#[test]
fn a_change_that_was_not_written_to_its_end_is_told_and_the_one_before_is_in_force() {
    let mut b = bench();
    let (one, two, three) = (image(&[1]), image(&[2]), image(&[3]));
    b.policy.snapshot(&mut b.fake, &snapshot(5, &one), None, &mut nowhere);
    b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)), None, &mut nowhere);
    b.policy.delta(&mut b.fake, &delta((6, &two), (7, &three)), None, &mut nowhere);
    let journal = b.dir.path().join("image.journal");
    let whole = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, &whole[..whole.len() - 1]).unwrap();
    let mut fresh = FakeDatapath::default();
    let policy = Policy::start(Arc::new(Store::new(b.dir.path())), &mut fresh, &mut nowhere);
    assert_eq!(fresh.in_force().map(|now| now.revision), Some(6));
    assert!(policy.degraded(Some(6)).concat().contains("revision 6 is the last one remembered"));
}

#[test]
fn a_restart_takes_up_what_is_pinned_or_applies_what_is_remembered() {
    let mut b = bench();
    let one = image(&[1]);
    b.policy.snapshot(&mut b.fake, &snapshot(5, &one), None, &mut nowhere);
    // The programs survived: nothing is applied again.
    let again = Policy::start(b.store.clone(), &mut b.fake, &mut nowhere);
    assert_eq!(b.fake.0.lock().unwrap().images.len(), 1);
    assert_eq!(again.known(&b.fake).hash, Some(one.hash()));
    // They did not: the remembered image comes into force before control is reached.
    let mut fresh = FakeDatapath::default();
    Policy::start(b.store.clone(), &mut fresh, &mut nowhere);
    assert_eq!(fresh.in_force().map(|now| now.revision), Some(5));
}

#[test]
fn on_a_full_disk_a_revoked_image_does_not_come_back_with_the_next_start() {
    let mut b = bench();
    b.policy.snapshot(&mut b.fake, &snapshot(5, &image(&[1])), None, &mut nowhere);
    // A directory in the place of the temporary file: no image can be written.
    std::fs::create_dir(b.dir.path().join("image.new")).unwrap();
    let outcome = b.policy.snapshot(&mut b.fake, &snapshot(6, &image(&[2])), None, &mut nowhere);
    assert!(outcome.acknowledgement.applied);
    assert!(b.policy.degraded(b.in_force()).concat().contains("could not be remembered"));
    let mut fresh = FakeDatapath::default();
    Policy::start(b.store.clone(), &mut fresh, &mut nowhere);
    assert_eq!(fresh.in_force(), None);
}

#[test]
fn an_image_in_force_that_was_not_remembered_is_acknowledged_when_it_comes_again() {
    let mut b = bench();
    let two = image(&[2]);
    b.fake.apply(6, &two).unwrap();
    assert_eq!(b.policy.known(&b.fake), Known { revision: 6, hash: None, ends: 0 });
    let outcome = b.policy.snapshot(&mut b.fake, &snapshot(6, &two), None, &mut nowhere);
    assert!(outcome.acknowledgement.applied, "{}", outcome.acknowledgement.refusal);
}

fn routed(numbers: &[u32], words: &[u32]) -> Image {
    let info = |number: &u32| RouteInfo {
        prefix: format!("10.{number}.0.0/16").parse().unwrap(),
        network_id: "n".into(),
        resource_id: number.to_string(),
        resource_name: "a resource".into(),
        masquerade: true,
    };
    Image { routes: numbers.iter().map(|number| (*number, info(number))).collect(), ..image(words) }
}

/// Every route leaves by the device whose index is the route's number.
fn by_number(routes: &BTreeMap<u32, RouteInfo>) -> anyhow::Result<Vec<Egress>> {
    let way = |number: &u32| Egress {
        route: *number as u16,
        device: *number,
        source_v4: None,
        source_v6: None,
        pool: [1; 2],
    };
    Ok(routes.keys().map(way).collect())
}

/// The old image read the ways out of the new one, for as long as that took, or for ever when it was refused.
#[test]
fn ways_out_come_into_force_with_their_image_and_not_without_it() {
    let mut b = bench();
    let devices = |b: &Bench| b.fake.0.lock().unwrap().egress.iter().map(|e| e.device).collect::<Vec<_>>();
    let (one, two) = (routed(&[1, 2], &[1]), routed(&[2, 3], &[1, 2]));
    b.policy.snapshot(&mut b.fake, &snapshot(5, &one), None, &mut by_number);
    assert_eq!(devices(&b), [1, 2]);
    b.fake.0.lock().unwrap().refuse_above = Some(1);
    let refused = b.policy.snapshot(&mut b.fake, &snapshot(6, &two), None, &mut by_number);
    assert_eq!((refused.refused, devices(&b)), (Some("too_large"), vec![1, 2]));
    let refused = b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)), None, &mut by_number);
    assert_eq!((refused.refused, devices(&b)), (Some("too_large"), vec![1, 2]));
    b.fake.0.lock().unwrap().refuse_above = None;
    let unknown = &mut |_: &_| anyhow::bail!("no answer");
    assert_eq!(b.policy.snapshot(&mut b.fake, &snapshot(6, &two), None, unknown).refused, Some("kernel"));
    assert_eq!((b.in_force(), devices(&b)), (Some(5), vec![1, 2]));
    b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)), None, &mut by_number);
    assert_eq!((b.in_force(), devices(&b)), (Some(6), vec![2, 3]));
    // What changes no route asks nobody.
    let same = Image { words: vec![9], ..two.clone() };
    let outcome = b.policy.delta(&mut b.fake, &delta((6, &two), (7, &same)), None, unknown);
    assert!(outcome.acknowledgement.applied, "{}", outcome.acknowledgement.refusal);
    assert_eq!(devices(&b), [2, 3]);
}

#[test]
fn a_refused_image_is_told_of_until_another_is_accepted() {
    let mut b = bench();
    b.fake.0.lock().unwrap().refuse_above = Some(2);
    b.policy.snapshot(&mut b.fake, &snapshot(1, &image(&[1, 2, 3])), None, &mut nowhere);
    let told = b.policy.degraded(b.in_force()).concat();
    assert!(told.contains("nothing is forwarded") && b.policy.is_refused(), "{told}");
    b.policy.snapshot(&mut b.fake, &snapshot(2, &image(&[1])), None, &mut nowhere);
    assert_eq!((b.policy.degraded(b.in_force()), b.policy.is_refused()), (Vec::new(), false));
    for revision in [7, 8] {
        let large = snapshot(revision, &image(&[1, 2, 3, revision as u32]));
        b.policy.snapshot(&mut b.fake, &large, None, &mut nowhere);
    }
    let told = b.policy.degraded(b.in_force());
    assert_eq!(told.len(), 1);
    for part in ["since 20", "revision 8", "4 words of policy", "revision 2 stays in force", "image_words"] {
        assert!(told[0].contains(part), "{part}: {}", told[0]);
    }
    b.policy.delta(&mut b.fake, &delta((2, &image(&[1])), (9, &image(&[4]))), None, &mut nowhere);
    assert_eq!((b.in_force(), b.policy.degraded(Some(9))), (Some(9), Vec::new()));
}

#[test]
fn every_refusal_has_a_label_of_the_list() {
    for label in ["malformed", "hash", "base", "invalid", "too_large", "stale", "kernel"] {
        assert!(REFUSALS.contains(&label));
    }
}

/// What becomes of `base`: time left, revision and image.
fn until(base: &Image, ends: &[(u64, u64, &Image)]) -> Schedule {
    let bases = [base].into_iter().chain(ends.iter().map(|(.., image)| *image));
    let end = |(&(left_ms, revision, image), base): (&(u64, u64, &Image), &Image)| End {
        left_ms,
        at_ms: system::unix_ms() + left_ms,
        revision,
        hash: image.hash().to_vec(),
        delta: image::Delta::between(base, image).encode(),
    };
    Schedule { base_hash: base.hash().to_vec(), ends: ends.iter().zip(bases).map(end).collect() }
}

const LONG: u64 = 3_600_000;

impl Bench {
    /// Puts an image in force that ends as `ends` says.
    fn bounded(&mut self, revision: u64, image: &Image, ends: &[(u64, u64, &Image)]) {
        let said = snapshot(revision, image);
        let outcome = self.policy.snapshot(&mut self.fake, &said, Some(until(image, ends)), &mut nowhere);
        assert!(outcome.acknowledgement.applied, "{}", outcome.acknowledgement.refusal);
    }

    /// Another run over what is on disk, with these maps pinned.
    fn again(&self, fake: &mut FakeDatapath) -> Policy {
        Policy::start(Arc::new(Store::new(self.dir.path())), fake, &mut nowhere)
    }

    fn applied(fake: &FakeDatapath) -> Vec<(u64, Image)> {
        fake.0.lock().unwrap().images.clone()
    }
}

#[test]
fn what_is_due_is_applied_and_acknowledged_and_the_rest_is_not() {
    let mut b = bench();
    let (one, two, three) = (image(&[1, 1]), image(&[1, 2]), image(&[3]));
    b.bounded(5, &one, &[(0, 6, &two), (LONG, 7, &three)]);
    assert_eq!((b.in_force(), b.policy.ends()), (Some(5), 2));
    assert_eq!(b.policy.ends_in(), Some(std::time::Duration::ZERO));
    let outcome = b.policy.end(&mut b.fake, &mut nowhere).unwrap();
    let said = outcome.acknowledgement;
    assert_eq!((said.applied, said.revision, said.hash), (true, 6, two.hash().to_vec()));
    assert!(b.policy.end(&mut b.fake, &mut nowhere).is_none(), "the next one is not due");
    assert_eq!(b.policy.known(&b.fake), Known { revision: 6, hash: Some(two.hash()), ends: 1 });
    assert_eq!(b.store.image().unwrap().unwrap().image, two);
    assert!(b.policy.cap().is_some_and(|cap| cap.as_millis() as u64 > LONG - 60_000));
    // Over a restart the second one is still to come.
    let mut fresh = FakeDatapath::default();
    let policy = b.again(&mut fresh);
    assert_eq!((Bench::applied(&fresh), policy.ends()), (vec![(6, two)], 1));
    assert_eq!(b.policy.degraded(Some(6)), Vec::<String>::new());
}

#[test]
fn that_something_has_ended_is_known_until_control_says_what_is_so_now_over_a_restart_too() {
    let mut b = bench();
    let (one, two, three) = (image(&[1, 1]), image(&[1, 2]), image(&[3]));
    b.bounded(5, &one, &[(0, 6, &two)]);
    assert!(!b.policy.has_ended());
    b.policy.end(&mut b.fake, &mut nowhere).unwrap();
    assert!(b.policy.has_ended());
    assert!(b.again(&mut FakeDatapath::default()).has_ended());
    b.bounded(7, &three, &[(LONG, 8, &one)]);
    assert!(!b.policy.has_ended());
    assert!(!b.again(&mut FakeDatapath::default()).has_ended());
}

#[test]
fn what_ended_meanwhile_does_not_come_up_again() {
    let mut b = bench();
    let (one, two, three) = (image(&[1, 1]), image(&[1, 2]), image(&[3]));
    b.bounded(5, &one, &[(0, 6, &two), (0, 7, &three)]);
    // Nothing is pinned.
    let mut fresh = FakeDatapath::default();
    let policy = b.again(&mut fresh);
    assert_eq!(Bench::applied(&fresh), [(7, three.clone())]);
    assert_eq!((policy.ends(), policy.is_shut(), policy.cap()), (0, false, None));
    assert_eq!(policy.known(&fresh), Known { revision: 7, hash: Some(three.hash()), ends: 0 });
    // The maps of before are: nothing may pass by them before the image after the end is in its place.
    let mut b = bench();
    b.bounded(5, &one, &[(0, 6, &two)]);
    let remembered = Remembered::load(&b.store);
    assert_eq!(remembered.cap(b.fake.in_force()), Some(std::time::Duration::ZERO));
    let mut pinned = b.fake.clone();
    let policy = b.again(&mut pinned);
    assert_eq!((pinned.in_force().map(|now| now.revision), policy.cap()), (Some(6), None));
}

/// A full disk at an end, and control that says again when the rest ends: the image before must not come back without its end.
#[test]
fn an_end_that_could_not_be_written_is_written_with_what_control_says_next() {
    for (while_away, space_comes_back) in [(false, true), (false, false), (true, true)] {
        let mut b = bench();
        let (one, two, three) = (image(&[1, 1]), image(&[1, 2]), image(&[3]));
        b.bounded(5, &one, &[(0, 6, &two), (LONG, 7, &three)]);
        // What stands in the places of files: no image can be written.
        let [whole, journal] = ["image.new", "image.journal"].map(|name| b.dir.path().join(name));
        std::fs::create_dir(&whole).unwrap();
        std::os::unix::fs::symlink("no/such/file", &journal).unwrap();
        if while_away {
            b.policy = b.again(&mut b.fake.clone());
        } else {
            assert!(b.policy.end(&mut b.fake, &mut nowhere).unwrap().acknowledgement.applied);
            assert!(b.policy.degraded(Some(6)).concat().contains("could not be remembered"));
        }
        assert_eq!(b.in_force(), Some(6));
        if space_comes_back {
            std::fs::remove_dir(&whole).unwrap();
            std::fs::remove_file(&journal).unwrap();
        }
        for _ in 0..2 {
            b.policy.reschedule(until(&two, &[(LONG, 7, &three)]));
        }
        let mut fresh = FakeDatapath::default();
        b.again(&mut fresh);
        let expected = if space_comes_back { vec![(6, two)] } else { Vec::new() };
        assert_eq!(Bench::applied(&fresh), expected);
    }
}

#[test]
fn a_newer_image_has_ends_of_its_own_or_none() {
    let mut b = bench();
    let (one, two, three) = (image(&[1, 1]), image(&[1, 2]), image(&[3]));
    b.bounded(5, &one, &[(LONG, 6, &two)]);
    b.policy.delta(&mut b.fake, &delta((5, &one), (8, &three)), None, &mut nowhere);
    assert_eq!((b.policy.ends(), b.policy.cap()), (0, None));
    assert!(b.store.ends().unwrap().is_empty(), "nothing is left of it on disk");
    let back = Some(until(&one, &[(0, 10, &two)]));
    b.policy.delta(&mut b.fake, &delta((8, &three), (9, &one)), back, &mut nowhere);
    assert_eq!(b.policy.ends(), 1);
    // It is extended, and then it ends no more: without another image.
    b.policy.reschedule(until(&one, &[(LONG, 10, &two)]));
    assert!(b.policy.end(&mut b.fake, &mut nowhere).is_none());
    let mut fresh = FakeDatapath::default();
    assert_eq!((b.again(&mut fresh).ends(), Bench::applied(&fresh)), (1, vec![(9, one.clone())]));
    b.policy.reschedule(until(&one, &[]));
    assert_eq!((b.policy.ends(), b.store.ends().unwrap()), (0, Vec::new()));
    // What is said of another image is of no account.
    b.policy.reschedule(until(&three, &[(0, 10, &two)]));
    assert_eq!(b.policy.ends(), 0);
}

/// The agent died between the file of the ends and that of the image.
#[test]
fn of_two_images_either_has_its_own_ends_on_disk() {
    let mut b = bench();
    let (one, two, three, four) = (image(&[1, 1]), image(&[1, 2]), image(&[3]), image(&[4]));
    b.bounded(5, &one, &[(0, 6, &two)]);
    b.policy.expect(Some(until(&three, &[(LONG, 8, &four)])), &three.hash()).unwrap();
    let mut fresh = FakeDatapath::default();
    b.again(&mut fresh);
    assert_eq!(Bench::applied(&fresh), [(6, two)]);
}

/// The agent died between the file of the ends and that of the image, and what it had said of the image in force was news.
#[test]
fn what_was_said_last_of_an_image_counts_though_another_leads_to_it() {
    let mut b = bench();
    let (one, two, three, four) = (image(&[1, 1]), image(&[1, 2]), image(&[3]), image(&[4]));
    b.bounded(5, &one, &[(0, 6, &two), (LONG, 7, &three)]);
    b.policy.expect(Some(until(&two, &[(0, 8, &three), (LONG, 9, &four)])), &two.hash()).unwrap();
    assert_eq!(Remembered::load(&b.store).image.map(|stored| stored.revision), Some(8));
    let mut fresh = FakeDatapath::default();
    let policy = b.again(&mut fresh);
    assert_eq!((Bench::applied(&fresh), policy.ends()), (vec![(8, three)], 1));
}

#[test]
fn a_change_that_the_clock_brought_first_is_only_given_its_revision() {
    let mut b = bench();
    let (mut one, two) = (image(&[1, 1]), image(&[1, 2]));
    one.rules = [(1, rule("gone"))].into();
    b.bounded(5, &one, &[(0, 6, &two)]);
    assert!(b.policy.end(&mut b.fake, &mut nowhere).unwrap().acknowledgement.applied);
    let outcome = b.policy.delta(&mut b.fake, &delta((5, &one), (9, &two)), None, &mut nowhere);
    assert!(outcome.acknowledgement.applied && !outcome.resync, "{}", outcome.acknowledgement.refusal);
    assert_eq!(b.policy.known(&b.fake), Known { revision: 9, hash: Some(two.hash()), ends: 0 });
    assert_eq!(b.policy.rule(1).map(|rule| rule.rule_id.as_str()), Some("gone"), "flows end under its name");
    let mut fresh = FakeDatapath::default();
    b.again(&mut fresh);
    assert_eq!(Bench::applied(&fresh), [(9, two)]);
}

#[test]
fn an_end_that_cannot_be_applied_shuts_the_gate_until_control_sends_an_image() {
    let mut b = bench();
    let (one, two, three) = (image(&[1, 1]), image(&[1, 2]), image(&[3]));
    let broken = |what: fn(&mut End)| {
        let mut schedule = until(&one, &[(0, 6, &two)]);
        what(&mut schedule.ends[0]);
        schedule
    };
    let cases: [fn(&mut End); 3] = [
        |end| end.delta = vec![9, 9],
        |end| end.hash = vec![7; 32],
        |end| end.delta = image::Delta::between(&image(&[8]), &image(&[9, 9, 9])).encode(),
    ];
    let mut revision = 5;
    for case in cases {
        let said = snapshot(revision, &one);
        b.policy.snapshot(&mut b.fake, &said, Some(broken(case)), &mut nowhere);
        let outcome = b.policy.end(&mut b.fake, &mut nowhere).unwrap();
        assert!(!outcome.acknowledgement.applied && outcome.resync);
        assert_eq!((b.policy.is_shut(), b.policy.cap()), (true, Some(std::time::Duration::ZERO)));
        let told = b.policy.degraded(Some(revision)).concat();
        assert!(told.contains("nothing is forwarded until control is reached"), "{told}");
        assert_eq!(b.policy.known(&b.fake).hash, None, "control is asked for a whole image");
        // What control says of its ends alone does not open it.
        b.policy.reschedule(until(&one, &[(LONG, 6, &two)]));
        assert!(b.policy.is_shut());
        // Nor does a restart, with the maps of before or without.
        b.store.put_ends(&[Kept { schedule: broken(case), at: Moment::now() }]).unwrap();
        let mut pinned = b.fake.clone();
        assert_eq!(Remembered::load(&b.store).cap(pinned.in_force()), Some(std::time::Duration::ZERO));
        assert_eq!(b.again(&mut pinned).cap(), Some(std::time::Duration::ZERO));
        let mut fresh = FakeDatapath::default();
        assert!(b.again(&mut fresh).is_shut() && Bench::applied(&fresh).is_empty());
        revision += 1;
        let whole = snapshot(revision, &three);
        b.policy.snapshot(&mut b.fake, &whole, None, &mut nowhere);
        assert_eq!((b.policy.is_shut(), b.policy.cap()), (false, None));
        revision += 1;
    }
    // The kernel may take it the next time.
    b.bounded(revision, &one, &[(0, revision + 1, &two)]);
    b.fake.0.lock().unwrap().refuse_above = Some(0);
    assert!(!b.policy.end(&mut b.fake, &mut nowhere).unwrap().acknowledgement.applied);
    assert!(b.policy.is_shut());
    b.fake.0.lock().unwrap().refuse_above = None;
    assert!(b.policy.end(&mut b.fake, &mut nowhere).unwrap().acknowledgement.applied);
    assert!(!b.policy.is_shut());
}

#[test]
fn a_damaged_file_of_ends_shuts_the_gate() {
    let mut b = bench();
    let (one, two) = (image(&[1, 1]), image(&[1, 2]));
    b.bounded(5, &one, &[(LONG, 6, &two)]);
    let path = b.dir.path().join("image.ends");
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut fresh = FakeDatapath::default();
        let policy = b.again(&mut fresh);
        assert!(policy.is_shut() && Bench::applied(&fresh).is_empty(), "cut at {cut}");
        assert!(policy.degraded(None).concat().contains("image.ends"), "{:?}", policy.degraded(None));
    }
    let mut pinned = b.fake.clone();
    assert_eq!(b.again(&mut pinned).cap(), Some(std::time::Duration::ZERO));
    // Control sends a whole image, and all is well.
    let mut policy = b.again(&mut pinned);
    policy.snapshot(&mut pinned, &snapshot(9, &two), None, &mut nowhere);
    assert!(!policy.is_shut() && b.store.ends().unwrap().is_empty());
}

/// An image that could not be remembered was left in force: nothing can be taken from it, so it must not outlive its end.
#[test]
fn what_is_in_force_without_being_remembered_ends_as_a_whole() {
    let b = bench();
    let (one, two) = (image(&[1, 1]), image(&[1, 2]));
    for (left, shut) in [(LONG, false), (0, true)] {
        b.store.forget_image().unwrap();
        b.store.put_ends(&[Kept { schedule: until(&one, &[(left, 6, &two)]), at: Moment::now() }]).unwrap();
        let mut pinned = FakeDatapath::default();
        pinned.apply(5, &one).unwrap();
        let mut policy = b.again(&mut pinned);
        assert_eq!((policy.is_shut(), policy.cap().is_some()), (shut, true));
        if !shut {
            assert!(policy.end(&mut pinned, &mut nowhere).is_none());
        }
    }
}

#[test]
fn ends_of_another_image_refuse_the_one_they_come_with() {
    let mut b = bench();
    let (one, two) = (image(&[1, 1]), image(&[1, 2]));
    let astray = Some(until(&two, &[]));
    let outcome = b.policy.snapshot(&mut b.fake, &snapshot(5, &one), astray.clone(), &mut nowhere);
    assert_eq!((outcome.refused, b.in_force()), (Some("malformed"), None));
    b.policy.snapshot(&mut b.fake, &snapshot(5, &one), None, &mut nowhere);
    let three = image(&[3]);
    let outcome = b.policy.delta(&mut b.fake, &delta((5, &one), (6, &three)), astray, &mut nowhere);
    assert_eq!((outcome.refused, b.in_force()), (Some("malformed"), Some(5)));
}
