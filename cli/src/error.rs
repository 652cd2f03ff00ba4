//! What went wrong, said so that the reader knows the next command, and the exit code that says it to scripts.

use std::fmt;

use serde_json::{Value, json};

/// Why `sluice` stops; each kind is one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The reader of our output went away (`sluice ... | head`): nothing is wrong, exit 0 in silence.
    OutputClosed,
    /// The command was understood and did not succeed.
    Failed,
    /// The command line, or a file named on it, makes no sense.
    Usage,
    /// Control was not reached, or it does not know the token.
    NotConnected,
    /// `policy explain` was asked about a flow that is refused.
    Denied,
    /// The audit trail is not as it was written.
    Broken,
    /// A test of a policy file fails.
    TestFails,
    /// Two things that were compared are not the same.
    Differs,
}

impl Kind {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::OutputClosed => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotConnected => 3,
            Kind::Denied => 4,
            Kind::Broken => 5,
            Kind::TestFails => 6,
            Kind::Differs => 7,
        }
    }
}

/// An error for a person: what failed, why, and what to try next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// The exit code's kind.
    pub kind: Kind,
    /// What failed and on what; one line.
    pub what: String,
    /// The cause, when it is known; may have several lines.
    pub why: Option<String>,
    /// The next command or change to try.
    pub next: Option<String>,
    /// The HTTP status, where it is control that refused.
    pub status: Option<u16>,
}

impl Failure {
    /// A failure of `kind` that says `what`.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Failure { kind, what: what.into(), why: None, next: None, status: None }
    }

    /// Exit code 1.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    /// Exit code 2.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    /// The answer of `explain` for a refused flow: everything was printed already, only the exit code is left to say.
    pub fn denied() -> Self {
        Self::new(Kind::Denied, String::new())
    }

    /// The answer of a comparison: everything was printed already, only the exit code is left to say.
    pub fn differs() -> Self {
        Self::new(Kind::Differs, String::new())
    }

    /// The answer about tests of which some fail, each printed already.
    pub fn test_fails() -> Self {
        Self::new(Kind::TestFails, String::new())
    }

    /// Adds the cause.
    pub fn why(mut self, why: impl fmt::Display) -> Self {
        self.why = Some(why.to_string());
        self
    }

    /// Adds what to try next.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Whether there is anything to print.
    pub fn is_silent(&self) -> bool {
        matches!(self.kind, Kind::OutputClosed | Kind::Denied | Kind::Differs)
            || (self.kind == Kind::TestFails && self.what.is_empty())
    }

    /// The same for programs, with `--output json`.
    pub fn to_json(&self) -> Value {
        json!({
            "schema": "sluicegate.error/1",
            "error": { "what": self.what, "why": self.why, "next": self.next, "exit_code": self.kind.exit_code() },
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        for (label, text) in [("why", &self.why), ("next", &self.next)] {
            let Some(text) = text else { continue };
            let mut lines = text.lines();
            write!(f, "\n  {label:>4}: {}", lines.next().unwrap_or_default())?;
            for line in lines {
                write!(f, "\n        {line}")?;
            }
        }
        Ok(())
    }
}

impl From<std::io::Error> for Failure {
    /// An error of writing our own output; files that are read or written have their own messages.
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => {
                Failure::new(Kind::OutputClosed, "the reader of the output went away")
            }
            _ => Failure::failed("cannot write the output").why(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_next_steps_stand_below_what_failed() {
        let failure =
            Failure::failed("cannot read policy.yaml").why("line 3: x\nline 4: y").next("fix the file");
        assert_eq!(
            failure.to_string(),
            "cannot read policy.yaml\n   why: line 3: x\n        line 4: y\n  next: fix the file"
        );
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((failure.kind.exit_code(), failure.is_silent()), (0, true));
    }
}
