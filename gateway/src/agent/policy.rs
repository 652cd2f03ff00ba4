//! Images from control: checked, put in force as a whole or refused as a whole, remembered.

mod ends;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use sluicegate_api::agent::{Acknowledgement, Delta, Schedule, Snapshot};
use sluicegate_api::image::{self, CodecError, Hash, Hashes, Image, RouteInfo, RuleInfo};

use self::ends::Clock;
pub(super) use self::ends::Remembered;
use super::ends::Moment;
use super::store::{Store, StoredImage};
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
    clock: Clock,
}

/// What ends by the clock of an image that comes into force.
enum Until {
    /// What control says.
    Said(Option<Schedule>),
    /// The clock brought it: what is known goes on.
    Known,
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
    #[error("what control says of its ends is of another image")]
    Schedule,
    #[error("{0}")]
    Apply(#[from] ApplyError),
}

impl Refusal {
    /// The metric's label, from a closed list.
    fn label(&self) -> &'static str {
        match self {
            Self::Codec(_) | Self::Schedule => "malformed",
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
            Self::Codec(_) | Self::Hash { .. } | Self::Base { .. } | Self::Schedule => {
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
        let remembered = Remembered::load(&store);
        Self::take_up(store, remembered, datapath, exits)
    }

    /// The same, of what was remembered.
    pub(super) fn take_up(
        store: Arc<Store>,
        mut remembered: Remembered,
        datapath: &mut dyn Datapath,
        exits: &mut Exits<'_>,
    ) -> Self {
        // Some time may have passed since it was read.
        remembered.pass(&store, &Moment::now());
        let Remembered { image, trouble, clock, .. } = remembered;
        let mut policy =
            Self { store, held: None, previous: None, trouble, refused: None, distrust: false, clock };
        if let Some(stored) = image {
            policy.bring_back(stored, datapath, exits);
        }
        policy.shut_unless_held(datapath.in_force());
        policy
    }

    fn bring_back(&mut self, stored: StoredImage, datapath: &mut dyn Datapath, exits: &mut Exits<'_>) {
        let policy = self;
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
    }

    /// What control is told when the stream opens.
    pub(super) fn known(&self, datapath: &dyn Datapath) -> Known {
        let ends = u32::try_from(self.clock.len()).unwrap_or(u32::MAX);
        match (&self.held, datapath.in_force()) {
            (Some(held), _) => {
                Known { revision: held.revision, hash: (!self.distrust).then_some(held.hash), ends }
            }
            (None, Some(now)) => Known { revision: now.revision, hash: None, ends },
            (None, None) => Known::default(),
        }
    }

    /// A whole image, of which `ends` says what ends by the clock.
    pub(super) fn snapshot(
        &mut self,
        datapath: &mut dyn Datapath,
        snapshot: &Snapshot,
        ends: Option<Schedule>,
        exits: &mut Exits<'_>,
    ) -> Outcome {
        let started = Instant::now();
        let result = self.put(datapath, snapshot, ends, exits, started);
        self.note(snapshot.revision, &result);
        outcome(snapshot.revision, &snapshot.hash, result)
    }

    /// A difference to the image in force, of which `ends` says what ends by the clock.
    pub(super) fn delta(
        &mut self,
        datapath: &mut dyn Datapath,
        delta: &Delta,
        ends: Option<Schedule>,
        exits: &mut Exits<'_>,
    ) -> Outcome {
        let started = Instant::now();
        let result = self.change(datapath, delta, Until::Said(ends), exits, started);
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

    /// The image in force, where it is held.
    pub(super) fn image(&self) -> Option<&Image> {
        self.held.as_ref().map(|held| &*held.image)
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
        refused.into_iter().chain(self.trouble.clone()).chain(self.clock.shut()).collect()
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
        ends: Option<Schedule>,
        exits: &mut Exits<'_>,
        started: Instant,
    ) -> Result<u64, Refusal> {
        let image = Image::decode(&snapshot.image)?;
        let hashes = Hashes::of(&image);
        let hash = said(&hashes, &snapshot.hash)?;
        Self::fits(ends.as_ref(), &hash)?;
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
        self.reopen();
        let told = self.expect(ends, &hash);
        let remembered = told.and_then(|()| self.store.put_image(revision, &hash, &snapshot.image));
        self.note_written(&remembered);
        self.trouble = self.forget_unless(revision, remembered).or_else(|| self.forget_ends());
        Ok(took)
    }

    fn change(
        &mut self,
        datapath: &mut dyn Datapath,
        delta: &Delta,
        until: Until,
        exits: &mut Exits<'_>,
        started: Instant,
    ) -> Result<u64, Refusal> {
        let named: Option<Hash> = delta.hash[..].try_into().ok();
        if let (Until::Said(ends), Some(hash)) = (&until, named) {
            Self::fits(ends.as_ref(), &hash)?;
        }
        let Some(held) = &mut self.held else { return Err(Refusal::Base { base: delta.base_revision }) };
        // The clock may have brought here already what control says: then it is the same image under another revision.
        let here = held.hash[..] == delta.hash[..];
        let changes = match held.hash[..] == delta.base_hash[..] {
            true => image::Delta::decode(&delta.delta)?,
            false if here => nothing(&held.image),
            false => return Err(Refusal::Base { base: delta.base_revision }),
        };
        let encoded = if here { nothing(&held.image).encode() } else { delta.delta.clone() };
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
        let image = held.image.clone();
        if !here {
            let (rules, routes) = (gone(undo.rules), gone(undo.routes));
            self.previous = Some(Arc::new(Image { words: Vec::new(), rules, routes }));
        }
        let remember = |policy: &Self| policy.store.put_change(&base, revision, &hash, &encoded, &image);
        self.trouble = match until {
            Until::Said(ends) => {
                self.reopen();
                let told = self.expect(ends, &hash);
                let remembered = told.and_then(|()| remember(self));
                self.note_written(&remembered);
                self.forget_unless(revision, remembered).or_else(|| self.forget_ends())
            }
            // The image before is on disk with its end: a start brings it to the same one.
            Until::Known => {
                let remembered = remember(self);
                self.note_written(&remembered);
                remembered.err().map(|e| {
                    format!("revision {revision} is in force and could not be remembered; a restart makes it again: {e:#}")
                })
            }
        };
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

/// The difference between an image and itself.
fn nothing(image: &Image) -> image::Delta {
    image::Delta { words: u32::try_from(image.words.len()).unwrap_or(u32::MAX), ..image::Delta::default() }
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
mod tests;
