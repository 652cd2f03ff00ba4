//! What a look at a name gives.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// What a name server, or the hosts file, says of one family of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its addresses.
    Addresses {
        /// All of them.
        addresses: BTreeSet<IpAddr>,
        /// How long they are good for: the least of the whole chain of names.
        ttl: Duration,
    },
    /// There are none.
    Nothing {
        /// How long that is good for, where it was said (RFC 2308).
        ttl: Option<Duration>,
        /// Whether there is such a name.
        exists: bool,
    },
    /// Nobody could say; why.
    Failed(String),
}

/// What A and AAAA gave, in this order.
pub type Answers = [Answer; 2];

/// Looks names up.
pub trait Resolve: Send + Sync + 'static {
    /// Asks for both families of `name`, which has no dot at its end. Comes to an end by itself.
    fn look(&self, name: &str) -> impl Future<Output = Answers> + Send;

    /// Whether this machine has been told otherwise how to look names up since this was asked last.
    fn renewed(&self) -> impl Future<Output = bool> + Send;
}
