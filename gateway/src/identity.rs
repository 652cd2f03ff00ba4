//! Who this agent is: its keys, made here and never sent, and the certificate control gave it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gotatun::x25519;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::Role;
use crate::files;
use crate::overlay::PublicKey;

const CARD: &str = "identity.json";
const WIREGUARD: &str = "wireguard.key";
const TLS_KEY: &str = "tls.key";
const CERTIFICATE: &str = "tls.crt";
const AUTHORITY: &str = "authority.crt";
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// The keys of an agent, before and after it joined.
pub struct Keys {
    /// WireGuard's private key.
    pub wireguard: x25519::StaticSecret,
    /// The TLS private key, PKCS#8 PEM.
    pub tls: Zeroizing<String>,
}

/// An agent that has joined.
pub struct Identity {
    /// What is not secret.
    pub card: Card,
    /// Its keys.
    pub keys: Keys,
    /// Its certificate, PEM.
    pub certificate: String,
    /// The one authority whose control it obeys, PEM.
    pub authority: String,
}

/// What is known of a joined agent besides keys and certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Id of the peer in control.
    pub peer_id: String,
    /// Control's URL.
    pub control: String,
    /// What it joined as.
    pub role: Role,
    /// The name it gave itself.
    pub name: String,
}

impl Keys {
    /// The keys in `dir`, made now if they are not there.
    pub fn load_or_make(dir: &Path) -> anyhow::Result<Self> {
        if let Some(keys) = Self::load(dir)? {
            return Ok(keys);
        }
        let wireguard = new_wireguard_key()?;
        let tls = Zeroizing::new(
            rcgen::KeyPair::generate().context("a TLS key could not be made")?.serialize_pem(),
        );
        let text = Zeroizing::new(STANDARD.encode(Zeroizing::new(wireguard.to_bytes()).as_slice()) + "\n");
        files::write(&dir.join(TLS_KEY), tls.as_bytes(), PRIVATE)?;
        files::write(&dir.join(WIREGUARD), text.as_bytes(), PRIVATE)?;
        Ok(Self { wireguard, tls })
    }

    /// WireGuard's public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.wireguard).to_bytes())
    }

    fn load(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(WIREGUARD);
        let (Some(text), Some(tls)) =
            (files::read(&path)?.map(Zeroizing::new), files::read(&dir.join(TLS_KEY))?)
        else {
            return Ok(None);
        };
        let bytes = STANDARD.decode(text.trim_ascii()).ok().map(Zeroizing::new);
        let key = bytes.and_then(|b| <[u8; 32]>::try_from(b.as_slice()).ok()).map(Zeroizing::new);
        let key = key.with_context(|| {
            format!("{} is not a WireGuard key; restore it, or move it away and join again", path.display())
        })?;
        let tls =
            String::from_utf8(tls).with_context(|| format!("{} is not PEM", dir.join(TLS_KEY).display()))?;
        Ok(Some(Self { wireguard: x25519::StaticSecret::from(*key), tls: Zeroizing::new(tls) }))
    }
}

impl Identity {
    /// Writes everything that is not yet in `dir`; the card last, since it is what makes the agent a joined one.
    pub fn store(&self, dir: &Path) -> anyhow::Result<()> {
        files::write(&dir.join(AUTHORITY), self.authority.as_bytes(), PUBLIC)?;
        files::write(&dir.join(CERTIFICATE), self.certificate.as_bytes(), PUBLIC)?;
        files::write(&dir.join(CARD), &serde_json::to_vec_pretty(&self.card)?, PRIVATE)?;
        Ok(())
    }

    /// The identity in `dir`; `None` when the agent has not joined.
    pub fn load(dir: &Path) -> anyhow::Result<Option<Self>> {
        let Some(card) = card(dir)? else { return Ok(None) };
        let missing = |name: &str| {
            let path: PathBuf = dir.join(name);
            format!(
                "this agent joined, but {} is missing; restore it, or move the directory away and join again",
                path.display()
            )
        };
        let keys = Keys::load(dir)?.with_context(|| missing(WIREGUARD))?;
        let text = |name| -> anyhow::Result<String> {
            let bytes = files::read(&dir.join(name))?.with_context(|| missing(name))?;
            String::from_utf8(bytes).with_context(|| format!("{} is not PEM", dir.join(name).display()))
        };
        Ok(Some(Self { card, keys, certificate: text(CERTIFICATE)?, authority: text(AUTHORITY)? }))
    }
}

/// What is known of the agent that joined with `dir`; `None` when none did.
pub fn card(dir: &Path) -> anyhow::Result<Option<Card>> {
    let path = dir.join(CARD);
    let Some(bytes) = files::read(&path)? else { return Ok(None) };
    let card = serde_json::from_slice(&bytes).with_context(|| {
        format!("{} is damaged; restore it, or move the directory away and join again", path.display())
    })?;
    Ok(Some(card))
}

fn new_wireguard_key() -> anyhow::Result<x25519::StaticSecret> {
    let mut bytes = Zeroizing::new([0; 32]);
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random
        .fill(bytes.as_mut_slice())
        .map_err(|_| anyhow::anyhow!("the system gave no random bytes for a key"))?;
    Ok(x25519::StaticSecret::from(*bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_made_once_and_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let first = Keys::load_or_make(dir.path()).unwrap();
        let second = Keys::load_or_make(dir.path()).unwrap();
        assert_eq!(first.public(), second.public());
        assert_eq!(first.tls, second.tls);
        for name in [WIREGUARD, TLS_KEY] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn keys_alone_are_no_identity() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::load_or_make(dir.path()).unwrap();
        assert!(Identity::load(dir.path()).unwrap().is_none());
        let card =
            Card { peer_id: "p".into(), control: "https://c:1".into(), role: Role::Peer, name: "n".into() };
        let identity = Identity { card: card.clone(), keys, certificate: "C".into(), authority: "A".into() };
        identity.store(dir.path()).unwrap();
        let again = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!((again.card, again.keys.public()), (card, identity.keys.public()));
    }

    #[test]
    fn a_damaged_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        Keys::load_or_make(dir.path()).unwrap();
        std::fs::write(dir.path().join(WIREGUARD), "nonsense").unwrap();
        let error = Keys::load_or_make(dir.path()).err().unwrap().to_string();
        assert!(error.contains(WIREGUARD), "{error}");
    }
}
