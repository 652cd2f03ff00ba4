//! The policy file: groups, posture checks, networks and policies as YAML, everything by name.
//!
//! ```yaml
#![doc = include_str!("three-tier.yml")]
//! ```
//!
//! | where | field | meaning |
//! |---|---|---|
//! | group | `name` | required; a group that does not exist is created |
//! | | `peers` | names of exactly its peers; absent leaves them alone |
//! | posture check | `name`, `description` | what is not under it is not asked for; without the section `posture_checks`, all stay as they are |
//! | | `client_version` | least version of the agent |
//! | | `os_version` | least version by system: `android`, `darwin`, `ios`, `linux`, `windows` |
//! | | `geo_location` | `allow` or `deny`: countries (`DE`) and cities (`DE/Berlin`) |
//! | | `network_range` | `allow` or `deny`: prefixes |
//! | | `processes` | what must run: `linux_path`, `mac_path`, `windows_path` |
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
//! | | `break_glass` | `{max: 4h}`: off until it is turned on for a time, no longer than this |
//! | | `posture_checks` | names of posture checks its sources must pass |
//! | | `rules` | required, at least one |
//! | rule | `from`, `to` | required: a group, a list of groups, `peer:NAME`, or (only in `to`) `resource:NAME` |
//! | | `service` | required: `all`, `icmp`, `tcp`, `udp`, `tcp/443`, `udp/53,5353`, `tcp/8000-8999`; see [`crate::service::parse`] |
//! | | `action` | `accept` (default) or `drop`; drop beats accept |
//! | | `bidirectional` | default false; always so between peers for `all`, `icmp`, and `tcp` or `udp` without ports |
//! | | `ssh_users` | not supported, as nothing could limit logins: only what an earlier version stored may stay ([`unserved`]) |
//! | | `name`, `description`, `enabled` | a rule without a name is named after its policy |
//! | test | `name`, `from` | groups, each of whose peers is asked about, or `peer:NAME` |
//! | | `may_reach`, `may_not_reach` | lists of `WHERE SERVICE`: `resource:web tcp/443`, `10.20.0.10 icmp`, `peer:db tcp`, or a group |
//!
//! Unknown fields are refused. This module reads, checks, compares and writes files; carrying one out is control's work.
//! The table is published as a JSON Schema ([`schema`]) for editors.

mod alone;
mod check;
mod comments;
mod diff;
mod names;
mod posture;
mod unserved;
mod words;
mod write;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::model::{Action, Service};
use crate::posture::Checks;
pub use alone::{Alone, TooMany};
pub use comments::{FormatError, format};
pub use diff::{Change, Doing, Item, Prune, differences};
pub use names::{Known, problem_at, unknown_names};
pub use unserved::{NO_LOGINS, limited, unserved};
pub use words::{duration_text, merged, parse_duration, plain_address};
pub use write::write;

/// The three-tier example of this module's documentation.
pub const THREE_TIER: &str = include_str!("three-tier.yml");

/// Reads a policy file. The error lists everything that is wrong, or the one thing that kept it from being read at all.
pub fn parse(text: &str) -> Result<PolicyFile, FileError> {
    let document = yaml::read(text)?;
    check::check(document)
}

/// With what a name begins that stands for something else than a group in a file, if it does.
pub fn not_a_group(name: &str) -> Option<&'static str> {
    ["peer:", "resource:"].into_iter().find(|prefix| name.starts_with(prefix))
}

/// The JSON Schema of policy files (draft 2020-12), as text that ends with a line break.
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(yaml::Document);
    schema.insert("title".to_owned(), "Sluicegate policy file".into());
    // Only maps with keys that are no text fail to serialise.
    let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text + "\n"
}

/// A policy file that was read and makes sense by itself; whether the names it uses exist is not known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFile {
    /// Groups, in order; names are unique.
    pub groups: Vec<Group>,
    /// Posture checks, in order, with unique names; `None` says nothing of them: they stay as they are, and none goes.
    pub posture_checks: Option<Vec<PostureCheck>>,
    /// Networks, in order; names are unique, and those of resources across all networks.
    pub networks: Vec<Network>,
    /// Policies, in order; names are unique.
    pub policies: Vec<Policy>,
    /// What must be so; names are unique.
    pub tests: Vec<Test>,
}

/// A group to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Names of exactly its peers; `None` leaves them alone.
    pub peers: Option<Vec<String>>,
}

/// A posture check to be there: exactly these checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostureCheck {
    /// Name.
    pub name: String,
    /// What it is for; `None` leaves what is there.
    pub description: Option<String>,
    /// What is asked of a machine, in the form of [`Checks::validated`].
    pub checks: Checks,
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
    /// Whether it counts; false for a break-glass policy, whose switch is no matter of files.
    pub enabled: bool,
    /// For a break-glass policy, the longest time it may be on at once, in seconds.
    pub break_glass: Option<u32>,
    /// Names of posture checks; `None` leaves what is there.
    pub posture_checks: Option<Vec<String>>,
    /// The rules, in order.
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
    /// Which packets, [`merged`].
    pub service: Service,
    /// For protocol `netbird-ssh`: empty, or the local users that an earlier version stored for each source group, and that limit
    /// nobody.
    pub ssh: Option<BTreeMap<String, Vec<String>>>,
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

/// What must be so once a file is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// What it shows.
    pub name: String,
    /// Who is asked about: groups, or one peer.
    pub from: End,
    /// What each of them must reach.
    pub may_reach: Vec<Claim>,
    /// What none of them may reach.
    pub may_not_reach: Vec<Claim>,
}

/// A destination of a test, and the packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Where to.
    pub to: Target,
    /// Which packets: all of them are meant.
    pub service: Service,
}

/// A destination of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every peer and resource of the group of this name.
    Group(String),
    /// The peer of this name, by both of its addresses.
    Peer(String),
    /// The resource of this name, every address of it.
    Resource(String),
    /// One address.
    Address(IpAddr),
}

impl fmt::Display for Claim {
    /// As it stands in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Target::Group(name) => f.write_str(name)?,
            Target::Peer(name) => write!(f, "peer:{name}")?,
            Target::Resource(name) => write!(f, "resource:{name}")?,
            Target::Address(address) => write!(f, "{address}")?,
        }
        write!(f, " {}", self.service)
    }
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
