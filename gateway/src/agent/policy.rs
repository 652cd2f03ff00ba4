//! Images from control: checked, put in force as a whole or refused as a whole, remembered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use sluicegate_api::agent::{Acknowledgement, Delta, Snapshot};
use sluicegate_api::image::{self, CodecError, Hash, Hashes, Image, RouteInfo, RuleInfo};

use super::store::Store;
use crate::control::Known;
use crate::datapath::{ApplyError, Change, Datapath, Egress};
use crate::system;

/// The image in force, as far as the agent holds it, and how images come to be in force.
pub(super) struct Policy {
    store: Arc<Store>,
    held: Option<Held>,
    /// Names of the image before that are others now, or gone.
    previous: Option<Arc<Image>>,
    trouble: Option<String>,
    /// What control sent last and was refused.
    refused: Option<Refused>,
    /// A difference did not lead to what control said it would: the next image must be a whole one.
    distrust: bool,
}

/// An image that was refused, until another one is not.
struct Refused {
    revision: u64,
    why: String,
    remedy: &'static str,
    /// Since when none was accepted, Unix milliseconds.
    since_ms: u64,
}

/// Says where the routes of an image leave, by their numbers.
pub(super) type Exits<'a> = dyn FnMut(&BTreeMap<u32, RouteInfo>) -> anyhow::Result<Vec<Egress>> + 'a;

struct Held {
    revision: u64,
    hash: Hash,
    hashes: Hashes,
    /// Changed in place: whoever asks for names meanwhile costs a copy of it.
    image: Arc<Image>,
}

/// What became of an image.
#[derive(Debug)]
pub(super) struct Outcome {
    /// For control.
    pub acknowledgement: Acknowledgement,
    /// Why it was refused, as a metric's label.
    pub refused: Option<&'static str>,
    /// Whether control must send a whole image, because what it thinks is here is not.
    pub resync: bool,
}

/// Why an image was refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("its hash is {found}, but control says {said}: it was damaged on the way")]
    Hash { found: String, said: String },
    #[error("it is a difference to revision {base}, which is not what is in force here")]
    Base { base: u64 },
    #[error("{0}")]
    Apply(#[from] ApplyError),
}

impl Refusal {
    /// The metric's label, from a closed list.
    fn label(&self) -> &'static str {
        match self {
            Self::Codec(_) => "malformed",
            Self::Hash { .. } => "hash",
            Self::Base { .. } => "base",
            Self::Apply(ApplyError::Invalid(_)) => "invalid",
            Self::Apply(ApplyError::TooLarge { .. }) => "too_large",
            Self::Apply(ApplyError::Stale { .. }) => "stale",
            Self::Apply(ApplyError::Kernel(_)) => "kernel",
        }
    }

    /// What a person can do about it.
    fn remedy(&self) -> &'static str {
        match self {
            Self::Codec(_) | Self::Hash { .. } | Self::Base { .. } => {
                "control is asked for a whole image, which mends it; if it stays, run the same version here and there"
            }
            // Its sentence has it.
            Self::Apply(ApplyError::TooLarge { .. }) => {
                "the policy as it is now is not in force here before that"
            }
            Self::Apply(ApplyError::Invalid(_)) => "run the same version of Sluicegate here and as control",
            Self::Apply(ApplyError::Stale { .. }) => {
                "control offers the next change above it; if it stays, was control restored from a backup?"
            }
            Self::Apply(ApplyError::Kernel(_)) => "restart the agent; if it stays, see the kernel's log",
        }
    }
}

/// Every label `Outcome::refused` can have.
pub const REFUSALS: [&str; 7] = ["malformed", "hash", "base", "invalid", "too_large", "stale", "kernel"];

