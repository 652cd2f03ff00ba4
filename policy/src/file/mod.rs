//! The policy file: groups, networks and policies as YAML, everything by name.
//!
//! ```yaml
#![doc = include_str!("three-tier.yml")]
//! ```
//!
//! | where | field | meaning |
//! |---|---|---|
//! | group | `name` | required; a group that does not exist is created |
//! | | `peers` | names of exactly its peers; absent leaves them alone |
//! | network | `name`, `description` | |
//! | | `resources`, `routers` | lists |
//! | resource | `name`, `description` | names are unique in the file |
//! | | `address` | required: an address, a prefix, a domain or a wildcard domain (`*.example.com`) |
//! | | `groups` | one group or a list of those it is in; absent leaves them alone |
//! | | `enabled` | default true |
//! | router | `peer` or `groups` | required, one of both: who routes |
//! | | `metric` | 1 to 9999, default 9999; the lowest live one carries the traffic |
//! | | `masquerade`, `enabled` | default true |
//! | policy | `name`, `description`, `enabled` | enabled by default |
//! | | `posture_checks` | names of posture checks its sources must pass |
//! | | `rules` | required, at least one |
//! | rule | `from`, `to` | required: a group, a list of groups, `peer:NAME`, or (only in `to`) `resource:NAME` |
//! | | `service` | required: `all`, `icmp`, `tcp`, `udp`, `tcp/443`, `udp/53,5353`, `tcp/8000-8999`; see [`crate::service::parse`] |
//! | | `action` | `accept` (default) or `drop`; drop beats accept |
//! | | `bidirectional` | default false; always so between peers for `all`, `icmp`, and `tcp` or `udp` without ports |
//! | | `name`, `description`, `enabled` | a rule without a name is named after its policy |
//!
//! Unknown fields are refused. This module reads and checks; writing to control is the command line's work.

mod check;
mod yaml;

use std::fmt;

use crate::model::{Action, Service};

/// The three-tier example of this module's documentation.
pub const THREE_TIER: &str = include_str!("three-tier.yml");

/// Reads a policy file. The error lists everything that is wrong, or the one thing that kept it from being read at all.
pub fn parse(text: &str) -> Result<PolicyFile, FileError> {
    let document = yaml::read(text)?;
    check::check(document)
}

/// A policy file that was read and makes sense by itself; whether the names it uses exist is not known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFile {
    /// Groups, in order; names are unique.
    pub groups: Vec<Group>,
    /// Networks, in order; names are unique, and those of resources across all networks.
    pub networks: Vec<Network>,
    /// Policies, in order; names are unique.
    pub policies: Vec<Policy>,
}

/// A group to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Names of exactly its peers; `None` leaves them alone.
    pub peers: Option<Vec<String>>,
}

/// A network to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Name.
    pub name: String,
    /// What it is; `None` leaves what is there.
    pub description: Option<String>,
    /// What is behind its routers.
    pub resources: Vec<Resource>,
    /// Who reaches it.
    pub routers: Vec<Router>,
}

/// A resource of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Name.
    pub name: String,
    /// What it is; `None` leaves what is there.
    pub description: Option<String>,
    /// An address, a prefix, a domain or a wildcard domain, as written.
    pub address: String,
    /// Names of exactly the groups it is in; `None` leaves them alone.
    pub groups: Option<Vec<String>>,
    /// Whether it counts.
    pub enabled: bool,
}

/// A router of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Who routes.
    pub via: Via,
    /// 1 to 9999, lower is better.
    pub metric: u16,
    /// Whether the source becomes the router's address.
    pub masquerade: bool,
    /// Whether it counts.
    pub enabled: bool,
}

/// Who routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// The peer of this name.
    Peer(String),
    /// Every member of the groups of these names.
    Groups(Vec<String>),
}

/// A policy; its rules are exactly these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Name.
    pub name: String,
    /// What it is for; `None` leaves what is there.
    pub description: Option<String>,
    /// Whether it counts.
    pub enabled: bool,
    /// Names of posture checks; `None` leaves what is there.
    pub posture_checks: Option<Vec<String>>,
    /// The rules, in order; names are unique in the policy.
    pub rules: Vec<Rule>,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name.
    pub name: String,
    /// What it is for; `None` leaves what is there.
    pub description: Option<String>,
    /// Whether it counts.
    pub enabled: bool,
    /// Accept or drop.
    pub action: Action,
    /// Whether the mirror image is admitted as well.
    pub bidirectional: bool,
    /// Which packets.
    pub service: Service,
    /// Where flows come from: never a resource.
    pub from: End,
    /// Where they go.
    pub to: End,
}

/// One end of a rule, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Members of groups; at least one.
    Groups(Vec<String>),
    /// One peer.
    Peer(String),
    /// One resource.
    Resource(String),
}

/// Everything that is wrong with a policy file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 when not known.
    pub line: u64,
    /// Column in characters, from 1; 0 when not known.
    pub column: u64,
    /// What, and what to write instead.
    pub message: String,
}

impl std::error::Error for FileError {}

impl fmt::Display for FileError {
    /// One problem a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "\n" })?;
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        f.write_str(&self.message)
    }
}
