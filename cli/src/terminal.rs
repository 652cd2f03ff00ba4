//! Where results go: a writer, its width and whether it shows colour, so that tests read what a person would.

use std::io::{IsTerminal, Read, Write};

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Row, Table, presets};
use serde_json::{Map, Value};
use time::UtcDateTime;

use crate::args::Format;
use crate::error::Failure;

/// Spaces between columns.
const GAP: u16 = 2;
/// Longest secret that is read, in bytes.
const SECRET_MAX: usize = 4096;

/// The world outside the process, as far as `sluice` uses it.
pub struct Terminal<'a> {
    /// Results.
    pub out: &'a mut (dyn Write + Send),
    /// Remarks and errors.
    pub notes: &'a mut (dyn Write + Send),
    /// What is read for `-`, and secrets where nobody can be asked.
    pub input: &'a mut (dyn Read + Send),
    /// Whether there is somebody to ask for secrets.
    pub asks: bool,
    /// Whether colours are wanted.
    pub colour: bool,
    /// Columns of the terminal; none for files and pipes.
    pub width: Option<u16>,
    /// The present, for ages.
    pub now: UtcDateTime,
    /// Tables or JSON.
    pub format: Format,
}

/// Meaning of a word in the output, shown by colour where there is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Somebody should look.
    Warn,
    /// Refused, gone or broken.
    Bad,
    /// Less important.
    Faint,
    /// Neither.
    Plain,
}

