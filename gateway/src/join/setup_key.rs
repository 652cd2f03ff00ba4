//! The setup key file: a secret, and how to know the control it is for.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

/// SHA-256 of a certificate's DER encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// What the file's first line holds: `KEY` or `KEY#sha256:HEX`.
pub struct SetupKey {
    /// The secret; never logged.
    pub key: Zeroizing<String>,
    /// Fingerprint of the authority that signs control's certificate.
    pub authority: Option<Fingerprint>,
}

impl SetupKey {
    /// Reads the first line of `path`.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.with_context(|| format!("the setup key file {} cannot be read", path.display()))?;
        Self::parse(text.lines().next().unwrap_or_default().trim())
            .with_context(|| format!("{} holds no setup key", path.display()))
    }

    fn parse(line: &str) -> anyhow::Result<Self> {
        let (key, authority) = match line.split_once('#') {
            None => (line, None),
            Some((key, rest)) => {
                let hex = rest
                    .strip_prefix("sha256:")
                    .context("what follows # must be sha256: and 64 hexadecimal digits")?;
                (key, Some(Fingerprint::parse(hex)?))
            }
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            bail!("its first line must be KEY or KEY#sha256:HEX");
        }
        Ok(Self { key: Zeroizing::new(key.to_owned()), authority })
    }
}

impl Fingerprint {
    /// Of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(der).into())
    }

    /// Reads 64 hexadecimal digits, with `sha256:` in front or without.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let digits: Option<Vec<u8>> =
            hex.bytes().map(|b| (b as char).to_digit(16).map(|d| d as u8)).collect();
        let Some(digits) = digits.filter(|d| d.len() == 64) else {
            bail!("a fingerprint is 64 hexadecimal digits")
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_with_or_without_a_fingerprint() {
        let hex = "0123456789abcdef".repeat(4);
        let plain = SetupKey::parse("A-KEY").unwrap();
        assert!(plain.authority.is_none());
        let pinned = SetupKey::parse(&format!("A-KEY#sha256:{}", hex.to_uppercase())).unwrap();
        assert_eq!(pinned.key.as_str(), "A-KEY");
        assert_eq!(pinned.authority.unwrap().to_string(), hex);
    }

    #[test]
    fn malformed_files_are_refused() {
        for line in ["", "#sha256:00", "KEY#md5:00", "KEY#sha256:0g", "KEY#sha256:00", "A KEY"] {
            assert!(SetupKey::parse(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn errors_do_not_repeat_the_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "SECRET#sha256:00").unwrap();
        let error = format!("{:?}", SetupKey::read(file.path()).err().unwrap());
        assert!(!error.contains("SECRET"), "{error}");
    }
}
