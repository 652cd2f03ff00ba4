//! `sluice policy explain`.
use crate::{client::Client, destination::Destination, error::Failure, terminal::Terminal};
pub(crate) async fn run(_: &Client, _: &mut Terminal<'_>, _: &str, _: &Destination) -> Result<(), Failure> {
    Ok(())
}
