//! Differences, said so that a person sees what changes.

use sluicegate_policy::model::Action;

/// The API's word for an action.
pub(crate) fn action_word(action: Action) -> &'static str {
    match action {
        Action::Accept => "accept",
        Action::Drop => "drop",
    }
}

/// Notes a difference when the file says something and control has something else.
pub(super) fn differs(changes: &mut Vec<String>, what: &str, has: Option<&str>, wants: Option<&str>) {
    let (Some(has), Some(wants)) = (has, wants) else { return };
    if has != wants {
        let shown = |text: &str| if text.is_empty() { "nothing".to_owned() } else { text.to_owned() };
        changes.push(format!("{what}: {} -> {}", shown(has), shown(wants)));
    }
}

pub(super) fn switched(changes: &mut Vec<String>, of: &str, has: bool, wants: bool) {
    if has != wants {
        changes.push(format!("{of}switched {}", if wants { "on" } else { "off" }));
    }
}
