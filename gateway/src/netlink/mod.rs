//! The kernel's devices, addresses and routes; the only place that knows rtnetlink's types.

mod address;
mod link;
mod monitor;
mod neighbours;
mod route;

use rtnetlink::Handle;
use tokio::task::JoinHandle;

pub use link::LinkInfo;
pub use monitor::Changes;
pub use neighbours::Neighbours;
pub use route::{RouteTo, Target};

/// A connection to the kernel's routing netlink.
pub struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

/// The kernel refused a request.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {cause}")]
pub struct NetlinkError {
    doing: String,
    cause: Box<dyn std::error::Error + Send + Sync>,
}

impl Netlink {
    /// Connects. Needs a tokio runtime.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| failed("netlink cannot be opened", e))?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn failed(
    doing: impl Into<String>,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> NetlinkError {
    NetlinkError { doing: doing.into(), cause: cause.into() }
}

/// The errno of a refusal, 0 when the kernel gave none.
fn errno(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map_or(0, |code| code.get().abs()),
        _ => 0,
    }
}
