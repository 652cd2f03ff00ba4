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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_short_and_shows_as_it_is() {
        assert_eq!(printable("a\u{1b}[31mb\n\u{202e}c\u{0}", 100), "a[31mbc");
        assert_eq!(printable(&"ä".repeat(1000), 3), "äää");
    }
}
