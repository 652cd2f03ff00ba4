//! A datapath that remembers what it was told and refuses on demand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate_api::image::Image;

use super::check::{WORDS, too_large};
use super::*;

/// What the fake was told, shared with the test; and the ways out.
#[derive(Clone, Default)]
pub(crate) struct FakeDatapath(pub(crate) Arc<Mutex<Told>>, Vec<Egress>);

#[derive(Default)]
pub(crate) struct Told {
    pub(crate) in_force: Option<InForce>,
    pub(crate) images: Vec<(u64, Image)>,
    pub(crate) overlay: Option<(ipnet::Ipv4Net, ipnet::Ipv6Net)>,
    pub(crate) egress: Vec<Egress>,
    pub(crate) deadlines: Vec<Option<Duration>>,
    pub(crate) refuse_above: Option<u64>,
    pub(crate) events: Vec<Event>,
}

impl Datapath for FakeDatapath {
    fn kind(&self) -> Kind {
        Kind::Userspace
    }

    fn in_force(&self) -> Option<InForce> {
        self.0.lock().unwrap().in_force
    }

    fn put(&mut self, revision: u64, hash: Hash, image: &Image, ways: &[Egress]) -> Result<(), ApplyError> {
        let mut told = self.0.lock().unwrap();
        let needed = image.words.len() as u64;
        if let Some(capacity) = told.refuse_above.filter(|c| needed > *c) {
            return Err(too_large(WORDS, needed, capacity));
        }
        if let Some(now) = told.in_force.filter(|now| now.revision >= revision) {
            return Err(ApplyError::Stale { offered: revision, in_force: now.revision });
        }
        told.in_force = Some(InForce { revision, hash });
        told.images.push((revision, image.clone()));
        told.egress = ways.to_vec();
        drop(told);
        self.1 = ways.to_vec();
        Ok(())
    }

    fn set_overlay(&mut self, v4: ipnet::Ipv4Net, v6: ipnet::Ipv6Net) -> anyhow::Result<()> {
        self.0.lock().unwrap().overlay = Some((v4, v6));
        Ok(())
    }

    fn set_egress(&mut self, routes: &[Egress]) -> anyhow::Result<()> {
        self.0.lock().unwrap().egress = routes.to_vec();
        self.1 = routes.to_vec();
        Ok(())
    }

    fn egress(&self) -> &[Egress] {
        &self.1
    }

    fn set_deadline(&mut self, after: Option<Duration>) -> anyhow::Result<()> {
        self.0.lock().unwrap().deadlines.push(after);
        Ok(())
    }

    fn counters(&mut self) -> anyhow::Result<Counters> {
        Ok(Counters::default())
    }

    fn sweep(&mut self) -> anyhow::Result<Vec<FlowRecord>> {
        Ok(Vec::new())
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap().events)
    }

    fn set_capture(&mut self, _: Option<Filter>) -> anyhow::Result<()> {
        Ok(())
    }

    fn captured(&mut self) -> (Vec<Captured>, u64) {
        (Vec::new(), 0)
    }

    fn live(&mut self) -> anyhow::Result<Box<dyn Live + '_>> {
        anyhow::bail!("the fake has no tables")
    }

    fn degraded(&self) -> Vec<String> {
        Vec::new()
    }
}
