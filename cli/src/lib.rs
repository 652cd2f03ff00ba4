//! `sluice`, the operator's command line: nouns and verbs over control's REST interface.
//!
//! [`run`] is the whole program without the process around it: tests call it with a terminal of their own.

pub mod args;
pub mod client;
pub mod config;
pub mod destination;
pub mod error;
pub mod filter;
pub mod human;
pub mod local;
pub mod rest;
pub mod source;
pub mod sse;
mod sso;
pub mod terminal;
mod verbs;

use args::{Cli, Flow, Gateway, Global, Noun};
use client::Client;
use config::Target;
use error::Failure;
use local::Agent;
use terminal::Terminal;

/// Does what the command line says. The failure's kind is the exit code; a silent one has said everything already.
pub async fn run(cli: Cli, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    terminal.format = cli.global.output;
    if let Noun::Login(login) = &cli.noun {
        return verbs::login::run(&cli.global, login, terminal).await;
    }
    if let Noun::Logout = &cli.noun {
        let done = verbs::login::logout(&cli.global, terminal).await;
        terminal.out.flush()?;
        return done;
    }
    if let Noun::User(args::User::Accept) = &cli.noun {
        let done = verbs::user::accept(&cli.global, terminal).await;
        terminal.out.flush()?;
        return done;
    }
    if let Noun::Audit(args::Audit::Verify(options)) = &cli.noun
        && let Some(file) = &options.from_file
    {
        let done = verbs::audit::verify_file(terminal, file, options.head.clone());
        terminal.out.flush()?;
        return done;
    }
    let noun = match cli.noun {
        Noun::Policy(asked) => {
            let asked = verbs::policy::alone(terminal, asked);
            terminal.out.flush()?;
            match asked? {
                Some(asked) => Noun::Policy(asked),
                None => return Ok(()),
            }
        }
        other => other,
    };
    let noun = match beside(&cli.global, noun, terminal).await {
        Asked::Control(noun) => noun,
        Asked::Agent(done) => {
            terminal.out.flush()?;
            return done;
        }
    };
    let (target, remark) = Target::resolve(&cli.global)?;
    if let Some(remark) = remark {
        terminal.note(remark);
    }
    let client = Client::new(target, cli.global.timeout)?;
    let done = match noun {
        // Done above.
        Noun::Login(_) | Noun::Logout | Noun::Trace(_) | Noun::Drops(_) | Noun::Capture(_) => Ok(()),
        Noun::Status => verbs::status::run(&client, terminal).await,
        Noun::Gateway(Gateway::Top(_)) | Noun::Flow(Flow::List(_)) => Ok(()),
        Noun::Gateway(Gateway::List) => verbs::gateway::list(&client, terminal).await,
        Noun::Gateway(Gateway::Show { id }) => verbs::gateway::show(&client, terminal, &id).await,
        Noun::Policy(asked) => verbs::policy::run(&client, terminal, asked).await,
        Noun::Peer(args::Peer::List) => verbs::peer::list(&client, terminal).await,
        Noun::Posture(asked) => verbs::posture::run(&client, terminal, asked).await,
        Noun::Peer(args::Peer::Key) => verbs::peer::key(&client, terminal).await,
        Noun::Peer(args::Peer::Show { peer }) => verbs::peer::show(&client, terminal, &peer).await,
        Noun::Peer(args::Peer::Admit { code, yes, refuse }) => {
            verbs::peer::admit(&client, terminal, &code, yes, refuse).await
        }
        Noun::Peer(args::Peer::Renew { peer }) => verbs::peer::renew(&client, terminal, &peer).await,
        Noun::Group(args::Group::List) => verbs::group::list(&client, terminal).await,
        Noun::User(asked) => verbs::user::run(&client, terminal, asked).await,
        Noun::SetupKey(args::SetupKey::List) => verbs::setup_key::list(&client, terminal).await,
        Noun::SetupKey(args::SetupKey::Create(options)) => {
            verbs::setup_key::create(&client, terminal, &options).await
        }
        Noun::Network(args::Network::List) => verbs::network::list(&client, terminal).await,
        Noun::Route(asked) => verbs::route::run(&client, terminal, asked).await,
        Noun::Dns(asked) => verbs::dns::run(&client, terminal, asked).await,
        Noun::Access(asked) => verbs::access::run(&client, terminal, asked).await,
        Noun::Flow(Flow::Watch(options)) => verbs::flow::watch(&client, terminal, &options).await,
        Noun::Audit(args::Audit::List(options)) => verbs::audit::list(&client, terminal, &options).await,
        Noun::Audit(args::Audit::Verify(options)) => {
            verbs::audit::verify(&client, terminal, options.head).await
        }
        Noun::Audit(args::Audit::Export { file }) => verbs::audit::export(&client, terminal, &file).await,
    };
    terminal.out.flush()?;
    done
}

/// Who is to be asked.
enum Asked {
    /// Control, this.
    Control(Noun),
    /// The agent on this host, and this came of it.
    Agent(Result<(), Failure>),
}

/// Does what only the agent on this host can do; no login is needed for that.
async fn beside(global: &Global, noun: Noun, terminal: &mut Terminal<'_>) -> Asked {
    let local = match &noun {
        Noun::Trace(_) | Noun::Drops(_) | Noun::Capture(_) => true,
        Noun::Gateway(Gateway::Top(_)) | Noun::Flow(Flow::List(_)) => true,
        Noun::Flow(Flow::Watch(options)) => options.local || global.gateway_socket.is_some(),
        _ => false,
    };
    if !local {
        return Asked::Control(noun);
    }
    let agent = match Agent::new(global) {
        Ok(agent) => agent,
        Err(failure) => return Asked::Agent(Err(failure)),
    };
    Asked::Agent(match &noun {
        Noun::Trace(asked) => verbs::local::trace::run(&agent, terminal, asked).await,
        Noun::Drops(args::Drops::List) => verbs::local::events::drops(&agent, terminal).await,
        Noun::Drops(args::Drops::Watch(options)) => {
            verbs::local::events::watch(&agent, terminal, options, "drop,revoke").await
        }
        Noun::Capture(options) => verbs::local::capture::run(&agent, terminal, options).await,
        Noun::Gateway(Gateway::Top(options)) => verbs::local::top::run(&agent, terminal, options).await,
        Noun::Flow(Flow::List(options)) => verbs::local::flows::list(&agent, terminal, options).await,
        Noun::Flow(Flow::Watch(options)) => verbs::local::events::watch(&agent, terminal, options, "").await,
        _ => Ok(()),
    })
}
