//! The chain through the audit trail: every event carries SHA-256 over the hash of the event before it and over itself.
//!
//! Control writes the chain, the command line walks it again; both take the encoding from here, and nobody else decides
//! what an event says. A chain proves that what lies between two known hashes is what was once written. It does not
//! prove who wrote it: whoever can write every row can compute every hash, so a head must be kept elsewhere to compare.

mod verify;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use verify::{Broken, Report, Verifier};

/// What the first event of a trail follows: no hash of anything.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The code of the event by which retention says what it removed; see [`Pruned`].
pub const PRUNE: &str = "audit.prune";

/// The beginning of what is hashed: another encoding would have another one.
const DOMAIN: &[u8] = b"sluicegate audit event 1\n";

/// An audit event as it is stored, every field of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rises with every event.
    pub id: i64,
    /// Unix milliseconds.
    pub at: i64,
    /// The account revision the change made.
    pub revision: i64,
    /// What happened: `policy.add`.
    pub code: String,
    /// Who did it.
    pub initiator_id: String,
    /// By name.
    pub initiator_name: String,
    /// By e-mail address; empty where there is none.
    pub initiator_email: String,
    /// What it was done to.
    pub target_id: String,
    /// The details: the text of a JSON object, byte for byte as it is stored.
    pub meta: String,
}

/// An event with its place in the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The event.
    #[serde(flatten)]
    pub event: Event,
    /// Hash of the event before it, in lower-case hex; [`GENESIS`] for the first.
    pub previous: String,
    /// Its own hash, in lower-case hex.
    pub hash: String,
}

/// A place in the chain: the newest event, or one that somebody noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The event's id; 0 before the first.
    pub id: i64,
    /// Its hash.
    pub hash: String,
}

/// Where the trail begins: the last event that retention removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Its id; 0 when nothing was removed.
    pub id: i64,
    /// Its hash, which the first event that is left follows.
    pub hash: String,
    /// How many events were removed, ever.
    pub removed: i64,
}

/// What the details of a [`PRUNE`] event say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The anchor it left.
    pub anchor: Anchor,
}

impl Event {
    /// The event's hash when it follows `previous`.
    ///
    /// SHA-256 over: the line `sluicegate audit event 1`; `previous`; id, time and revision, each as 8 bytes, most
    /// significant first; code, initiator's id, name and e-mail address, target, details. A text is its length in bytes
    /// as 4 bytes, most significant first, and its UTF-8, so that no two events have one encoding.
    pub fn hash(&self, previous: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        let text = |hash: &mut Sha256, text: &str| {
            // A text of 4 GiB is in no database that this reads.
            hash.update(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(text);
        };
        text(&mut hash, previous);
        for number in [self.id, self.at, self.revision] {
            hash.update(number.to_be_bytes());
        }
        let initiator = [&self.initiator_id, &self.initiator_name, &self.initiator_email];
        for field in [&self.code].into_iter().chain(initiator).chain([&self.target_id, &self.meta]) {
            text(&mut hash, field);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The event at its place after `previous`.
    pub fn link(self, previous: &str) -> Link {
        Link { hash: self.hash(previous), previous: previous.to_owned(), event: self }
    }
}

impl Link {
    /// Whether what the event says, and what it says it follows, give its hash.
    pub fn is_whole(&self) -> bool {
        self.event.hash(&self.previous) == self.hash
    }

    /// The place of this event.
    pub fn head(&self) -> Head {
        Head { id: self.event.id, hash: self.hash.clone() }
    }
}

impl Default for Anchor {
    fn default() -> Self {
        Anchor { id: 0, hash: GENESIS.into(), removed: 0 }
    }
}

impl Default for Head {
    fn default() -> Self {
        Head { id: 0, hash: GENESIS.into() }
    }
}

impl Pruned {
    /// Reads the details of an event with the code [`PRUNE`]; none where they are not what control writes.
    pub fn read(meta: &str) -> Option<Self> {
        let meta: std::collections::BTreeMap<String, String> = serde_json::from_str(meta).ok()?;
        let anchor = Anchor {
            id: meta.get("through_id")?.parse().ok()?,
            hash: meta.get("through_hash")?.clone(),
            removed: meta.get("removed_ever")?.parse().ok()?,
        };
        Some(Pruned { anchor })
    }

    /// The details, as names and values.
    pub fn meta(&self) -> [(&'static str, String); 3] {
        [
            ("through_id", self.anchor.id.to_string()),
            ("through_hash", self.anchor.hash.clone()),
            ("removed_ever", self.anchor.removed.to_string()),
        ]
    }
}

/// Reads `ID:HASH`, the form in which heads are shown.
impl std::str::FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("'{text}' is no head: write ID:HASH, as `sluice audit verify` shows it");
        let (id, hash) = text.trim().split_once(':').ok_or_else(wrong)?;
        let id: i64 = id.parse().map_err(|_| wrong())?;
        if id < 0 || hash.len() != GENESIS.len() || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        Ok(Head { id, hash: hash.to_ascii_lowercase() })
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.id, self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_never_changes() {
        let event = Event {
            id: 7,
            at: 1_763_800_000_123,
            revision: 3,
            code: "group.add".into(),
            initiator_id: "u".into(),
            initiator_name: "Ä".into(),
            initiator_email: String::new(),
            target_id: "g".into(),
            meta: r#"{"name":"x"}"#.into(),
        };
        // By another implementation, over the bytes that the documentation of `Event::hash` names.
        assert_eq!(event.hash(GENESIS), "9aa0ac1d7dd164a14353b6ca34dce6af7b67b3b8bbf43373601e6617ca8832a4");
    }

    #[test]
    fn text_cannot_move_between_fields() {
        let one = Event { code: "ab".into(), ..Event::default() };
        let other = Event { code: "a".into(), initiator_id: "b".into(), ..Event::default() };
        assert_ne!(one.hash(GENESIS), other.hash(GENESIS));
    }

    #[test]
    fn heads_are_read_as_they_are_shown() {
        let head = Head { id: 5, hash: "ab".repeat(32) };
        assert_eq!(head.to_string().parse::<Head>().unwrap(), head);
        for wrong in ["", "5", "5:", "x:00", "5:zz", &format!("-1:{GENESIS}"), &format!("1:{GENESIS}0")] {
            assert!(wrong.parse::<Head>().is_err(), "{wrong}");
        }
    }
}
