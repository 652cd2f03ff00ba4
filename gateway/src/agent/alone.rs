//! An agent's images alone, without overlay and control: what measuring them takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sluicegate_api::agent::{Acknowledgement, Delta, Snapshot};
use sluicegate_api::image::RouteInfo;

use super::policy::Policy;
use super::store::Store;
use crate::datapath::{Datapath, Egress};

/// Puts images in force and remembers them, exactly as an agent does. Their routes lead nowhere.
pub struct Images {
    policy: Policy,
    datapath: Box<dyn Datapath>,
}

impl Images {
    /// Takes up what is remembered in `state_dir`, which exists.
    pub fn start(state_dir: &Path, mut datapath: Box<dyn Datapath>) -> Self {
        let store = Arc::new(Store::new(state_dir));
        let policy = Policy::start(store, datapath.as_mut(), &mut nowhere);
        Self { policy, datapath }
    }

    /// Takes a whole image from control.
    pub fn snapshot(&mut self, snapshot: &Snapshot) -> Acknowledgement {
        self.policy.snapshot(self.datapath.as_mut(), snapshot, None, &mut nowhere).acknowledgement
    }

    /// Takes a change from control.
    pub fn delta(&mut self, delta: &Delta) -> Acknowledgement {
        self.policy.delta(self.datapath.as_mut(), delta, None, &mut nowhere).acknowledgement
    }
}

fn nowhere(_: &BTreeMap<u32, RouteInfo>) -> anyhow::Result<Vec<Egress>> {
    Ok(Vec::new())
}
