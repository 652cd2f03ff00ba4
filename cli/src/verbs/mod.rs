//! One module per noun or verb: fetch, then print.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod dns;
pub(crate) mod explain;
pub(crate) mod flow;
pub(crate) mod gateway;
pub(crate) mod group;
pub(crate) mod local;
pub(crate) mod login;
pub(crate) mod network;
pub(crate) mod object;
pub(crate) mod peer;
pub(crate) mod policy;
pub(crate) mod posture;
pub(crate) mod route;
pub(crate) mod setup_key;
pub(crate) mod status;
pub(crate) mod user;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Failure;
use crate::rest::Named;
use crate::terminal::{Tone, cell};

/// A list as control said it, and the same read for a table.
pub(crate) fn read_all<T: DeserializeOwned>(items: &[Value], what: &str) -> Result<Vec<T>, Failure> {
    items.iter().map(|item| read(item, what)).collect()
}

/// One object as control said it, read for a table.
pub(crate) fn read<T: DeserializeOwned>(item: &Value, what: &str) -> Result<T, Failure> {
    T::deserialize(item).map_err(|error| {
        Failure::failed(format!("control sent {what} that sluice cannot read"))
            .why(error)
            .next("use a sluice of control's version, or --output json")
    })
}

/// `a, b, c`.
pub(crate) fn names(items: &[Named]) -> String {
    items.iter().map(|item| item.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// A cell for a switch.
pub(crate) fn on_off(on: bool) -> comfy_table::Cell {
    if on { cell(Tone::Plain, "on") } else { cell(Tone::Faint, "off") }
}

/// A cell for whether something is connected.
pub(crate) fn connected(yes: bool) -> comfy_table::Cell {
    if yes { cell(Tone::Good, "connected") } else { cell(Tone::Bad, "away") }
}
