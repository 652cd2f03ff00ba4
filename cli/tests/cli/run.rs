//! Runs the command line in this process, with a terminal that keeps what is printed.

use std::path::PathBuf;

use clap::Parser;
use sluicegate_cli::args::{Cli, Format};
use sluicegate_cli::terminal::Terminal;
use time::macros::utc_datetime;

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    /// Remarks, then the failure.
    pub(crate) err: String,
}

/// A place for a token and a login, and the control to speak to.
pub(crate) struct Shell {
    pub(crate) dir: tempfile::TempDir,
    url: String,
    /// Columns of the terminal.
    pub(crate) width: Option<u16>,
}

impl Shell {
    /// Speaks to the control in memory.
    pub(crate) fn new(url: &str) -> Self {
        Self::with_token(url, crate::fake::TOKEN)
    }

    pub(crate) fn with_token(url: &str, token: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), format!("{token}\n")).unwrap();
        Shell { dir, url: url.to_owned(), width: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs with `--url` and `--token-file`.
    pub(crate) async fn run(&self, words: &[&str]) -> Ran {
        let token = self.path("token");
        let extra = ["--url", &self.url, "--token-file", token.to_str().unwrap()];
        self.bare(&[words, &extra].concat(), "").await
    }

    /// Runs with nothing but a place for the login.
    pub(crate) async fn bare(&self, words: &[&str], input: &str) -> Ran {
        let config = self.path("cli.toml");
        let words = [&["sluice"], words, &["--config", config.to_str().unwrap()]].concat();
        let cli = match Cli::try_parse_from(words) {
            Ok(cli) => cli,
            Err(error) => return Ran { code: 2, out: String::new(), err: error.to_string() },
        };
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let mut terminal = Terminal {
            out: &mut out,
            notes: &mut notes,
            input: &mut input.as_bytes(),
            asks: false,
            colour: false,
            width: self.width,
            now: utc_datetime!(2026-11-22 12:00:00),
            format: Format::Table,
        };
        let done = sluicegate_cli::run(cli, &mut terminal).await;
        let mut err = String::from_utf8(notes).unwrap();
        let code = done.as_ref().err().map_or(0, |failure| failure.kind.exit_code());
        if let Err(failure) = done.as_ref()
            && !failure.is_silent()
        {
            err.push_str(&failure.to_string());
        }
        Ran { code, out: String::from_utf8(out).unwrap(), err }
    }
}

impl Ran {
    /// What was printed, when the command succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self.out
    }

    /// What was printed as JSON, when the command succeeded.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}