impl Policy {
    /// Takes up what the last run left: the image whose maps were found, or the remembered one where it is newer.
    pub(super) fn start(store: Arc<Store>, datapath: &mut dyn Datapath, exits: &mut Exits<'_>) -> Self {
        let mut policy =
            Self { store, held: None, previous: None, trouble: None, refused: None, distrust: false };
        let stored = match policy.store.image() {
            Ok(Some(stored)) => stored,
            Ok(None) => return policy,
            Err(e) => {
                policy.trouble = Some(format!("{e:#}; control is asked for a whole image"));
                return policy;
            }
        };
        policy.trouble = stored.cut;
        let held = Held {
            revision: stored.revision,
            hash: stored.hashes.root(),
            hashes: stored.hashes,
            image: Arc::new(stored.image),
        };
        match datapath.in_force() {
            Some(now) if (now.revision, now.hash) == (held.revision, held.hash) => {
                tracing::info!(revision = now.revision, "the image in force was found pinned");
                policy.held = Some(held);
            }
            Some(now) if now.revision >= held.revision => {
                tracing::warn!(revision = now.revision, "an image newer than the remembered one is in force");
            }
            _ => match put(datapath, held.revision, held.hash, &held.image, exits) {
                Ok(()) => {
                    tracing::info!(revision = held.revision, "the remembered image is in force");
                    policy.held = Some(held);
                }
                Err(e) => policy.trouble = Some(format!("the remembered image was refused: {e}")),
            },
        }
        policy
    }

    /// What control is told when the stream opens.
    pub(super) fn known(&self, datapath: &dyn Datapath) -> Known {
        match (&self.held, datapath.in_force()) {
            (Some(held), _) => Known { revision: held.revision, hash: (!self.distrust).then_some(held.hash) },
            (None, Some(now)) => Known { revision: now.revision, hash: None },
            (None, None) => Known::default(),
        }
    }

    /// A whole image.
    pub(super) fn snapshot(
        &mut self,
        datapath: &mut dyn Datapath,
        snapshot: &Snapshot,
        exits: &mut Exits<'_>,
    ) -> Outcome {
        let started = Instant::now();
        let result = self.put(datapath, snapshot, exits, started);
        self.note(snapshot.revision, &result);
        outcome(snapshot.revision, &snapshot.hash, result)
    }

    /// A difference to the image in force.
    pub(super) fn delta(
        &mut self,
        datapath: &mut dyn Datapath,
        delta: &Delta,
        exits: &mut Exits<'_>,
    ) -> Outcome {
        let started = Instant::now();
        let result = self.change(datapath, delta, exits, started);
        self.note(delta.revision, &result);
        let mut outcome = outcome(delta.revision, &delta.hash, result);
        outcome.resync = matches!(outcome.refused, Some("base" | "hash" | "malformed"));
        self.distrust |= outcome.resync;
        outcome
    }

    /// The rule behind a slot; of the image before when the one in force no longer has it, since events come late.
    pub(super) fn rule(&self, slot: u32) -> Option<&RuleInfo> {
        let now = self.held.as_ref().and_then(|h| h.image.rules.get(&slot));
        now.or_else(|| self.previous.as_ref()?.rules.get(&slot))
    }

    /// The image in force and the one before it, as far as they are held.
    pub(super) fn images(&self) -> Vec<Arc<Image>> {
        let held = self.held.as_ref().map(|held| held.image.clone());
        held.into_iter().chain(self.previous.clone()).collect()
    }

    /// The routes of the image in force, by their numbers, where it is held.
    pub(super) fn routes(&self) -> Option<&BTreeMap<u32, RouteInfo>> {
        self.held.as_ref().map(|held| &held.image.routes)
    }

    /// What a person should know. `in_force` is the revision that is being enforced.
    pub(super) fn degraded(&self, in_force: Option<u64>) -> Vec<String> {
        let refused = self.refused.as_ref().map(|refused| {
            let stays = match in_force {
                Some(revision) => format!("revision {revision} stays in force, with its ways out"),
                None => "none is in force, so nothing is forwarded".to_owned(),
            };
            let Refused { revision, why, remedy, since_ms } = refused;
            let since = system::time(*since_ms);
            format!("since {since} the policy from control is refused, last revision {revision}: {why}; {stays}; {remedy}")
        });
        refused.into_iter().chain(self.trouble.clone()).collect()
    }

