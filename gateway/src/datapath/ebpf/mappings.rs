//! The agent's part in endpoint-independent mapping: a flow that lives keeps its port, though nothing is written when it
//! carries a packet.

use std::collections::HashMap;
use std::hash::Hash;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{HashMap as BpfMap, Map, MapData};
use sluicegate_engine::family::Family;
use sluicegate_engine::flow::Key;
use sluicegate_engine::mapping::{Mapping, MappingKey, keys_of};
use sluicegate_engine::packet::protocol;

use super::pod::Raw;
use super::sys;
use crate::datapath::FlowRecord;

/// The mappings of one family.
pub(super) struct MappingMaps<F: Family> {
    map: Map,
    family: PhantomData<F>,
}

type Entries<M, F> = BpfMap<M, Raw<KeyOf<F>>, Raw<Mapping<<F as Family>::Address>>>;
type KeyOf<F> = MappingKey<<F as Family>::Address>;

impl<F: Family> MappingMaps<F>
where
    F::Address: Hash,
{
    /// Takes the map called `name`.
    pub(super) fn new(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Self> {
        let map = ebpf.take_map(name).with_context(|| format!("the object lacks map {name}"))?;
        Ok(Self { map, family: PhantomData })
    }

    /// Notes what the flows of `live` use. A mapping lasts a quarter longer than a flow, so it is written only when it is a
    /// quarter of `lifetime` behind; one that is missing, after a start of the agent, is made. Ticks.
    pub(super) fn note(
        &mut self,
        live: &[FlowRecord],
        address: impl Fn(IpAddr) -> Option<F::Address>,
        now: u32,
        hz: u32,
        lifetime: u32,
    ) -> anyhow::Result<()> {
        let there: HashMap<MappingKey<F::Address>, Mapping<F::Address>> =
            sys::entries(self.data()?.fd().as_fd(), 4096)
                .context("the port mappings could not be read")?
                .into_iter()
                .collect();
        let mut entries: Entries<&mut MapData, F> = (&mut self.map).try_into()?;
        for flow in live.iter().filter(|flow| flow.protocol == protocol::UDP) {
            let Some((gateway, port)) = flow.translated else { continue };
            let (Some(owner), Some(gateway)) = (address(flow.source), address(gateway)) else { continue };
            let idle = (flow.idle.as_millis() as u64 * u64::from(hz) / 1000) as u32;
            let last_used = now.wrapping_sub(idle);
            let key = Key {
                source: owner,
                source_port: flow.source_port,
                protocol: flow.protocol,
                ..Key::default()
            };
            let mapping = Mapping { owner, last_used, source_port: flow.source_port, port };
            for key in keys_of(&key, gateway, port) {
                if is_due(there.get(&key), &mapping, lifetime) {
                    let written = entries.insert(Raw(key), Raw(mapping), 0);
                    written.context("a port mapping could not be written")?;
                }
            }
        }
        Ok(())
    }

    /// One entry; looking does not make it more recently used.
    pub(super) fn get(&self, key: &KeyOf<F>) -> Option<Mapping<F::Address>> {
        let map: Entries<&MapData, F> = (&self.map).try_into().ok()?;
        map.get(&Raw(*key), 0).ok().map(|mapping| mapping.0)
    }

    fn data(&self) -> anyhow::Result<&MapData> {
        match &self.map {
            Map::LruHashMap(data) => Ok(data),
            _ => anyhow::bail!("the map of port mappings is of another kind"),
        }
    }
}

/// Whether `used` is news: of a mapping that is not there, or is the same and older by a quarter of `lifetime`.
fn is_due<A: PartialEq>(there: Option<&Mapping<A>>, used: &Mapping<A>, lifetime: u32) -> bool {
    let Some(there) = there else { return true };
    let same = there.owner == used.owner && (there.source_port, there.port) == (used.source_port, used.port);
    same && used.last_used.wrapping_sub(there.last_used) as i32 > (lifetime / 4) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_is_written() {
        let at = |last_used| Mapping { owner: 5u32, last_used, source_port: 4000, port: 20_000 };
        assert!(is_due(None, &at(100), 120));
        assert!(!is_due(Some(&at(100)), &at(130), 120));
        assert!(is_due(Some(&at(100)), &at(131), 120));
        assert!(!is_due(Some(&at(131)), &at(100), 120));
        assert!(is_due(Some(&at(u32::MAX - 20)), &at(20), 120));
        let anothers = Mapping { owner: 6, ..at(0) };
        assert!(!is_due(Some(&anothers), &at(1000), 120));
    }
}
