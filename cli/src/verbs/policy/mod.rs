//! `sluice policy`: files, what they change, and what became of them.

mod apply;
mod diff;
pub(crate) mod file;
mod glass;
mod list;
mod revisions;
mod suggest;
mod tests;

use crate::args::Policy;
use crate::client::Client;
use crate::error::Failure;
use crate::terminal::Terminal;
use crate::verbs::explain;

/// Does what needs no control; anything else is given back.
pub(crate) fn alone(terminal: &mut Terminal<'_>, asked: Policy) -> Result<Option<Policy>, Failure> {
    match asked {
        Policy::Validate { file, offline: true } => file::validate(terminal, &file.file)?,
        Policy::Fmt { file, check } => file::fmt(terminal, &file.file, check)?,
        Policy::Test { file: Some(file), offline: true } => tests::offline(terminal, &file)?,
        Policy::Explain { source, destination, offline: true, file: Some(file) } => {
            explain::offline(terminal, &file, &source, &destination)?;
        }
        Policy::Schema => terminal.line(sluicegate_policy::file::schema().trim_end())?,
        other => return Ok(Some(other)),
    }
    Ok(None)
}

/// Does the rest.
pub(crate) async fn run(client: &Client, terminal: &mut Terminal<'_>, asked: Policy) -> Result<(), Failure> {
    match asked {
        Policy::List => list::list(client, terminal).await,
        Policy::Validate { file, .. } => tests::validate(client, terminal, &file.file).await,
        Policy::Plan(change) => apply::plan(client, terminal, &change).await,
        Policy::Apply(options) => apply::apply(client, terminal, &options).await,
        Policy::Rollback(options) => apply::rollback(client, terminal, &options).await,
        Policy::Diff { file: Some(file), prune, .. } => diff::file(client, terminal, &file, prune).await,
        Policy::Diff { from, to, .. } => {
            diff::revisions(client, terminal, from.unwrap_or_default(), to).await
        }
        Policy::Test { file, .. } => tests::run(client, terminal, file.as_deref()).await,
        Policy::Explain { source, destination, .. } => {
            explain::run(client, terminal, &source, &destination).await
        }
        Policy::Export { write } => revisions::export(client, terminal, write.as_deref()).await,
        Policy::History { limit } => revisions::history(client, terminal, limit).await,
        Policy::Suggest(options) => suggest::run(client, terminal, &options).await,
        Policy::BreakGlass(asked) => glass::run(client, terminal, asked).await,
        // Done without control.
        Policy::Fmt { .. } | Policy::Schema => Ok(()),
    }
}