    /// Whether what control sent last was refused.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    fn note(&mut self, revision: u64, result: &Result<u64, Refusal>) {
        let before = self.refused.take();
        if let Err(refusal) = result {
            let since_ms = before.map_or_else(system::unix_ms, |before| before.since_ms);
            let (why, remedy) = (refusal.to_string(), refusal.remedy());
            self.refused = Some(Refused { revision, why, remedy, since_ms });
        }
    }

    fn put(
        &mut self,
        datapath: &mut dyn Datapath,
        snapshot: &Snapshot,
        exits: &mut Exits<'_>,
        started: Instant,
    ) -> Result<u64, Refusal> {
        let image = Image::decode(&snapshot.image)?;
        let hashes = Hashes::of(&image);
        let hash = said(&hashes, &snapshot.hash)?;
        let revision = snapshot.revision;
        if !in_force(datapath, revision, &hash) {
            put(datapath, revision, hash, &image, exits)?;
        }
        let took = microseconds(started);
        self.distrust = false;
        let before = self.held.replace(Held { revision, hash, hashes, image: Arc::new(image) });
        self.previous = before.map(|held| {
            let Image { rules, routes, .. } = Arc::unwrap_or_clone(held.image);
            Arc::new(Image { words: Vec::new(), rules, routes })
        });
        // It is in force already: not to remember it is a worry for the next start, not a reason to refuse it.
        let remembered = self.store.put_image(revision, &hash, &snapshot.image);
        self.trouble = self.forget_unless(revision, remembered);
        Ok(took)
    }

    fn change(
        &mut self,
        datapath: &mut dyn Datapath,
        delta: &Delta,
        exits: &mut Exits<'_>,
        started: Instant,
    ) -> Result<u64, Refusal> {
        let held = self.held.as_mut().filter(|held| held.hash[..] == delta.base_hash[..]);
        let held = held.ok_or(Refusal::Base { base: delta.base_revision })?;
        let changes = image::Delta::decode(&delta.delta)?;
        let (revision, base) = (delta.revision, held.hash);
        let image = Arc::make_mut(&mut held.image);
        let undo = image.change(&changes)?;
        held.hashes.update(image, &undo);
        let applied = said(&held.hashes, &delta.hash).and_then(|hash| {
            if !in_force(datapath, revision, &hash) {
                let ways = match undo.routes.is_empty() {
                    true => datapath.egress().to_vec(),
                    false => ways(image, exits)?,
                };
                datapath.change(revision, hash, image, &ways, Change { base, undo: &undo })?;
            }
            Ok(hash)
        });
        let hash = match applied {
            Ok(hash) => hash,
            Err(refusal) => {
                // What takes a change back always fits.
                if let Ok(redo) = image.change(&undo) {
                    held.hashes.update(image, &redo);
                }
                return Err(refusal);
            }
        };
        let took = microseconds(started);
        (held.revision, held.hash) = (revision, hash);
        self.distrust = false;
        fn gone<T>(names: BTreeMap<u32, Option<T>>) -> BTreeMap<u32, T> {
            names.into_iter().filter_map(|(number, name)| Some((number, name?))).collect()
        }
        let (rules, routes) = (gone(undo.rules), gone(undo.routes));
        self.previous = Some(Arc::new(Image { words: Vec::new(), rules, routes }));
        let remembered = self.store.put_change(&base, revision, &hash, &delta.delta, &held.image);
        self.trouble = self.forget_unless(revision, remembered);
        Ok(took)
    }

    /// When the image in force could not be written to disk, the one before is forgotten: it may permit what this one
    /// revokes, and would come back with the next start.
    fn forget_unless(&self, revision: u64, remembered: anyhow::Result<()>) -> Option<String> {
        let why = remembered.err()?;
        let then = match self.store.forget_image() {
            Ok(()) => "after a restart of this host nothing is forwarded until control is reached".to_owned(),
            Err(e) => format!("after a restart of this host an older one would come back: {e:#}"),
        };
        Some(format!("revision {revision} is in force but could not be remembered, so {then}: {why:#}"))
    }
}

