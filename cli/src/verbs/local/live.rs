//! The live view of `sluice gateway top`.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Alignment, Constraint, Layout};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table, Wrap};

use super::top::{Rates, View, snapshot};
use crate::error::Failure;
use crate::local::Agent;
use crate::terminal::Tone;

/// Shows rates until a key asks to leave.
pub(super) async fn run(agent: &Agent, interval: Duration) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage("the live view needs a terminal")
            .next("print the rates once: sluice gateway top --once"));
    }
    // Before the screen is taken: a socket that does not answer is told in words.
    let mut before = snapshot(agent).await?.1;
    let mut screen = ratatui::init();
    let left = async {
        let mut view = View::between(&before, &before);
        let mut next = Instant::now() + interval;
        loop {
            screen.draw(|frame| draw(frame, &view, interval))?;
            // Keys are waited for here and not beside: nothing else runs in this process meanwhile.
            let wait = next.saturating_duration_since(Instant::now());
            if event::poll(wait)? {
                if leaves(&event::read()?) {
                    return Ok(());
                }
                continue;
            }
            next = Instant::now() + interval;
            let now = snapshot(agent).await?.1;
            view = View::between(&before, &now);
            before = now;
        }
    }
    .await;
    ratatui::restore();
    left
}

fn leaves(event: &Event) -> bool {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return false };
    matches!(code, KeyCode::Char('q') | KeyCode::Esc)
        || (*code == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL))
}

fn draw(frame: &mut Frame<'_>, view: &View, interval: Duration) {
    let tables = [&view.rules, &view.resources, &view.drops];
    // Each table gets what it needs while all fit; else a third of the room each, and what one leaves the next.
    let wanted = tables.map(|table| u16::try_from(table.rows.len() + 2).unwrap_or(u16::MAX));
    let mut free = frame.area().height.saturating_sub(4);
    let mut heights = [0; 3];
    for (i, height) in heights.iter_mut().enumerate() {
        let share = free / (3 - i as u16);
        let others = wanted[i + 1..].iter().fold(0u16, |sum, wanted| sum.saturating_add(*wanted));
        *height = wanted[i].min(share.max(free.saturating_sub(others)));
        free -= *height;
    }
    let [head, rules, resources, drops, _, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(heights[0]),
        Constraint::Length(heights[1]),
        Constraint::Length(heights[2]),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame
        .render_widget(Paragraph::new(Line::from(view.head.as_str()).bold()).wrap(Wrap { trim: true }), head);
    for (table, area) in tables.into_iter().zip([rules, resources, drops]) {
        if table.rows.is_empty() {
            frame.render_widget(Paragraph::new(table.nothing).dark_gray(), area);
            continue;
        }
        let shown = usize::from(area.height.saturating_sub(2));
        let columns = fit(table, area.width);
        frame.render_widget(self::table(table, &columns, shown), area);
    }
    let remark = view.remark.as_deref().unwrap_or_default();
    let keys = format!("every {interval:?}   q: leave   {remark}");
    frame.render_widget(Paragraph::new(keys).dark_gray(), foot);
}

/// Columns that fit into `width`, and how wide they are: those marked with `~` go first, from the right.
fn fit(table: &Rates, width: u16) -> Vec<(usize, u16)> {
    let widest = |column: usize| {
        let cells = table.rows.iter().map(|row| row.cells[column].chars().count());
        cells.max().unwrap_or(0).max(heading(table.headings[column]).chars().count()) as u16
    };
    let mut columns: Vec<(usize, u16)> = (0..table.headings.len()).map(|i| (i, widest(i))).collect();
    let total =
        |columns: &[(usize, u16)]| columns.iter().map(|(_, width)| width + 2).sum::<u16>().saturating_sub(2);
    while total(&columns) > width {
        let optional = columns.iter().rposition(|(i, _)| table.headings[*i].starts_with('~'));
        let Some(optional) = optional else { break };
        columns.remove(optional);
    }
    columns
}

fn table<'t>(rates: &'t Rates, columns: &[(usize, u16)], shown: usize) -> Table<'t> {
    let right = |i: usize| rates.headings[i].trim_start_matches('~').starts_with('>');
    let line = |i: usize, words: &'t str| {
        Line::from(words).alignment(if right(i) { Alignment::Right } else { Alignment::Left })
    };
    let head = columns.iter().map(|(i, _)| Cell::from(line(*i, heading(rates.headings[*i]))));
    let rows = rates.rows.iter().take(shown).map(|row| {
        Row::new(columns.iter().map(|(i, _)| {
            let style = if *i == 0 { style(row.tone) } else { Style::new() };
            Cell::from(line(*i, &row.cells[*i])).style(style)
        }))
    });
    Table::new(rows, columns.iter().map(|(_, width)| Constraint::Length(*width)))
        .column_spacing(2)
        .header(Row::new(head).style(Style::new().bold().fg(Color::DarkGray)))
}

fn heading(marked: &str) -> &str {
    marked.trim_start_matches(['~', '>'])
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Warn => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
        Tone::Faint => Style::new().fg(Color::DarkGray),
        Tone::Plain => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::top::tests::top;
    use super::*;

    fn screen(width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let view = View::between(&top(10), &top(12));
        terminal.draw(|frame| draw(frame, &view, Duration::from_secs(2))).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let lines = (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>());
        lines.map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn a_wide_screen_shows_all_three_tables() {
        let screen = screen(130, 24);
        for shown in [
            "gw-a (ebpf, revision 25)",
            "web / users to web",
            "web-server",
            "rule_drop",
            "40.0 M",
            "MEANS",
            "q: leave",
        ] {
            assert!(screen.contains(shown), "{shown} in\n{screen}");
        }
    }

    #[test]
    fn a_small_screen_keeps_names_and_rates() {
        let screen = screen(64, 18);
        for shown in ["web / users to web", "PACKETS/S", "web-server", "rule_drop"] {
            assert!(screen.contains(shown), "{shown} in\n{screen}");
        }
        assert!(!screen.contains("ACTION"), "{screen}");
        // Too small for anything is no reason to fall over.
        for (width, height) in [(10, 2), (1, 1), (30, 5)] {
            super::tests::screen(width, height);
        }
    }

    #[test]
    fn q_escape_and_control_c_leave() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        assert!(leaves(&key(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(leaves(&key(KeyCode::Esc, KeyModifiers::NONE)));
        assert!(leaves(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!leaves(&key(KeyCode::Char('c'), KeyModifiers::NONE)));
    }
}
