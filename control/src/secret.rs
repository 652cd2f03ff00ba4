//! The secrets control hands out, personal access tokens, tokens of logins, invitations, and keys that machines join with: made here,
//! kept only as SHA-256.

use sha2::{Digest, Sha256};

/// SHA-256 of a secret's text, all that is stored of it.
pub type SecretHash = [u8; 32];

const TOKEN_PREFIX: &str = "nbp_";
const SESSION_PREFIX: &str = "sgs_";
const JOIN_PREFIX: &str = "sgj_";
const INVITE_PREFIX: &str = "nbi_";
const LOGIN_PREFIX: &str = "sgl_";
const TOKEN_RANDOM: usize = 30;
const TOKEN_CHECKSUM: usize = 6;
const CODE_LETTERS: usize = 8;
const CODE: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A new personal access token: `nbp_`, 30 random base62 characters, and the base62 CRC-32 of those.
pub fn new_token() -> String {
    new_text(TOKEN_PREFIX)
}

/// The hash a token is looked up by; `None` for a text that cannot be a token (wrong form or checksum).
pub fn token_hash(text: &str) -> Option<SecretHash> {
    hash(TOKEN_PREFIX, text)
}

/// Whether `text` has the form by which a token is told from a JWT.
pub fn looks_like_token(text: &str) -> bool {
    text.starts_with(TOKEN_PREFIX)
}

/// A new token of a login: as a personal access token, with `sgs_` in front.
pub fn new_session() -> String {
    new_text(SESSION_PREFIX)
}

/// The hash a login is looked up by; `None` for a text that cannot be a login's token.
pub fn session_hash(text: &str) -> Option<SecretHash> {
    hash(SESSION_PREFIX, text)
}

/// Whether `text` has the form of a login's token.
pub fn looks_like_session(text: &str) -> bool {
    text.starts_with(SESSION_PREFIX)
}

/// A new secret of an invitation: as a personal access token, with `nbi_` in front.
pub fn new_invite() -> String {
    new_text(INVITE_PREFIX)
}

/// The hash an invitation is looked up by; `None` for a text that cannot be one's secret.
pub fn invite_hash(text: &str) -> Option<SecretHash> {
    hash(INVITE_PREFIX, text)
}

/// A new key for one machine of a user: as a personal access token, with `sgj_` in front.
pub fn new_join_key() -> String {
    new_text(JOIN_PREFIX)
}

/// The hash such a key is looked up by; `None` for a text that cannot be one.
pub fn join_key_hash(text: &str) -> Option<SecretHash> {
    hash(JOIN_PREFIX, text)
}

/// Whether `text` has the form of such a key.
pub fn looks_like_join_key(text: &str) -> bool {
    text.starts_with(JOIN_PREFIX)
}

/// A new secret of a machine that waits for somebody to log in for it: as a personal access token, with `sgl_` in front.
pub fn new_machine_login() -> String {
    new_text(LOGIN_PREFIX)
}

/// The hash such a secret is looked up by; `None` for a text that cannot be one.
pub fn machine_login_hash(text: &str) -> Option<SecretHash> {
    hash(LOGIN_PREFIX, text)
}

/// Whether `text` has the form of such a secret.
pub fn looks_like_machine_login(text: &str) -> bool {
    text.starts_with(LOGIN_PREFIX)
}

/// A new code for a person to type, `BCDF-GHJK`: 34 random bits, in letters that make no words (RFC 8628, section 6.1).
pub fn new_user_code() -> String {
    let letters: String =
        (0..CODE_LETTERS).map(|_| CODE[rand::random_range(0..CODE.len())] as char).collect();
    format!("{}-{}", &letters[..CODE_LETTERS / 2], &letters[CODE_LETTERS / 2..])
}

