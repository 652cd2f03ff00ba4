//! What routers say that names stand for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use sluicegate_api::agent::{Learned, LearnedAddress};
use tonic::Status;

use super::{AgentService, store_status};
use crate::store;

/// Of so many addresses that were not taken the log says why.
const TOLD: usize = 8;

impl AgentService {
    /// Takes in what a router says of the names it is to look up. It says so again before long: what is not heard for once is not lost.
    pub(super) async fn hear_names(&self, peer: &str, said: Learned) -> Result<(), Status> {
        let said = said.addresses.into_iter().map(address).collect::<Option<_>>();
        let said =
            said.ok_or_else(|| Status::invalid_argument("an address of a name is of neither family"))?;
        let may_change = || self.names.admits(peer, Instant::now());
        let Some(noted) = self.store.note_learned(peer, &said, may_change).await.map_err(store_status)?
        else {
            tracing::warn!(
                peer,
                "what names stand for changes too often at this router; for now it is not heard"
            );
            return Ok(());
        };
        if !noted.refused.is_empty() {
            let told = noted.refused.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("; ");
            tracing::warn!(peer, refused = noted.refused.len(), "addresses of names were not taken: {told}");
        }
        Ok(())
    }
}

fn address(said: LearnedAddress) -> Option<store::Learned> {
    let address: IpAddr = match <[u8; 4]>::try_from(&said.address[..]) {
        Ok(v4) => Ipv4Addr::from(v4).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(&said.address[..]).ok()?).into(),
    };
    Some(store::Learned { resource: said.resource_id, name: said.name, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_four_bytes_or_sixteen() {
        let read = |bytes: &[u8]| {
            let said = LearnedAddress { address: bytes.to_vec(), ..LearnedAddress::default() };
            address(said).map(|learned| learned.address.to_string())
        };
        assert_eq!(read(&[10, 0, 0, 7]).as_deref(), Some("10.0.0.7"));
        let mut v6 = [0; 16];
        (v6[0], v6[1], v6[15]) = (0xfd, 0x01, 7);
        assert_eq!(read(&v6).as_deref(), Some("fd01::7"));
        for wrong in [&[][..], &[10, 0, 0], &[0; 17]] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
