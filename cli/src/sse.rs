//! The text/event-stream format (WHATWG HTML, "server-sent events"), as far as a client without reconnection needs it.

/// Longest line that is taken, bytes: events are a few hundred.
const LINE_MAX: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The event's type; empty means `message`.
    pub kind: String,
    /// The data lines, joined by line feeds.
    pub data: String,
}

/// Turns chunks of bytes, cut anywhere, into events.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    after_cr: bool,
}

/// A line longer than any event could be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event longer than {LINE_MAX} bytes")]
pub struct TooLong;

impl Decoder {
    /// Takes the next bytes and returns the events they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let follows_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if follows_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ if self.line.len() >= LINE_MAX => return Err(TooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.kind = value.to_owned(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments (an empty field name) keep the connection alive; `id` and `retry` are for reconnection.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": hello\n\ndata: {\"a\":1}\n\nevent: lost\r\ndata:one\r\ndata: two\r\n\r\nid: 7\n\ndata: cut";

    fn expected() -> Vec<Event> {
        vec![
            Event { kind: String::new(), data: "{\"a\":1}".into() },
            Event { kind: "lost".into(), data: "one\ntwo".into() },
        ]
    }

    #[test]
    fn events_come_out_whole_wherever_the_bytes_are_cut() {
        for size in 1..=STREAM.len() {
            let mut decoder = Decoder::default();
            let mut events = Vec::new();
            for chunk in STREAM.chunks(size) {
                events.extend(decoder.feed(chunk).unwrap());
            }
            assert_eq!(events, expected(), "in pieces of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(&vec![b'x'; LINE_MAX]), Ok(vec![]));
        assert_eq!(decoder.feed(b"x"), Err(TooLong));
    }
}
