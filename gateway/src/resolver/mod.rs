//! Answers the questions of this agent's own host for names, as control says: of peers and zones by itself, of domain resources
//! through their routers, of others by the name servers that control or the host names.

mod routed;

pub use routed::{Routed, RoutedAnswer, RoutedFailure};
