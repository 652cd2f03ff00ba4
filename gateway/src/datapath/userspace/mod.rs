//! The same engine as the kernel's, in this process: for hosts where the programs cannot be loaded.

mod flows;
mod tables;
#[cfg(test)]
mod tests;

pub use tables::{Limits, PerFamily, RuleTotals, Totals, UserTables};
