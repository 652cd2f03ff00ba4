//! The policy file as YAML has it: fields and types, each text with its place. The published JSON Schema comes from here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_saphyr::{DefaultMessageFormatter, Location, MessageFormatter, Spanned};

use super::posture::Definition;
use super::{FileError, Problem};

/// As many nodes as a text of this length can have at most are read: whoever takes a text bounds its length.
pub(super) fn options(text: &str) -> serde_saphyr::Options {
    let usual = serde_saphyr::Budget::default();
    let nodes = usual.max_nodes.max(text.len());
    let events = usual.max_events.max(text.len().saturating_mul(2));
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: nodes, max_events: events },
    }
}

pub(super) fn read(text: &str) -> Result<Document, FileError> {
    serde_saphyr::from_str_with_options(text, options(text)).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |l| (l.line(), l.column()));
        FileError { problems: vec![Problem { line, column, message: message(error.without_snippet()) }] }
    })
}

fn message(error: &serde_saphyr::Error) -> String {
    let (what, word, known) = match error {
        serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => ("field", field, expected),
        serde_saphyr::Error::SerdeUnknownVariant { variant, expected, .. } => ("value", variant, expected),
        other => return DefaultMessageFormatter.format_message(other).into_owned(),
    };
    let meant = nearest(word, known).map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
    format!("unknown {what} `{word}`{meant} (known here: {})", known.join(", "))
}

/// The known word that a person most likely meant.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_lowercase().replace('-', "_");
    let likeness = |near: &&'a str| (strsim::jaro_winkler(&lower, near) * 1000.0) as u32;
    known.iter().copied().max_by_key(likeness).filter(|near| likeness(near) >= 750)
}

/// A policy file of Sluicegate: groups, posture checks, networks, policies and tests, everything by name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PolicyFile")]
pub(super) struct Document {
    /// Named sets of peers; one that does not exist is created.
    #[serde(default)]
    pub(super) groups: Vec<Group>,
    /// What is asked of machines before policies that name it count them among their sources. Left out, posture checks stay as they
    /// are, and none is deleted.
    pub(super) posture_checks: Option<Vec<Definition>>,
    /// Resources and the routers that reach them.
    #[serde(default)]
    pub(super) networks: Vec<Network>,
    /// Who may reach what.
    #[serde(default)]
    pub(super) policies: Vec<Policy>,
    /// Who must and must not reach what once the file is applied; a file whose tests fail is not applied.
    #[serde(default)]
    pub(super) tests: Vec<Test>,
}

/// A group of peers and resources.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    /// Its name, unique.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// Names of exactly its peers; left out, they stay as they are.
    pub(super) peers: Option<Names>,
}

/// Resources and the routers that reach them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    /// Its name, unique.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// What it is.
    pub(super) description: Option<String>,
    /// What is behind its routers.
    #[serde(default)]
    pub(super) resources: Vec<Resource>,
    /// Who reaches it.
    #[serde(default)]
    #[schemars(with = "Vec<Router>")]
    pub(super) routers: Vec<Spanned<Router>>,
}

/// A destination behind routers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resource {
    /// Its name, unique in the file.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// What it is.
    pub(super) description: Option<String>,
    /// An address, a prefix, a domain or a wildcard domain such as *.example.com.
    #[schemars(with = "String")]
    pub(super) address: Spanned<String>,
    /// The groups it is in; left out, they stay as they are.
    pub(super) groups: Option<Names>,
    /// Whether it counts.
    #[serde(default = "yes")]
    pub(super) enabled: bool,
}

/// A peer, or the members of groups, that reach the network.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Router {
    /// The peer that routes; either this or groups.
    #[schemars(with = "Option<String>")]
    pub(super) peer: Option<Spanned<String>>,
    /// The groups whose peers route.
    pub(super) groups: Option<Names>,
    /// 1 to 9999, default 9999; the lowest live one carries the traffic.
    #[schemars(with = "Option<u16>", range(min = 1, max = 9999))]
    pub(super) metric: Option<Spanned<u64>>,
    /// Whether the source becomes the router's address.
    #[serde(default = "yes")]
    pub(super) masquerade: bool,
    /// Whether it counts.
    #[serde(default = "yes")]
    pub(super) enabled: bool,
}

