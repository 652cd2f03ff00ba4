//! Names and descriptions as operators give them: bounded, so that lists, events and messages to agents are, and without
//! characters that a terminal obeys.

use sluicegate_policy::file::not_a_group;

use super::Result;
use super::error::invalid;
use crate::text::is_invisible;

/// Longest name, in characters.
const NAME_MAX: usize = 255;
/// Longest description, in characters.
const DESCRIPTION_MAX: usize = 4096;

/// `text` without blanks around it as the name of a `kind` of object.
pub(super) fn name(kind: &str, text: &str) -> Result<String> {
    let name = text.trim();
    if name.is_empty() {
        return invalid(format!("{kind} name must not be empty"));
    }
    optional_name(kind, name)
}

/// [`name`] of a group, which policy files can tell from a peer and from a resource.
pub(super) fn group_name(text: &str) -> Result<String> {
    let name = name("group", text)?;
    match not_a_group(&name) {
        Some(prefix) => invalid(format!(
            "group name must not begin with `{prefix}`: in a policy file, {name} is something else"
        )),
        None => Ok(name),
    }
}

/// As [`name`], and it may be empty.
pub(super) fn optional_name(kind: &str, text: &str) -> Result<String> {
    let name = text.trim();
    let length = name.chars().count();
    if length > NAME_MAX {
        return invalid(format!(
            "{kind} name must not be longer than {NAME_MAX} characters; it has {length}"
        ));
    }
    match name.chars().find(|char| is_invisible(*char)) {
        Some(char) => invalid(format!("{kind} name must not contain the control character {char:?}")),
        None => Ok(name.to_owned()),
    }
}

/// Refuses a description that is too long; it may have several lines.
pub(super) fn description(kind: &str, text: &str) -> Result<()> {
    let length = text.chars().count();
    if length > DESCRIPTION_MAX {
        return invalid(format!(
            "{kind} description must not be longer than {DESCRIPTION_MAX} characters; it has {length}"
        ));
    }
    match text.chars().find(|char| is_invisible(*char) && !matches!(char, '\n' | '\r' | '\t')) {
        Some(char) => invalid(format!("{kind} description must not contain the control character {char:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_bounded_and_free_of_control_characters() {
        assert_eq!(name("group", " Büro 7 ").unwrap(), "Büro 7");
        assert!(name("group", &"ü".repeat(NAME_MAX)).is_ok());
        for wrong in ["", " ", "a\u{0}b", "a\nb", "\u{1b}[31m", "abc\u{202e}"] {
            assert!(name("group", wrong).is_err(), "{wrong:?}");
        }
        assert!(name("group", &"x".repeat(NAME_MAX + 1)).unwrap_err().to_string().contains("255"));
        assert_eq!(optional_name("user", "").unwrap(), "");
    }

    #[test]
    fn names_of_groups_are_those_of_no_peer_and_no_resource() {
        assert_eq!(group_name("peers:a").unwrap(), "peers:a");
        for wrong in ["peer:a", " resource:web", ""] {
            assert!(group_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn descriptions_have_lines_and_an_end() {
        assert!(description("policy", "one\r\n\ttwo").is_ok());
        assert!(description("policy", &"x".repeat(DESCRIPTION_MAX + 1)).is_err());
        assert!(description("policy", "\u{1b}]0;title\u{7}").is_err());
    }
}