/// Puts an image in force, with the ways out of its routes.
fn put(
    datapath: &mut dyn Datapath,
    revision: u64,
    hash: Hash,
    image: &Image,
    exits: &mut Exits<'_>,
) -> Result<(), ApplyError> {
    let ways = ways(image, exits)?;
    datapath.put(revision, hash, image, &ways)
}

fn ways(image: &Image, exits: &mut Exits<'_>) -> Result<Vec<Egress>, ApplyError> {
    exits(&image.routes)
        .map_err(|e| ApplyError::Kernel(e.context("where its routes leave could not be looked up")))
}

fn in_force(datapath: &dyn Datapath, revision: u64, hash: &Hash) -> bool {
    datapath.in_force().is_some_and(|now| (now.revision, now.hash) == (revision, *hash))
}

fn microseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The hash, when it is the one that control says.
fn said(hashes: &Hashes, said: &[u8]) -> Result<Hash, Refusal> {
    let found = hashes.root();
    match found[..] == *said {
        true => Ok(found),
        false => Err(Refusal::Hash { found: hex(&found), said: hex(said) }),
    }
}

fn outcome(revision: u64, hash: &[u8], result: Result<u64, Refusal>) -> Outcome {
    let acknowledgement = Acknowledgement { revision, hash: hash.to_vec(), ..Acknowledgement::default() };
    match result {
        Ok(apply_microseconds) => {
            tracing::info!(revision, apply_microseconds, "an image is in force");
            let acknowledgement = Acknowledgement { applied: true, apply_microseconds, ..acknowledgement };
            Outcome { acknowledgement, refused: None, resync: false }
        }
        Err(refusal) => {
            tracing::warn!(revision, "an image was refused, the one before it stays in force: {refusal}");
            let acknowledgement = Acknowledgement { refusal: refusal.to_string(), ..acknowledgement };
            Outcome { acknowledgement, refused: Some(refusal.label()), resync: false }
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
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
        let outcome = b.policy.snapshot(&mut b.fake, &snapshot(5, &one), &mut nowhere);
        assert!(outcome.acknowledgement.applied && outcome.refused.is_none());
        let outcome = b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)), &mut nowhere);
        assert!(outcome.acknowledgement.applied, "{}", outcome.acknowledgement.refusal);
        assert_eq!(b.store.image().unwrap().unwrap().image, two);
        assert_eq!(b.policy.known(&b.fake), Known { revision: 6, hash: Some(two.hash()) });
    }

    #[test]
    fn bad_images_are_refused_as_a_whole_and_the_old_one_stays() {
        let mut b = bench();
        let (one, two) = (image(&[1]), image(&[2, 2]));
        b.policy.snapshot(&mut b.fake, &snapshot(5, &one), &mut nowhere);
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
            let outcome = b.policy.snapshot(&mut b.fake, &bad, &mut nowhere);
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
        let outcome = b.policy.snapshot(&mut b.fake, &snapshot(1, &image(&[1, 2, 3])), &mut nowhere);
        assert_eq!(outcome.refused, Some("too_large"));
        assert!(outcome.acknowledgement.refusal.contains("image_words"));
        assert_eq!(b.in_force(), None);
    }

    #[test]
    fn a_delta_to_another_base_asks_for_a_whole_image() {
        let mut b = bench();
        let (one, two, three) = (image(&[1]), image(&[2]), image(&[3]));
        b.policy.snapshot(&mut b.fake, &snapshot(5, &one), &mut nowhere);
        let outcome = b.policy.delta(&mut b.fake, &delta((5, &two), (6, &three)), &mut nowhere);
        assert_eq!((outcome.refused, outcome.resync), (Some("base"), true));
        let damaged = Delta { hash: vec![1; 32], ..delta((5, &one), (6, &three)) };
        let outcome = b.policy.delta(&mut b.fake, &damaged, &mut nowhere);
        assert_eq!((outcome.refused, outcome.resync), (Some("hash"), true));
        assert_eq!(b.in_force(), Some(5));
        assert_eq!(b.policy.known(&b.fake), Known { revision: 5, hash: None });
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
        b.policy.snapshot(&mut b.fake, &snapshot(5, &one), &mut nowhere);
        /// The outcome, what is sent, and what is done to the bench before.
        type Refused = (&'static str, Delta, fn(&mut Bench));
        let refusals: [Refused; 4] = [
            ("hash", Delta { hash: vec![1; 32], ..delta((5, &one), (6, &two)) }, |_| {}),
            ("too_large", delta((5, &one), (6, &two)), |b| {
                b.fake.0.lock().unwrap().refuse_above = Some(5500)
            }),
            ("stale", delta((5, &one), (5, &two)), |_| {}),
            ("malformed", Delta { delta: vec![9, 9], ..delta((5, &one), (6, &two)) }, |_| {}),
        ];
        for (label, bad, prepare) in refusals {
            prepare(&mut b);
            assert_eq!(b.policy.delta(&mut b.fake, &bad, &mut nowhere).refused, Some(label));
            b.fake.0.lock().unwrap().refuse_above = None;
            assert_eq!(b.in_force(), Some(5));
            let held = b.policy.held.as_ref().unwrap();
            assert_eq!((&*held.image, &held.hashes, held.revision), (&one, &Hashes::of(&one), 5), "{label}");
            assert_eq!(b.store.image().unwrap().unwrap().image, one);
        }
        let outcome = b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)), &mut nowhere);
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
        b.policy.snapshot(&mut b.fake, &snapshot(5, &one), &mut nowhere);
        b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)), &mut nowhere);
        let name = |slot| b.policy.rule(slot).map(|rule| rule.rule_id.as_str());
        assert_eq!((name(1), name(2), name(3)), (Some("c"), Some("b"), None));
    }

    /// The agent died when a change was in force, and before it was on disk.
    #[test]
    fn a_change_in_force_that_was_not_remembered_stays_in_force() {
        let mut b = bench();
        let (one, two) = (image(&[1]), image(&[2]));
        b.policy.snapshot(&mut b.fake, &snapshot(5, &one), &mut nowhere);
        b.fake.apply(6, &two).unwrap();
        let mut again = Policy::start(b.store.clone(), &mut b.fake, &mut nowhere);
        assert_eq!(b.in_force(), Some(6));
        assert_eq!(again.known(&b.fake), Known { revision: 6, hash: None });
        let outcome = again.delta(&mut b.fake, &delta((5, &one), (7, &two)), &mut nowhere);
        assert_eq!((outcome.refused, outcome.resync), (Some("base"), true));
        assert!(again.snapshot(&mut b.fake, &snapshot(7, &two), &mut nowhere).acknowledgement.applied);
    }

    /// The agent died while it wrote a change to disk, and the kernel started again with it.
    #[test]
    fn a_change_that_was_not_written_to_its_end_is_told_and_the_one_before_is_in_force() {
        let mut b = bench();
        let (one, two, three) = (image(&[1]), image(&[2]), image(&[3]));
        b.policy.snapshot(&mut b.fake, &snapshot(5, &one), &mut nowhere);
        b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)), &mut nowhere);
        b.policy.delta(&mut b.fake, &delta((6, &two), (7, &three)), &mut nowhere);
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
        b.policy.snapshot(&mut b.fake, &snapshot(5, &one), &mut nowhere);
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
        b.policy.snapshot(&mut b.fake, &snapshot(5, &image(&[1])), &mut nowhere);
        // A directory in the place of the temporary file: no image can be written.
        std::fs::create_dir(b.dir.path().join("image.new")).unwrap();
        let outcome = b.policy.snapshot(&mut b.fake, &snapshot(6, &image(&[2])), &mut nowhere);
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
        assert_eq!(b.policy.known(&b.fake), Known { revision: 6, hash: None });
        let outcome = b.policy.snapshot(&mut b.fake, &snapshot(6, &two), &mut nowhere);
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
        let devices =
            |b: &Bench| b.fake.0.lock().unwrap().egress.iter().map(|e| e.device).collect::<Vec<_>>();
        let (one, two) = (routed(&[1, 2], &[1]), routed(&[2, 3], &[1, 2]));
        b.policy.snapshot(&mut b.fake, &snapshot(5, &one), &mut by_number);
        assert_eq!(devices(&b), [1, 2]);
        b.fake.0.lock().unwrap().refuse_above = Some(1);
        let refused = b.policy.snapshot(&mut b.fake, &snapshot(6, &two), &mut by_number);
        assert_eq!((refused.refused, devices(&b)), (Some("too_large"), vec![1, 2]));
        let refused = b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)), &mut by_number);
        assert_eq!((refused.refused, devices(&b)), (Some("too_large"), vec![1, 2]));
        b.fake.0.lock().unwrap().refuse_above = None;
        let unknown = &mut |_: &_| anyhow::bail!("no answer");
        assert_eq!(b.policy.snapshot(&mut b.fake, &snapshot(6, &two), unknown).refused, Some("kernel"));
        assert_eq!((b.in_force(), devices(&b)), (Some(5), vec![1, 2]));
        b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)), &mut by_number);
        assert_eq!((b.in_force(), devices(&b)), (Some(6), vec![2, 3]));
        // What changes no route asks nobody.
        let same = Image { words: vec![9], ..two.clone() };
        let outcome = b.policy.delta(&mut b.fake, &delta((6, &two), (7, &same)), unknown);
        assert!(outcome.acknowledgement.applied, "{}", outcome.acknowledgement.refusal);
        assert_eq!(devices(&b), [2, 3]);
    }

    #[test]
    fn a_refused_image_is_told_of_until_another_is_accepted() {
        let mut b = bench();
        b.fake.0.lock().unwrap().refuse_above = Some(2);
        b.policy.snapshot(&mut b.fake, &snapshot(1, &image(&[1, 2, 3])), &mut nowhere);
        let told = b.policy.degraded(b.in_force()).concat();
        assert!(told.contains("nothing is forwarded") && b.policy.is_refused(), "{told}");
        b.policy.snapshot(&mut b.fake, &snapshot(2, &image(&[1])), &mut nowhere);
        assert_eq!((b.policy.degraded(b.in_force()), b.policy.is_refused()), (Vec::new(), false));
        for revision in [7, 8] {
            let large = snapshot(revision, &image(&[1, 2, 3, revision as u32]));
            b.policy.snapshot(&mut b.fake, &large, &mut nowhere);
        }
        let told = b.policy.degraded(b.in_force());
        assert_eq!(told.len(), 1);
        for part in
            ["since 20", "revision 8", "4 words of policy", "revision 2 stays in force", "image_words"]
        {
            assert!(told[0].contains(part), "{part}: {}", told[0]);
        }
        b.policy.delta(&mut b.fake, &delta((2, &image(&[1])), (9, &image(&[4]))), &mut nowhere);
        assert_eq!((b.in_force(), b.policy.degraded(Some(9))), (Some(9), Vec::new()));
    }

    #[test]
    fn every_refusal_has_a_label_of_the_list() {
        for label in ["malformed", "hash", "base", "invalid", "too_large", "stale", "kernel"] {
            assert!(REFUSALS.contains(&label));
        }
    }
}