/// Rules under one name and one switch.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    /// Its name, unique.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// What it is for.
    pub(super) description: Option<String>,
    /// Whether it counts; default true. Not for a break-glass policy, which is off until somebody turns it on.
    #[schemars(with = "Option<bool>")]
    pub(super) enabled: Option<Spanned<bool>>,
    /// Makes it a break-glass policy: off, and on for a time with `sluice policy break-glass on`.
    pub(super) break_glass: Option<BreakGlass>,
    /// Names of posture checks its sources must pass; left out, they stay as they are.
    pub(super) posture_checks: Option<Names>,
    /// Its rules, in order; exactly these.
    #[schemars(with = "Vec<Rule>", length(min = 1))]
    pub(super) rules: Vec<Spanned<Rule>>,
}

/// How a break-glass policy may be used.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BreakGlass {
    /// The longest time it may be on at once, such as 30m or 4h, at most 7d.
    #[schemars(with = "String", regex(pattern = r"^[0-9]+[smhd]$"))]
    pub(super) max: Spanned<String>,
}

/// One line of a policy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Its name; default the policy's.
    #[schemars(with = "Option<String>")]
    pub(super) name: Option<Spanned<String>>,
    /// What it is for.
    pub(super) description: Option<String>,
    /// Whether it counts.
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    /// Accept or drop; drop beats accept.
    #[serde(default = "accept")]
    #[schemars(with = "Action")]
    pub(super) action: crate::model::Action,
    /// Whether the mirror image is admitted as well; always so between peers for all, icmp, and tcp or udp without ports.
    #[serde(default)]
    pub(super) bidirectional: bool,
    /// all, icmp, tcp, udp, tcp/443, udp/53,5353, tcp/8000-8999, netbird-ssh/22.
    #[schemars(
        with = "String",
        regex(
            pattern = r"^(all|icmp|(tcp|udp)(/[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?|netbird-ssh/[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)$"
        )
    )]
    pub(super) service: Spanned<String>,
    /// Not supported: nothing limits a rule to local users. Only what an earlier version stored may stay.
    #[schemars(extend("deprecated" = true))]
    pub(super) ssh_users: Option<BTreeMap<String, Vec<String>>>,
    /// A group, a list of groups, or peer:NAME.
    #[schemars(with = "Names")]
    pub(super) from: Spanned<Names>,
    /// A group, a list of groups, peer:NAME or resource:NAME.
    #[schemars(with = "Names")]
    pub(super) to: Spanned<Names>,
}

/// What a rule says about the packets it matches.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "stands for model::Action in the schema")]
enum Action {
    /// Admit the flow.
    Accept,
    /// Refuse it, whatever any accept rule says.
    Drop,
}

/// What must be so once the file is applied. Judged for IPv4 and IPv6, with every posture check passed and every
/// break-glass policy off.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    /// What it shows, unique.
    #[schemars(with = "String")]
    pub(super) name: Spanned<String>,
    /// Groups, each of whose peers is asked about, or peer:NAME.
    #[schemars(with = "Names")]
    pub(super) from: Spanned<Names>,
    /// What each of them must reach: WHERE SERVICE, such as `resource:web tcp/443`, `10.20.0.10 icmp`, `peer:db tcp/5432`,
    /// or a group for each of its members.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) may_reach: Vec<Spanned<String>>,
    /// What none of them may reach, by whichever router could carry it.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) may_not_reach: Vec<Spanned<String>>,
}

/// One name, or a list of names.
#[derive(Debug)]
pub(super) struct Names(pub(super) Vec<(String, Option<Location>)>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Names, E> {
                Ok(Names(vec![(name.to_owned(), None)]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element::<Spanned<String>>()? {
                    names.push((name.value, Some(name.referenced)));
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl JsonSchema for Names {
    fn schema_name() -> Cow<'static, str> {
        "Names".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A name or a list of names.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        })
    }
}

fn yes() -> bool {
    true
}

fn accept() -> crate::model::Action {
    crate::model::Action::Accept
}
