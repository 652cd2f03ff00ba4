//! Where results go: a writer, its width and whether it shows colour, so that tests read what a person would.

use std::io::{IsTerminal, Read, Write};

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Row, Table, presets};
use serde_json::{Map, Value};
use time::UtcDateTime;

use crate::args::Format;
use crate::error::Failure;

/// The world outside the process, as far as `sluice` uses it.
pub struct Terminal<'a> {
    /// Results.
    pub out: &'a mut (dyn Write + Send),
    /// Remarks and errors.
    pub notes: &'a mut (dyn Write + Send),
    /// What is read for `-`.
    pub input: &'a mut (dyn Read + Send),
    /// Whether colours are wanted.
    pub colour: bool,
    /// Columns to wrap tables at; none for files and pipes.
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
        let _ = writeln!(self.notes, "{}", text.as_ref());
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

    /// Prints rows under headers, columns two spaces apart; `nothing` when there are no rows. The column of a header
    /// that begins with `>` is aligned right.
    pub fn table(&mut self, headers: &[&str], rows: Vec<Vec<Cell>>, nothing: &str) -> Result<(), Failure> {
        if rows.is_empty() {
            return self.line(nothing);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        match self.width {
            Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        table.force_no_tty();
        if self.colour {
            table.enforce_styling();
        }
        table.set_header(headers.iter().map(|header| header.trim_start_matches('>')));
        table.add_rows(rows.into_iter().map(Row::from));
        for (column, header) in table.column_iter_mut().zip(headers) {
            column.set_padding((0, 2));
            if header.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
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
