//! The agent's side of the conversation with control.

mod dial;
mod outbox;
mod report;
mod sync;
mod url;

pub use dial::{dial, dial_for_enrolment, dial_for_login, reason};
pub use outbox::{Outbox, Told};
pub use report::report;
pub use sync::{FromControl, Known, Session};
pub use url::{Url, Urls};

/// The generated client of logins over a verified channel.
pub type LoginClient = sluicegate_api::agent::logins_client::LoginsClient<tonic::transport::Channel>;

/// The generated client over a verified channel.
pub type Client = sluicegate_api::agent::agent_client::AgentClient<tonic::transport::Channel>;