/// A code as it was made, from how somebody typed it; `None` for a text that cannot be one.
pub fn user_code(text: &str) -> Option<String> {
    let letters: String = text
        .chars()
        .filter(|char| !matches!(char, '-' | ' '))
        .take(CODE_LETTERS + 1)
        .map(|char| char.to_ascii_uppercase())
        .collect();
    let fits = letters.len() == CODE_LETTERS && letters.bytes().all(|letter| CODE.contains(&letter));
    fits.then(|| format!("{}-{}", &letters[..CODE_LETTERS / 2], &letters[CODE_LETTERS / 2..]))
}

fn new_text(prefix: &str) -> String {
    let random: String =
        (0..TOKEN_RANDOM).map(|_| BASE62[rand::random_range(0..BASE62.len())] as char).collect();
    let checksum = checksum(&random);
    format!("{prefix}{random}{checksum}")
}

fn hash(prefix: &str, text: &str) -> Option<SecretHash> {
    let body = text.strip_prefix(prefix)?;
    if body.len() != TOKEN_RANDOM + TOKEN_CHECKSUM || !body.bytes().all(|byte| BASE62.contains(&byte)) {
        return None;
    }
    let (random, sum) = body.split_at(TOKEN_RANDOM);
    (checksum(random) == sum).then(|| Sha256::digest(text).into())
}

/// A new setup key: a version 4 UUID in upper case.
pub fn new_setup_key() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The hash a setup key is looked up by; case and surrounding blanks do not matter.
pub fn setup_key_hash(text: &str) -> SecretHash {
    Sha256::digest(text.trim().to_ascii_uppercase()).into()
}

/// What is shown of a setup key after its creation: its first five characters.
pub fn mask_setup_key(text: &str) -> String {
    text.chars().enumerate().map(|(index, char)| if index < 5 { char } else { '*' }).collect()
}

/// CRC-32 (IEEE 802.3) in base62, six digits.
fn checksum(text: &str) -> String {
    let mut value = crc32(text.as_bytes());
    let mut digits = [b'0'; TOKEN_CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(value % 62) as usize];
        value /= 62;
    }
    digits.iter().map(|digit| *digit as char).collect()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_the_ieee_one() {
        // The check value of the CRC catalogue for CRC-32/ISO-HDLC.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_new_token_has_a_hash_and_a_damaged_one_has_none() {
        let token = new_token();
        assert_eq!(token.len(), 40);
        assert!(token_hash(&token).is_some());
        let last = if token.ends_with('A') { 'B' } else { 'A' };
        assert!(token_hash(&format!("{}{last}", &token[..39])).is_none());
        assert!(token_hash(&token[..39]).is_none());
        assert!(token_hash(&token.replace("nbp_", "nbx_")).is_none());
        assert!(token_hash("").is_none());
    }

    #[test]
    fn a_code_is_read_however_it_is_typed_and_nothing_else_is() {
        let code = new_user_code();
        assert_eq!(code.len(), 9);
        for typed in [code.clone(), code.to_lowercase(), code.replace('-', ""), code.replace('-', " ")] {
            assert_eq!(user_code(&typed).as_deref(), Some(code.as_str()));
        }
        for wrong in ["", "BCDF-GHJ", "BCDF-GHJKL", "ACDF-GHJK", "BCDF-GHJÉ", "--------"] {
            assert_eq!(user_code(wrong), None, "{wrong}");
        }
        assert_ne!(new_user_code(), new_user_code());
    }

    #[test]
    fn a_setup_key_is_a_uuid_and_its_case_does_not_matter() {
        let key = new_setup_key();
        assert_eq!(key.len(), 36);
        assert_eq!(&key[14..15], "4");
        assert!(matches!(&key[19..20], "8" | "9" | "A" | "B"));
        assert_eq!(setup_key_hash(&key), setup_key_hash(&format!(" {}\n", key.to_lowercase())));
        assert_ne!(setup_key_hash(&key), setup_key_hash(&new_setup_key()));
        assert_eq!(mask_setup_key("A616097E-FCF0"), "A6160********");
    }
}
