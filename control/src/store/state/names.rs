//! What agents are told of names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluicegate_policy::model::Shared;

use super::super::sql::Connection;
use super::super::{NameserverGroup, Result, Settings, Zone, dns_settings, nameservers, zones};
use super::put;
use super::touched::Touched;

/// Zones, nameservers, and for whom they are. A copy shares what it does not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The zone of the peers' own names, in lower case.
    pub domain: String,
    /// Ids of the groups whose peers' DNS is not managed.
    pub unmanaged: Shared<BTreeSet<String>>,
    /// Zones by id, with those that are off.
    pub zones: Shared<BTreeMap<String, Arc<Zone>>>,
    /// Nameserver groups by id, with those that are off.
    pub nameservers: Shared<BTreeMap<String, Arc<NameserverGroup>>>,
}

impl Names {
    /// Reads all of it but for what the account's settings say.
    pub(super) async fn load(db: &mut Connection, settings: &Settings) -> Result<Self> {
        let zones = zones::all(db).await?.into_iter().map(|zone| (zone.id.clone(), Arc::new(zone)));
        let nameservers =
            nameservers::all(db).await?.into_iter().map(|group| (group.id.clone(), Arc::new(group)));
        Ok(Self {
            domain: domain(settings),
            unmanaged: dns_settings::disabled(db).await?.into(),
            zones: zones.collect(),
            nameservers: nameservers.collect(),
        })
    }

    /// Reads what was touched.
    pub(super) async fn follow(
        &mut self,
        touched: &Touched,
        settings: &Settings,
        db: &mut Connection,
    ) -> Result<()> {
        self.domain = domain(settings);
        for id in &touched.zones {
            put(&mut self.zones, id, zones::find(db, id).await?.map(Arc::new));
        }
        for id in &touched.nameservers {
            put(&mut self.nameservers, id, nameservers::find(db, id).await?.map(Arc::new));
        }
        if !touched.unmanaged.is_empty() {
            let unmanaged = dns_settings::disabled(db).await?;
            if *self.unmanaged != unmanaged {
                self.unmanaged = unmanaged.into();
            }
        }
        Ok(())
    }
}

fn domain(settings: &Settings) -> String {
    settings.dns_domain().to_ascii_lowercase()
}
