//! Texts that the store keeps for somebody whose secret it does not: sealed with a key made from the secret.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use sha2::{Digest, Sha256};

/// What to keep of a text; `None` when the system gives no random bytes.
pub(crate) fn seal(secret: &str, text: &str) -> Option<Vec<u8>> {
    let mut sealed = text.as_bytes().to_vec();
    let nonce = key(secret)?.seal_in_place_append_tag(Aad::empty(), &mut sealed).ok()?;
    sealed.splice(..0, nonce.as_ref().iter().copied());
    Some(sealed)
}

/// The text that was sealed with this secret.
pub(crate) fn open(secret: &str, mut sealed: Vec<u8>) -> Option<String> {
    let (nonce, rest) = sealed.split_at_mut_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let text = key(secret)?.open_in_place(nonce, Aad::empty(), rest).ok()?;
    String::from_utf8(text.to_vec()).ok()
}

fn key(secret: &str) -> Option<RandomizedNonceKey> {
    // Not the hash by which the secret is looked up.
    let key = Sha256::new().chain_update("sealed with").chain_update(secret).finalize();
    RandomizedNonceKey::new(&AES_256_GCM, &key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_opens_what_was_sealed_with_it() {
        let sealed = seal("mine", "a device code").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"device"));
        assert_eq!(open("mine", sealed.clone()).as_deref(), Some("a device code"));
        assert_eq!(open("yours", sealed.clone()), None);
        assert_eq!(open("mine", sealed[..8].to_vec()), None);
    }
}
