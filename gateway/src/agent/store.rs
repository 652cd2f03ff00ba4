//! What the agent must remember over a restart: the last good image, the overlay, where peers were, when control spoke.

mod ends;
mod image;
mod journal;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use sluicegate_api::agent::NetworkConfig;
use sluicegate_api::image::{Hash, Image};

pub(super) use self::ends::Kept;
use self::image::Images;
pub(super) use self::image::StoredImage;
use crate::names::Below;
use crate::overlay::PublicKey;
use crate::{files, system};

const NETWORK_MAGIC: &[u8; 8] = b"SLUNET\0\x01";
const PRIVATE: u32 = 0o600;

/// The agent's memory in its state directory.
pub(super) struct Store {
    dir: PathBuf,
    images: Images,
}

impl Store {
    /// In `dir`, which exists.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.into(), images: Images::new(dir) }
    }

    /// Remembers an image; on disk when this returns.
    pub(super) fn put_image(&self, revision: u64, hash: &Hash, encoded: &[u8]) -> anyhow::Result<()> {
        self.images.put(revision, hash, encoded)
    }

    /// Remembers a change to the image with hash `base`, which leads to `hash`; on disk when this returns. Now and then, as
    /// changes add up, the image is written as a whole.
    pub(super) fn put_change(
        &self,
        base: &Hash,
        revision: u64,
        hash: &Hash,
        delta: &[u8],
        image: &Image,
    ) -> anyhow::Result<()> {
        let due = match self.images.append(base, revision, hash, delta) {
            Ok(due) => due,
            Err(e) => {
                tracing::warn!(
                    "the change to revision {revision} is not in the journal, the image is written anew: {e:#}"
                );
                return self.images.put(revision, hash, &image.encode());
            }
        };
        if due && let Err(e) = self.images.put(revision, hash, &image.encode()) {
            tracing::warn!("the journal of images grows, since no new snapshot could be written: {e:#}");
            self.images.put_off();
        }
        Ok(())
    }

    /// Remembers no image; works on a full disk too.
    pub(super) fn forget_image(&self) -> anyhow::Result<()> {
        self.images.forget()
    }

    /// The image of the last run, if there is one and it is whole.
    pub(super) fn image(&self) -> anyhow::Result<Option<StoredImage>> {
        self.images.get()
    }

    /// Remembers the overlay.
    pub(super) fn put_network(&self, config: &NetworkConfig) -> anyhow::Result<()> {
        let encoded = config.encode_to_vec();
        let mut bytes = NETWORK_MAGIC.to_vec();
        bytes.extend_from_slice(&Sha256::digest(&encoded));
        bytes.extend_from_slice(&encoded);
        Ok(files::write(&self.dir.join("network"), &bytes, PRIVATE)?)
    }

    /// The overlay of the last run, if it is there and whole.
    pub(super) fn network(&self) -> anyhow::Result<Option<NetworkConfig>> {
        let path = self.dir.join("network");
        let Some(bytes) = files::read(&path)? else { return Ok(None) };
        let config = parse_network(&bytes)
            .with_context(|| format!("{} is damaged and is not used", path.display()))?;
        Ok(Some(config))
    }

    /// Remembers where peers are, so that they are greeted at once after a restart.
    pub(super) fn put_places(&self, places: &BTreeMap<PublicKey, SocketAddr>) -> anyhow::Result<()> {
        let by_text: BTreeMap<String, SocketAddr> =
            places.iter().map(|(key, place)| (key.to_string(), *place)).collect();
        Ok(files::write(&self.dir.join("places.json"), &serde_json::to_vec(&by_text)?, PRIVATE)?)
    }

    /// Where peers were; a hint, so a damaged file is an empty one.
    pub(super) fn places(&self) -> BTreeMap<PublicKey, SocketAddr> {
        let bytes = files::read(&self.dir.join("places.json")).ok().flatten().unwrap_or_default();
        let by_text: BTreeMap<String, SocketAddr> = serde_json::from_slice(&bytes).unwrap_or_default();
        let key = |text: &str| PublicKey::try_from(&STANDARD.decode(text).ok()?[..]).ok();
        by_text.iter().filter_map(|(text, place)| Some((key(text)?, *place))).collect()
    }

    /// Remembers names that were asked for below wildcards.
    pub(super) fn put_below(&self, below: &Below) -> anyhow::Result<()> {
        Ok(files::write(&self.dir.join("names.json"), &serde_json::to_vec(below)?, PRIVATE)?)
    }

    /// Names that were asked for; clients ask again, so a damaged file is an empty one.
    pub(super) fn below(&self) -> Below {
        let bytes = files::read(&self.dir.join("names.json")).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Remembers whether control knows this agent no more.
    pub(super) fn put_expelled(&self, expelled: bool) -> anyhow::Result<()> {
        if expelled {
            return Ok(files::write(&self.dir.join("expelled"), b"", PRIVATE)?);
        }
        self.remove("expelled")
    }

    /// Whether control knew this agent no more when it last answered.
    pub(super) fn expelled(&self) -> bool {
        self.dir.join("expelled").exists()
    }

    fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("{} cannot be removed", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Remembers that control spoke now.
    pub(super) fn put_contact(&self) -> anyhow::Result<()> {
        Ok(files::write(&self.dir.join("contact"), system::unix_ms().to_string().as_bytes(), PRIVATE)?)
    }

    /// Time since control last spoke; `None` when it never did, or the clock was set back since.
    pub(super) fn since_contact(&self) -> Option<Duration> {
        let bytes = files::read(&self.dir.join("contact")).ok().flatten()?;
        let at: u64 = std::str::from_utf8(&bytes).ok()?.trim().parse().ok()?;
        system::unix_ms().checked_sub(at).map(Duration::from_millis)
    }
}

fn parse_network(bytes: &[u8]) -> anyhow::Result<NetworkConfig> {
    let rest = bytes.strip_prefix(NETWORK_MAGIC).context("it is not of this version")?;
    let (hash, encoded) = rest.split_first_chunk::<32>().context("it ends early")?;
    if Hash::from(Sha256::digest(encoded)) != *hash {
        bail!("its hash is wrong");
    }
    Ok(NetworkConfig::decode(encoded)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        assert!(store.image().unwrap().is_none() && store.network().unwrap().is_none());
        assert!(store.places().is_empty() && store.since_contact().is_none());
        let image = Image { words: vec![1, 2, 3], ..Image::default() };
        store.put_image(7, &image.hash(), &image.encode()).unwrap();
        let config = super::super::network::tests::config();
        store.put_network(&config).unwrap();
        let places = [(PublicKey([5; 32]), "[2001:db8::5]:1".parse().unwrap())].into();
        store.put_places(&places).unwrap();
        let below: Below = [(
            "a.example.org".to_owned(),
            (["r1".to_owned()].into(), ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()].into()),
        )]
        .into();
        assert!(store.below().is_empty());
        store.put_below(&below).unwrap();
        assert_eq!(store.below(), below);
        store.put_contact().unwrap();
        assert!(!store.expelled());
        store.put_expelled(true).unwrap();
        assert!(store.expelled());
        for _ in 0..2 {
            store.put_expelled(false).unwrap();
            assert!(!store.expelled());
        }
        let stored = store.image().unwrap().unwrap();
        assert_eq!((stored.revision, stored.hashes.root(), stored.image), (7, image.hash(), image));
        assert_eq!(store.network().unwrap().unwrap(), config);
        assert_eq!(store.places(), places);
        assert!(store.since_contact().unwrap() < Duration::from_secs(60));
    }

    #[test]
    fn damaged_files_are_named_and_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let image = Image { words: vec![1, 2, 3], ..Image::default() };
        store.put_image(7, &image.hash(), &image.encode()).unwrap();
        store.put_network(&super::super::network::tests::config()).unwrap();
        for name in ["image", "network"] {
            let path = dir.path().join(name);
            let whole = std::fs::read(&path).unwrap();
            for cut in 0..whole.len() {
                std::fs::write(&path, &whole[..cut]).unwrap();
                let damaged = if name == "image" { store.image().err() } else { store.network().err() };
                assert!(format!("{:#}", damaged.unwrap()).contains("damaged"), "{name} cut at {cut}");
            }
        }
    }
}
