//! `sluicegate-control backup`, `restore` and `user reset-password`: what an operator does with the store beside serving.

use std::io::{IsTerminal, stdin};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, bail};

use crate::pki::Authority;
use crate::serve::Data;
use crate::store::backup::{self, Contents};
use crate::store::{Actor, Reset, Store};

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

/// Asks for a new password of the built-in user of this address and sets it, while control may be running; with `codes`, its
/// one-time codes are off as well.
pub async fn reset_password(data: &Data, email: &str, codes: bool) -> anyhow::Result<()> {
    let uid = std::fs::metadata("/proc/self").context("cannot tell who runs this: /proc is not there")?.uid();
    // First, so that nobody chooses a password in vain.
    let store = Store::beside(&data.store).await?;
    let password = new_password(email)?;
    let done = store.reset_password(&Actor::at_server(uid), email, &password, codes).await;
    store.close_beside().await;
    let Reset { user, codes, tokens } = done?;
    println!("{} ({}) has a new password; every login it had has ended", user.email, user.role.as_str());
    println!(
        "{}",
        match codes {
            true => "one-time codes are asked for as before: --totp switches them off",
            false => "one-time codes are off",
        }
    );
    if tokens > 0 {
        println!("personal access tokens go on: {tokens}; delete those that are in doubt");
    }
    if !user.is_admitted() {
        println!("the user is blocked or waits for approval, and cannot log in before that ends");
    }
    Ok(())
}

/// From the terminal, asked for twice, or else the first line of standard input.
fn new_password(email: &str) -> anyhow::Result<String> {
    if stdin().is_terminal() {
        let ask = |what: String| rpassword::prompt_password(what).context("cannot read from the terminal");
        let password = ask(format!("new password of {email}: "))?;
        if ask("again: ".into())? != password {
            bail!("the two passwords differ: nothing was changed");
        }
        return Ok(password);
    }
    let mut line = String::new();
    stdin().read_line(&mut line).context("cannot read the password from standard input")?;
    match line.trim_end_matches(['\r', '\n']) {
        "" => bail!("standard input is empty: its first line is to be the new password"),
        password => Ok(password.to_owned()),
    }
}
