//! Peers that fail posture checks.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Peers that fail posture checks, each with why, for people. Clones share it: many policies have the same checks. Equal when
/// the same peers fail: images say nothing of reasons.
#[derive(Clone, Debug, Default)]
pub struct PostureFailed(Arc<BTreeMap<String, String>>);

impl PostureFailed {
    /// Whether the peer fails.
    pub fn contains(&self, peer: &str) -> bool {
        self.0.contains_key(peer)
    }

    /// Why the peer fails, if it does; empty when nobody said.
    pub fn reason(&self, peer: &str) -> Option<&str> {
        self.0.get(peer).map(String::as_str)
    }

    /// The peers, in order.
    pub fn peers(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Whether nobody fails.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a peer without a reason, or leaves it as it is; whether it was not there.
    pub fn insert(&mut self, peer: String) -> bool {
        if self.contains(&peer) {
            return false;
        }
        Arc::make_mut(&mut self.0).insert(peer, String::new());
        true
    }

    /// Takes a peer out; whether it was there.
    pub fn remove(&mut self, peer: &str) -> bool {
        self.contains(peer) && Arc::make_mut(&mut self.0).remove(peer).is_some()
    }

    /// Lets a peer fail for a reason, or with `None` pass; whether that is news.
    pub fn set(&mut self, peer: &str, why: Option<String>) -> bool {
        let news = self.0.get(peer) != why.as_ref();
        if news {
            let map = Arc::make_mut(&mut self.0);
            match why {
                Some(why) => map.insert(peer.to_owned(), why),
                None => map.remove(peer),
            };
        }
        news
    }

    /// Everybody who fails here or there; reasons are put together.
    pub fn union(&self, other: &Self) -> Self {
        if self.is_empty() || self.is_same(other) {
            return other.clone();
        }
        let mut all = self.clone();
        if !other.is_empty() {
            let map = Arc::make_mut(&mut all.0);
            for (peer, why) in other.0.iter() {
                map.entry(peer.clone())
                    .and_modify(|reason| *reason = format!("{reason}; {why}"))
                    .or_insert_with(|| why.clone());
            }
        }
        all
    }

    /// Whether this is one and the same list, found without looking into it.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What tells this list from others while it lives.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

impl PartialEq for PostureFailed {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || (self.0.len() == other.0.len() && self.peers().eq(other.peers()))
    }
}

impl Eq for PostureFailed {}

impl FromIterator<String> for PostureFailed {
    fn from_iter<T: IntoIterator<Item = String>>(peers: T) -> Self {
        peers.into_iter().map(|peer| (peer, String::new())).collect()
    }
}

impl FromIterator<(String, String)> for PostureFailed {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(peers: T) -> Self {
        Self(Arc::new(peers.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_equal_by_their_peers_and_are_put_together_with_their_reasons() {
        let list = |all: &[(&str, &str)]| -> PostureFailed {
            all.iter().map(|(peer, why)| ((*peer).to_owned(), (*why).to_owned())).collect()
        };
        let (a, b) = (list(&[("p", "old"), ("q", "away")]), list(&[("p", "new"), ("q", "")]));
        assert_eq!(a, b);
        assert_ne!(a, list(&[("p", "old")]));
        let all = list(&[("p", "old")]).union(&list(&[("p", "abroad"), ("r", "away")]));
        assert_eq!((all.reason("p"), all.reason("r")), (Some("old; abroad"), Some("away")));
        assert!(PostureFailed::default().union(&a).is_same(&a) && a.union(&a).is_same(&a));
    }

    #[test]
    fn a_peer_is_set_to_fail_or_to_pass_and_copies_stay_as_they_are() {
        let before: PostureFailed = [("p".to_owned(), "old".to_owned())].into_iter().collect();
        let mut now = before.clone();
        assert!(!now.set("p", Some("old".into())) && !now.set("q", None) && now.is_same(&before));
        assert!(now.set("p", Some("new".into())) && now.set("q", Some("away".into())));
        assert_eq!(
            (now.reason("p"), now.reason("q"), before.reason("p")),
            (Some("new"), Some("away"), Some("old"))
        );
        assert!(now.set("p", None) && !now.contains("p") && before.contains("p"));
    }
}
