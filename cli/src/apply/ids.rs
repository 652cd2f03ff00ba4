//! Names to ids while writing: those control has, and those that come with each creation.

use std::collections::BTreeMap;

use crate::apply::current::Current;
use crate::rest::Reference;

/// Ids by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids {
    pub(crate) peers: BTreeMap<String, String>,
    pub(crate) groups: BTreeMap<String, String>,
    pub(crate) networks: BTreeMap<String, String>,
    pub(crate) resources: BTreeMap<String, Reference>,
}

impl Ids {
    /// What is known before the first write. Names that stand for several objects were refused by the plan if the file
    /// uses them.
    pub(crate) fn of(current: &Current) -> Self {
        Ids {
            peers: current.peers.iter().map(|p| (p.name.clone(), p.id.clone())).collect(),
            groups: current.groups.iter().map(|g| (g.name.clone(), g.id.clone())).collect(),
            networks: current
                .networks
                .iter()
                .map(|n| (n.network.name.clone(), n.network.id.clone()))
                .collect(),
            resources: current.resources().map(|(_, r)| (r.name.clone(), r.reference())).collect(),
        }
    }
}
