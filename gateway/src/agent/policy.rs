//! Images from control: checked, put in force as a whole or refused as a whole, remembered.

use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha256};
use sluicegate_api::agent::{Acknowledgement, Delta, Snapshot};
use sluicegate_api::image::{self, CodecError, Hash, Image, RuleInfo};

use super::store::Store;
use crate::control::Known;
use crate::datapath::{ApplyError, Datapath};

/// The image in force, as far as the agent holds it, and how images come to be in force.
pub(super) struct Policy {
    store: Arc<Store>,
    held: Option<Held>,
    previous: Option<Arc<Image>>,
    trouble: Option<String>,
    /// A difference did not lead to what control said it would: the next image must be a whole one.
    distrust: bool,
}

#[derive(Clone)]
struct Held {
    revision: u64,
    hash: Hash,
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
}

/// Every label `Outcome::refused` can have.
pub const REFUSALS: [&str; 7] = ["malformed", "hash", "base", "invalid", "too_large", "stale", "kernel"];

impl Policy {
    /// Takes up what the last run left: the image whose maps were found, or the remembered one where it is newer.
    pub(super) fn start(store: Arc<Store>, datapath: &mut dyn Datapath) -> Self {
        let mut policy = Self { store, held: None, previous: None, trouble: None, distrust: false };
        let stored = match policy.store.image() {
            Ok(Some(stored)) => stored,
            Ok(None) => return policy,
            Err(e) => {
                policy.trouble = Some(format!("{e:#}; control is asked for a whole image"));
                return policy;
            }
        };
        let held = Held { revision: stored.revision, hash: stored.hash, image: Arc::new(stored.image) };
        match datapath.in_force() {
            Some(now) if (now.revision, now.hash) == (held.revision, held.hash) => {
                tracing::info!(revision = now.revision, "the image in force was found pinned");
                policy.held = Some(held);
            }
            Some(now) if now.revision >= held.revision => {
                tracing::warn!(revision = now.revision, "an image newer than the remembered one is in force");
            }
            _ => match datapath.put(held.revision, held.hash, &held.image) {
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
    pub(super) fn snapshot(&mut self, datapath: &mut dyn Datapath, snapshot: &Snapshot) -> Outcome {
        let started = Instant::now();
        let result = (|| {
            let hash = check_hash(&snapshot.image, &snapshot.hash)?;
            let image = Image::decode(&snapshot.image)?;
            self.put(datapath, snapshot.revision, hash, image, &snapshot.image, started)
        })();
        outcome(snapshot.revision, &snapshot.hash, result)
    }

    /// A difference to the image in force.
    pub(super) fn delta(&mut self, datapath: &mut dyn Datapath, delta: &Delta) -> Outcome {
        let started = Instant::now();
        let result = (|| {
            let base = self.held.as_ref().filter(|held| held.hash[..] == delta.base_hash[..]);
            let base = base.ok_or(Refusal::Base { base: delta.base_revision })?;
            let image = base.image.apply(&image::Delta::decode(&delta.delta)?)?;
            let encoded = image.encode();
            let hash = check_hash(&encoded, &delta.hash)?;
            self.put(datapath, delta.revision, hash, image, &encoded, started)
        })();
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

    /// What a person should know.
    pub(super) fn degraded(&self) -> Option<String> {
        self.trouble.clone()
    }

    fn put(
        &mut self,
        datapath: &mut dyn Datapath,
        revision: u64,
        hash: Hash,
        image: Image,
        encoded: &[u8],
        started: Instant,
    ) -> Result<u64, Refusal> {
        let there = datapath.in_force().is_some_and(|now| (now.revision, now.hash) == (revision, hash));
        if !there {
            datapath.put(revision, hash, &image)?;
        }
        let microseconds = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.distrust = false;
        let before = self.held.replace(Held { revision, hash, image: Arc::new(image) });
        self.previous = before.map(|held| held.image);
        // It is in force already: not to remember it is a worry for the next start, not a reason to refuse it.
        self.trouble = self.remember(revision, &hash, encoded);
        Ok(microseconds)
    }

    /// Writes the image in force to disk, or else forgets the one before: it may permit what this one revokes, and would
    /// come back with the next start.
    fn remember(&self, revision: u64, hash: &Hash, encoded: &[u8]) -> Option<String> {
        let why = self.store.put_image(revision, hash, encoded).err()?;
        let then = match self.store.forget_image() {
            Ok(()) => "after a restart of this host nothing is forwarded until control is reached".to_owned(),
            Err(e) => format!("after a restart of this host an older one would come back: {e:#}"),
        };
        Some(format!("revision {revision} is in force but could not be remembered, so {then}: {why:#}"))
    }
}

fn check_hash(bytes: &[u8], said: &[u8]) -> Result<Hash, Refusal> {
    let found = Hash::from(Sha256::digest(bytes));
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
        let policy = Policy::start(store.clone(), &mut fake);
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
        let outcome = b.policy.snapshot(&mut b.fake, &snapshot(5, &one));
        assert!(outcome.acknowledgement.applied && outcome.refused.is_none());
        let outcome = b.policy.delta(&mut b.fake, &delta((5, &one), (6, &two)));
        assert!(outcome.acknowledgement.applied, "{}", outcome.acknowledgement.refusal);
        assert_eq!(b.store.image().unwrap().unwrap().image, two);
        assert_eq!(b.policy.known(&b.fake), Known { revision: 6, hash: Some(two.hash()) });
    }

    #[test]
    fn bad_images_are_refused_as_a_whole_and_the_old_one_stays() {
        let mut b = bench();
        let (one, two) = (image(&[1]), image(&[2, 2]));
        b.policy.snapshot(&mut b.fake, &snapshot(5, &one));
        let whole = snapshot(6, &two);
        let truncated = {
            let image = whole.image[..whole.image.len() - 1].to_vec();
            Snapshot { hash: Sha256::digest(&image).to_vec(), image, ..whole.clone() }
        };
        let unknown = {
            let image = [&whole.image[..], &[0]].concat();
            Snapshot { hash: Sha256::digest(&image).to_vec(), image, ..whole.clone() }
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
            let outcome = b.policy.snapshot(&mut b.fake, &bad);
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
        let outcome = b.policy.snapshot(&mut b.fake, &snapshot(1, &image(&[1, 2, 3])));
        assert_eq!(outcome.refused, Some("too_large"));
        assert!(outcome.acknowledgement.refusal.contains("image_words"));
        assert_eq!(b.in_force(), None);
    }

    #[test]
    fn a_delta_to_another_base_asks_for_a_whole_image() {
        let mut b = bench();
        let (one, two, three) = (image(&[1]), image(&[2]), image(&[3]));
        b.policy.snapshot(&mut b.fake, &snapshot(5, &one));
        let outcome = b.policy.delta(&mut b.fake, &delta((5, &two), (6, &three)));
        assert_eq!((outcome.refused, outcome.resync), (Some("base"), true));
        let damaged = Delta { hash: vec![1; 32], ..delta((5, &one), (6, &three)) };
        let outcome = b.policy.delta(&mut b.fake, &damaged);
        assert_eq!((outcome.refused, outcome.resync), (Some("hash"), true));
        assert_eq!(b.in_force(), Some(5));
        assert_eq!(b.policy.known(&b.fake), Known { revision: 5, hash: None });
    }

    #[test]
    fn a_restart_takes_up_what_is_pinned_or_applies_what_is_remembered() {
        let mut b = bench();
        let one = image(&[1]);
        b.policy.snapshot(&mut b.fake, &snapshot(5, &one));
        // The programs survived: nothing is applied again.
        let again = Policy::start(b.store.clone(), &mut b.fake);
        assert_eq!(b.fake.0.lock().unwrap().images.len(), 1);
        assert_eq!(again.known(&b.fake).hash, Some(one.hash()));
        // They did not: the remembered image comes into force before control is reached.
        let mut fresh = FakeDatapath::default();
        Policy::start(b.store.clone(), &mut fresh);
        assert_eq!(fresh.in_force().map(|now| now.revision), Some(5));
    }

    #[test]
    fn on_a_full_disk_a_revoked_image_does_not_come_back_with_the_next_start() {
        let mut b = bench();
        b.policy.snapshot(&mut b.fake, &snapshot(5, &image(&[1])));
        // A directory in the place of the temporary file: no image can be written.
        std::fs::create_dir(b.dir.path().join("image.new")).unwrap();
        let outcome = b.policy.snapshot(&mut b.fake, &snapshot(6, &image(&[2])));
        assert!(outcome.acknowledgement.applied);
        assert!(b.policy.degraded().unwrap().contains("could not be remembered"));
        let mut fresh = FakeDatapath::default();
        Policy::start(b.store.clone(), &mut fresh);
        assert_eq!(fresh.in_force(), None);
    }

    #[test]
    fn an_image_in_force_that_was_not_remembered_is_acknowledged_when_it_comes_again() {
        let mut b = bench();
        let two = image(&[2]);
        b.fake.apply(6, &two).unwrap();
        assert_eq!(b.policy.known(&b.fake), Known { revision: 6, hash: None });
        let outcome = b.policy.snapshot(&mut b.fake, &snapshot(6, &two));
        assert!(outcome.acknowledgement.applied, "{}", outcome.acknowledgement.refusal);
    }

    #[test]
    fn every_refusal_has_a_label_of_the_list() {
        for label in ["malformed", "hash", "base", "invalid", "too_large", "stale", "kernel"] {
            assert!(REFUSALS.contains(&label));
        }
    }
}
