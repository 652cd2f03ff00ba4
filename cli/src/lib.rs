//! `sluice`, the operator's command line: nouns and verbs over control's REST interface.
//!
//! [`run`] is the whole program without the process around it: tests call it with a terminal of their own.

pub mod apply;
pub mod args;
pub mod client;
pub mod config;
pub mod destination;
pub mod error;
pub mod human;
pub mod rest;
pub mod sse;
pub mod terminal;
mod verbs;

use args::{Cli, Noun};
use client::Client;
use config::Target;
use error::Failure;
use terminal::Terminal;

/// Does what the command line says. The failure's kind is the exit code; a silent one has said everything already.
pub async fn run(cli: Cli, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    terminal.format = cli.global.output;
    if let Noun::Login(login) = &cli.noun {
        return verbs::login::run(&cli.global, login, terminal).await;
    }
    let (target, remark) = Target::resolve(&cli.global)?;
    if let Some(remark) = remark {
        terminal.note(remark);
    }
    let client = Client::new(target, cli.global.timeout)?;
    let done = match cli.noun {
        Noun::Login(_) => Ok(()),
        Noun::Status => verbs::status::run(&client, terminal).await,
        Noun::Gateway(args::Gateway::List) => verbs::gateway::list(&client, terminal).await,
        Noun::Gateway(args::Gateway::Show { id }) => verbs::gateway::show(&client, terminal, &id).await,
        Noun::Policy(args::Policy::List) => verbs::policy::list(&client, terminal).await,
        Noun::Policy(args::Policy::Apply(options)) => verbs::apply::run(&client, terminal, &options).await,
        Noun::Policy(args::Policy::Explain { source, destination }) => {
            verbs::explain::run(&client, terminal, &source, &destination).await
        }
        Noun::Peer(args::Peer::List) => verbs::peer::list(&client, terminal).await,
        Noun::Group(args::Group::List) => verbs::group::list(&client, terminal).await,
        Noun::SetupKey(args::SetupKey::List) => verbs::setup_key::list(&client, terminal).await,
        Noun::SetupKey(args::SetupKey::Create(options)) => {
            verbs::setup_key::create(&client, terminal, &options).await
        }
        Noun::Network(args::Network::List) => verbs::network::list(&client, terminal).await,
        Noun::Flow(args::Flow::Watch(options)) => verbs::flow::watch(&client, terminal, &options).await,
        Noun::Audit(args::Audit::List { limit }) => verbs::audit::list(&client, terminal, limit).await,
    };
    terminal.out.flush()?;
    done
}
