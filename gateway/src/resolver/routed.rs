//! Names of domain resources: they are asked of the routers of their resources, through the tunnel.

use futures_util::future::BoxFuture;
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::Record;

/// Asks routers for the names of the resources that they route.
pub trait Routed: Send + Sync {
    /// Asks a live router of the resource `resource_id`, of several the one in use. Whoever is told addresses may use them at
    /// once. Comes to an end by itself, with [`RoutedFailure::NoAnswer`] after a few seconds.
    fn ask<'a>(
        &'a self,
        resource_id: &'a str,
        question: &'a Query,
    ) -> BoxFuture<'a, Result<RoutedAnswer, RoutedFailure>>;
}

/// What a router says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedAnswer {
    /// `NoError`, with records or without any, or `NXDomain`.
    pub code: ResponseCode,
    /// Records of the name and of the names that it is another one for, each with the time that it is still good for.
    pub records: Vec<Record>,
}

/// Why there is no answer of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoutedFailure {
    /// None of the resource's routers is live.
    #[error("no router of the resource is live")]
    NoRouter,
    /// The router did not answer in time.
    #[error("the router gave no answer in time")]
    NoAnswer,
    /// The router answers this agent no such question.
    #[error("the router refuses the question")]
    Refused,
    /// The router's own name servers gave no answer.
    #[error("the router's name servers gave no answer")]
    Unresolved,
}