impl Terminal<'_> {
    /// Whether JSON is wanted.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints one line of results.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        writeln!(self.out, "{}", text.as_ref())?;
        Ok(())
    }

    /// Prints a remark that is no result. Nobody reading it is no reason to stop.
    pub fn note(&mut self, text: impl AsRef<str>) {
        // After the results it is about; if they cannot be written, the next result says so.
        let _ = self.out.flush();
        let _ = writeln!(self.notes, "{}", text.as_ref());
    }

    /// A secret: asked for without echo, or the next line of the input where nobody can be asked; empty at its end.
    pub fn secret(&mut self, what: &str) -> Result<String, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("cannot read the {what}")).why(error);
        if self.asks {
            // After what it is about.
            let _ = self.out.flush();
            let _ = self.notes.flush();
            let (first, rest) = what.split_at(1);
            return rpassword::prompt_password(format!("{}{rest}: ", first.to_uppercase())).map_err(failed);
        }
        // Byte by byte: the next secret is on the next line.
        let (mut line, mut byte) = (Vec::new(), [0]);
        while line.len() < SECRET_MAX && self.input.read(&mut byte).map_err(failed)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        let line = String::from_utf8(line)
            .map_err(|_| Failure::usage(format!("the {what} on standard input is no text")))?;
        Ok(line.trim_end_matches('\r').to_owned())
    }

    /// Whether somebody who is asked says yes; `instead` is what to do where nobody can be asked.
    pub fn agrees(&mut self, question: &str, instead: &str) -> Result<bool, Failure> {
        if !self.asks {
            return Err(Failure::usage("there is nobody to ask").next(instead));
        }
        let _ = self.out.flush();
        let _ = write!(self.notes, "{question} [y/N] ");
        let _ = self.notes.flush();
        let (mut line, mut byte) = (Vec::new(), [0]);
        let failed = |error: std::io::Error| Failure::failed("cannot read the answer").why(error);
        while line.len() < SECRET_MAX && self.input.read(&mut byte).map_err(failed)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        Ok(matches!(line.trim_ascii(), b"y" | b"Y" | b"yes"))
    }

    /// A secret that somebody chooses; asked for twice where it cannot be seen.
    pub fn new_secret(&mut self, what: &str) -> Result<String, Failure> {
        let secret = self.secret(what)?;
        if self.asks && self.secret(&format!("{what} again"))? != secret {
            return Err(Failure::usage(format!("the {what} was not the same twice")));
        }
        Ok(secret)
    }

    /// Prints one JSON document of `fields` with the schema `sluicegate.<name>/1`, over several lines.
    pub fn json(&mut self, name: &str, fields: Value) -> Result<(), Failure> {
        self.line(format!("{:#}", with_schema(name, fields)))
    }

    /// Prints one JSON document on one line: an element of a stream.
    pub fn json_line(&mut self, name: &str, fields: Value) -> Result<(), Failure> {
        self.line(with_schema(name, fields).to_string())?;
        self.out.flush()?;
        Ok(())
    }

    /// Prints rows under headings, columns two spaces apart; `nothing` when there are no rows. The column of a heading
    /// that begins with `>` is aligned right. One that begins with `~` is left out when the terminal is too narrow, the
    /// rightmost first: an address cut in two is worse than none.
    pub fn table(&mut self, headings: &[&str], rows: Vec<Vec<Cell>>, nothing: &str) -> Result<(), Failure> {
        if rows.is_empty() {
            return self.line(nothing);
        }
        let (headings, rows, left_out) = self.fit(headings, rows);
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .force_no_tty();
        if self.colour {
            table.enforce_styling();
        }
        table.set_header(headings.iter().map(|heading| shown(heading)));
        table.add_rows(rows.into_iter().map(Row::from));
        for (column, heading) in table.column_iter_mut().zip(&headings) {
            column.set_padding((0, GAP));
            if heading.trim_start_matches('~').starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        if !left_out.is_empty() {
            let names = left_out.join(", ");
            self.note(format!(
                "Left out, because the terminal is narrow: {names}. --output json has everything."
            ));
        }
        Ok(())
    }

    /// Leaves out columns that may be left out until the rest fits the width, and says which.
    fn fit<'h>(
        &self,
        headings: &[&'h str],
        mut rows: Vec<Vec<Cell>>,
    ) -> (Vec<&'h str>, Vec<Vec<Cell>>, Vec<&'h str>) {
        let mut headings = headings.to_vec();
        let Some(width) = self.width else { return (headings, rows, Vec::new()) };
        let length = |text: &str| text.chars().count();
        let widest = |index: usize, heading: &str| {
            rows.iter()
                .map(|row| length(&row[index].content()))
                .max()
                .unwrap_or_default()
                .max(length(shown(heading)))
        };
        let mut widths: Vec<usize> = headings.iter().enumerate().map(|(index, h)| widest(index, h)).collect();
        let mut left_out = Vec::new();
        while widths.iter().sum::<usize>() + usize::from(GAP) * (widths.len() - 1) > usize::from(width) {
            let Some(index) = headings.iter().rposition(|heading| heading.starts_with('~')) else { break };
            left_out.push(shown(headings.remove(index)));
            widths.remove(index);
            for row in &mut rows {
                row.remove(index);
            }
        }
        left_out.reverse();
        (headings, rows, left_out)
    }

    /// `text` in the colour of `tone`, when colours are wanted.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Plain => return text.to_owned(),
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A heading without its marks.
fn shown(heading: &str) -> &str {
    heading.trim_start_matches(['~', '>'])
}

/// A cell in the colour of `tone`.
pub fn cell(tone: Tone, text: impl ToString) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Good => cell.fg(Color::Green),
        Tone::Warn => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Faint => cell.fg(Color::DarkGrey),
        Tone::Plain => cell,
    }
}

/// A plain cell; empty text shows as `-`.
pub fn text(text: impl AsRef<str>) -> Cell {
    Cell::new(if text.as_ref().is_empty() { crate::human::NONE } else { text.as_ref() })
}

/// Whether standard output wants colour: it is a terminal, `NO_COLOR` (no-color.org) is empty or unset, and `TERM`
/// is not `dumb`.
pub fn wants_colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal()
        && !set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// `fields` with "schema" in front.
fn with_schema(name: &str, fields: Value) -> Value {
    let mut document = Map::new();
    document.insert("schema".to_owned(), format!("sluicegate.{name}/1").into());
    if let Value::Object(fields) = fields {
        document.extend(fields);
    }
    Value::Object(document)
}
