//! What the driver does, without the process around it: read the state, prepare it, compile every gateway.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use sluicegate_control::store::Store;
use sluicegate_policy::Compiler;

use crate::account::Account;
use crate::figure::Figure;

/// DESIGN 7: the compilation of everything takes at most so many milliseconds.
const WHOLE: f64 = 1_000.0;

/// Compiles the account in `directory` that many times.
pub(crate) async fn compile(directory: &Path, account: &Account, times: usize) -> Result<Vec<Figure>> {
    let store = Store::open(directory).await?;
    let (mut read, mut prepared, mut compiled) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..times {
        let begin = Instant::now();
        let state = Arc::new(store.snapshot().await?.state);
        read.push(begin.elapsed());
        let begin = Instant::now();
        let compiler = Compiler::new(state)?;
        prepared.push(begin.elapsed());
        bytes = 0;
        for gateway in &account.gateways {
            bytes += compiler.compile(&gateway.id)?.words.len() as u64 * 4;
        }
        compiled.push(begin.elapsed());
    }
    store.close().await;
    let shape = &account.shape;
    Ok(vec![
        Figure::milliseconds("the account read from the store", shape, &read),
        Figure::milliseconds("the account prepared for compilation", shape, &prepared),
        Figure::milliseconds("prepared, and every gateway compiled", shape, &compiled).median_at_most(WHOLE),
        Figure::megabytes("all images together", shape, bytes),
    ])
}
