//! The process around [`sluicegate_cli::run`]: standard streams and the exit code.

use std::process::ExitCode;

use clap::Parser;
use sluicegate_cli::args::{Cli, Format};
use sluicegate_cli::terminal::{Terminal, wants_colour};
use time::UtcDateTime;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.global.output == Format::Json;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start\n   why: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let mut notes = std::io::stderr();
    let mut input = std::io::stdin();
    let mut terminal = Terminal {
        out: &mut out,
        notes: &mut notes,
        asks: std::io::IsTerminal::is_terminal(&std::io::stdin()),
        input: &mut input,
        colour: wants_colour(),
        width: comfy_table::Table::new().width(),
        now: UtcDateTime::now(),
        format: Format::Table,
    };
    let done = runtime.block_on(sluicegate_cli::run(cli, &mut terminal));
    // A stream that is still open must not hold the process up.
    runtime.shutdown_background();
    let Err(failure) = done else { return ExitCode::SUCCESS };
    let _ = std::io::Write::flush(&mut out);
    if !failure.is_silent() {
        // When standard error is closed there is nobody left to tell.
        let text = if json { failure.to_json().to_string() } else { format!("error: {failure}") };
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
    }
    ExitCode::from(failure.kind.exit_code())
}
