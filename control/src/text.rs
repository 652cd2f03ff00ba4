//! What others may call things: bounds for texts that come from operators and agents.

/// `text` without control characters, cut after `limit` characters: what agents say of themselves ends up in lists and
/// in memory.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    text.chars().filter(|char| !is_invisible(*char)).take(limit).collect()
}

/// Whether a terminal would obey the character instead of showing it: control characters, and those that turn the
/// direction of what follows (Unicode TR9), by which one name can be made to look like another.
pub(crate) fn is_invisible(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A machine's public key as two people compare it: the first ten bytes of its hash, `1a2b-3c4d-…`.
pub(crate) fn fingerprint(hash: &[u8]) -> String {
    let pairs: Vec<String> = hash.iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    pairs.chunks(2).map(<[String]>::concat).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_short_enough_to_be_read_out() {
        assert_eq!(fingerprint(&[0xa1; 32]), "a1a1-a1a1-a1a1-a1a1-a1a1");
    }

    #[test]
    fn what_is_kept_is_short_and_shows_as_it_is() {
        assert_eq!(printable("a\u{1b}[31mb\n\u{202e}c\u{0}", 100), "a[31mbc");
        assert_eq!(printable(&"ä".repeat(1000), 3), "äää");
    }
}
