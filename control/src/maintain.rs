//! `sluicegate-control backup` and `restore`: what an operator does with the store beside serving.

use std::path::Path;

use crate::pki::Authority;
use crate::serve::Data;
use crate::store::backup::{self, Contents};

/// Copies the store to `file`, and says what is in the copy and what is not.
pub async fn backup(data: &Data, file: &Path) -> anyhow::Result<()> {
    let contents = backup::backup(&data.store, file).await?;
    println!("{} is the store as of revision {}", file.display(), contents.revision);
    println!(
        "it does not hold the authority's key: keep {} and {} as well, which agents trust",
        data.directory.join("ca.pem").display(),
        data.directory.join("ca.key").display()
    );
    Ok(())
}

/// Puts `file` in the store's place, and says what follows.
pub async fn restore(data: &Data, file: &Path) -> anyhow::Result<()> {
    let authority = Authority::stored_fingerprint(&data.directory)?;
    let (contents, kept) = backup::restore(&data.store, &data.directory, authority.as_deref(), file).await?;
    let Contents { revision, authority: pinned } = contents;
    println!("the store {} is that of {}, as of revision {revision}", data.store.name(), file.display());
    if let Some(kept) = kept {
        println!("the store that was there is {}", kept.display());
    }
    if authority.is_none() && !pinned.is_empty() {
        println!(
            "its agents trust the authority sha256:{pinned}: put its ca.pem and ca.key into {} before control starts, or \
             they all have to join again",
            data.directory.display()
        );
    }
    println!("agents get the policies of that revision when control has started");
    Ok(())
}
