//! The policy file as YAML has it: fields and types, each text with its place.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_saphyr::{DefaultMessageFormatter, Location, MessageFormatter, Spanned};

use super::{FileError, Problem};

pub(super) fn read(text: &str) -> Result<Document, FileError> {
    serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |l| (l.line(), l.column()));
        let message = DefaultMessageFormatter.format_message(error.without_snippet()).into_owned();
        FileError { problems: vec![Problem { line, column, message }] }
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(default)]
    pub(super) groups: Vec<Group>,
    #[serde(default)]
    pub(super) networks: Vec<Network>,
    #[serde(default)]
    pub(super) policies: Vec<Policy>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) name: Spanned<String>,
    pub(super) peers: Option<Names>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub(super) name: Spanned<String>,
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) resources: Vec<Resource>,
    #[serde(default)]
    pub(super) routers: Vec<Spanned<Router>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resource {
    pub(super) name: Spanned<String>,
    pub(super) description: Option<String>,
    pub(super) address: Spanned<String>,
    pub(super) groups: Option<Names>,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Router {
    pub(super) peer: Option<Spanned<String>>,
    pub(super) groups: Option<Names>,
    pub(super) metric: Option<Spanned<u64>>,
    #[serde(default = "yes")]
    pub(super) masquerade: bool,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) name: Spanned<String>,
    pub(super) description: Option<String>,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    pub(super) posture_checks: Option<Names>,
    pub(super) rules: Vec<Spanned<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) name: Option<Spanned<String>>,
    pub(super) description: Option<String>,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    #[serde(default = "accept")]
    pub(super) action: crate::model::Action,
    #[serde(default)]
    pub(super) bidirectional: bool,
    pub(super) service: Spanned<String>,
    pub(super) from: Spanned<Names>,
    pub(super) to: Spanned<Names>,
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

fn yes() -> bool {
    true
}

fn accept() -> crate::model::Action {
    crate::model::Action::Accept
}
