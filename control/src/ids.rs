//! Object ids: 20 lower-case base32hex characters that sort by time of creation (the form NetBird's clients know).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// A new id: 4 bytes of Unix seconds, 5 bytes drawn once per process, 3 bytes of a counter.
pub fn new_id() -> String {
    static PROCESS: OnceLock<[u8; 5]> = OnceLock::new();
    static COUNTER: OnceLock<AtomicU32> = OnceLock::new();

    let counter = COUNTER.get_or_init(|| AtomicU32::new(rand::random::<u32>() >> 10));
    let count = counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    // The low 32 bits of the seconds wrap in 2106: ids stay unique, only their order starts again.
    let seconds = ((now() / 1000) as u32).to_be_bytes();

    let mut bytes = [0u8; 12];
    bytes[..4].copy_from_slice(&seconds);
    bytes[4..9].copy_from_slice(PROCESS.get_or_init(rand::random));
    bytes[9..].copy_from_slice(&count[1..]);
    base32hex(&bytes)
}

/// Milliseconds of a day.
pub const DAY: i64 = 24 * 3600 * 1000;

/// Unix milliseconds by the wall clock; a clock before 1970 reads as 0.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn base32hex(bytes: &[u8; 12]) -> String {
    // 96 bits in 20 groups of five: the last group holds the final bit and four zeroes.
    let wide = bytes.iter().fold(0u128, |wide, byte| wide << 8 | u128::from(*byte)) << 4;
    (0..20).rev().map(|group| ALPHABET[(wide >> (group * 5)) as usize & 31] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_sorted_and_of_the_known_form() {
        let ids: Vec<String> = (0..1000).map(|_| new_id()).collect();
        assert!(ids.iter().all(|id| id.len() == 20 && id.bytes().all(|byte| ALPHABET.contains(&byte))));
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn base32hex_is_that_of_rfc_4648() {
        assert_eq!(base32hex(b"foobarfoobar"), "cpnmuoj1e9j6urr2c5p0");
    }
}
