//! What ends by the clock, beside the image: on disk before the image that it is of, and of the image before as well, since either may be
//! the one that a start finds.

use std::path::Path;

use anyhow::{Context as _, bail};
use prost::Message;
use sha2::{Digest as _, Sha256};
use sluicegate_api::agent::Schedule;

use super::super::ends::Moment;
use super::{PRIVATE, Store};
use crate::files;

const MAGIC: &[u8; 8] = b"SLUEND\0\x01";
const ENDS: &str = "image.ends";
const SEEN: &str = "image.ends.seen";

/// What control said, and when it did.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    pub(crate) schedule: Schedule,
    /// From then on its times count.
    pub(crate) at: Moment,
}

/// [`Kept`] on disk.
#[derive(Clone, PartialEq, Message)]
struct Written {
    #[prost(message, optional, tag = "1")]
    schedule: Option<Schedule>,
    #[prost(string, tag = "2")]
    boot: String,
    #[prost(uint64, tag = "3")]
    boot_ms: u64,
    #[prost(uint64, tag = "4")]
    wall_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
struct All {
    #[prost(message, repeated, tag = "1")]
    kept: Vec<Written>,
}

impl Store {
    /// Remembers what ends, the newest first; on disk when this returns.
    pub(crate) fn put_ends(&self, kept: &[Kept]) -> anyhow::Result<()> {
        let written = |kept: &Kept| Written {
            schedule: Some(kept.schedule.clone()),
            boot: kept.at.boot.clone(),
            boot_ms: kept.at.boot_ms,
            wall_ms: kept.at.wall_ms,
        };
        let encoded = All { kept: kept.iter().map(written).collect() }.encode_to_vec();
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&Sha256::digest(&encoded));
        bytes.extend_from_slice(&encoded);
        Ok(files::write(&self.dir.join(ENDS), &bytes, PRIVATE)?)
    }

    /// Remembers that nothing ends.
    pub(crate) fn no_ends(&self) -> anyhow::Result<()> {
        self.remove(ENDS)?;
        self.remove(SEEN)
    }

    /// What ends, the newest first; nothing where nothing was remembered.
    pub(crate) fn ends(&self) -> anyhow::Result<Vec<Kept>> {
        let path = self.dir.join(ENDS);
        let Some(bytes) = files::read(&path)? else { return Ok(Vec::new()) };
        parse(&bytes).with_context(|| damaged(&path))
    }

    /// Remembers the moment, for a start after which only the wall clock is there.
    pub(crate) fn put_seen(&self, now: &Moment) -> anyhow::Result<()> {
        let Moment { boot, boot_ms, wall_ms } = now;
        let text = format!("{boot} {boot_ms} {wall_ms}\n");
        Ok(files::write(&self.dir.join(SEEN), text.as_bytes(), PRIVATE)?)
    }

    /// The moment remembered last.
    pub(crate) fn seen(&self) -> Option<Moment> {
        let bytes = files::read(&self.dir.join(SEEN)).ok().flatten()?;
        let mut words = std::str::from_utf8(&bytes).ok()?.split_whitespace();
        let (boot, boot_ms, wall_ms) = (words.next()?, words.next()?, words.next()?);
        Some(Moment { boot: boot.to_owned(), boot_ms: boot_ms.parse().ok()?, wall_ms: wall_ms.parse().ok()? })
    }
}

fn damaged(path: &Path) -> String {
    format!("{}, which says when grants end, is damaged", path.display())
}

fn parse(bytes: &[u8]) -> anyhow::Result<Vec<Kept>> {
    let rest = bytes.strip_prefix(MAGIC).context("it is not of this version")?;
    let (hash, encoded) = rest.split_first_chunk::<32>().context("it ends early")?;
    if <[u8; 32]>::from(Sha256::digest(encoded)) != *hash {
        bail!("its hash is wrong");
    }
    let kept = |written: Written| Kept {
        schedule: written.schedule.unwrap_or_default(),
        at: Moment { boot: written.boot, boot_ms: written.boot_ms, wall_ms: written.wall_ms },
    };
    Ok(All::decode(encoded)?.kept.into_iter().map(kept).collect())
}
