//! Settings and fields of NetBird's that nothing here could honour: what they are, and why they cannot be turned on.

use sluicegate_policy::file::NO_LOGINS;

use super::error::invalid;
use super::{Result, RuleSpec, Settings};

/// A setting of which only one value is so.
struct Unserved {
    name: &'static str,
    /// Whether it says what is so.
    is_so: fn(&Settings) -> bool,
    /// Whether two settings agree in it.
    same: fn(&Settings, &Settings) -> bool,
    /// What is so, and what to do instead.
    why: &'static str,
}

/// The setting's field compared with what is so.
macro_rules! unserved {
    ($($field:ident: $so:expr, $why:literal;)*) => {
        [$(Unserved {
            name: stringify!($field),
            is_so: |settings| settings.$field == $so,
            same: |a, b| a.$field == b.$field,
            why: $why,
        }),*]
    };
}

const UNSERVED: [Unserved; 7] = unserved! {
    lazy_connection_enabled: false, "agents keep a tunnel to every peer that they may reach, so that the first packet waits for \
        nothing; leave it false";
    auto_update_version: "disabled", "agents are updated by the package manager of their machine, not by control; leave it \
        \"disabled\"";
    auto_update_always: false, "agents are updated by the package manager of their machine, not by control; leave it false";
    peer_expose_enabled: false, "there is no reverse proxy that could expose a peer's service; make it a resource of a network, \
        and a policy that permits it";
    peer_expose_groups: Vec::<String>::new(), "there is no reverse proxy that could expose a peer's service; leave it empty";
    metrics_push_enabled: false, "agents push no metrics to anybody; fetch them from the agent's /metrics, and leave this false";
    agent_network_only: false, "there is no dashboard here that could be limited; leave it false";
};

/// Refuses a change to what would be stored, shown, and have no effect. What an earlier version stored may stay.
pub(super) fn refuse(before: &Settings, after: &Settings) -> Result<()> {
    match UNSERVED.iter().find(|one| !(one.is_so)(after) && !(one.same)(before, after)) {
        Some(Unserved { name, why, .. }) => invalid(format!("{name} is not supported: {why}")),
        None => Ok(()),
    }
}

/// Refuses that a rule be limited to local users of the machine it leads to, unless `stored`, which it replaces, says the same.
pub(super) fn refuse_logins(rule: &RuleSpec, stored: Option<&RuleSpec>) -> Result<()> {
    let same = stored.is_some_and(|stored| stored.authorized_groups == rule.authorized_groups);
    if rule.authorized_groups.is_empty() || same {
        return Ok(());
    }
    invalid(format!("rule {}: authorized_groups is not supported: {NO_LOGINS}", rule.name))
}

/// Refuses that a peer be given an SSH server.
pub(super) fn refuse_ssh(before: bool, after: bool) -> Result<()> {
    if !after || before {
        return Ok(());
    }
    invalid(
        "ssh_enabled is not supported: agents have no SSH server of their own; leave it false, and permit TCP port 22 to the \
         machine's own",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_stored_may_stay_and_go_and_not_change() {
        let (so, mut stored) = (Settings::default(), Settings::default());
        stored.lazy_connection_enabled = true;
        stored.auto_update_version = "0.50.1".into();
        stored.peer_expose_groups = vec!["g".into()];
        refuse(&stored, &stored).unwrap();
        refuse(&stored, &so).unwrap();
        refuse(&so, &so).unwrap();
        let why = refuse(&so, &stored).unwrap_err().to_string();
        assert!(why.contains("lazy_connection_enabled is not supported"), "{why}");
        let mut other = stored.clone();
        other.auto_update_version = "0.50.2".into();
        let why = refuse(&stored, &other).unwrap_err().to_string();
        assert!(why.contains("auto_update_version is not supported"), "{why}");
        // In what has an effect, the rest may change.
        other = Settings { dns_domain: "corp.example".into(), ..stored.clone() };
        refuse(&stored, &other).unwrap();
    }
}
