//! Server-sent events, read as they come: the parsing rules of the WHATWG HTML standard, section 9.2.6
//! "Interpreting an event stream".
//!
//! Bytes may be cut anywhere: between CR and LF, in the middle of a character or of the byte order mark.
//! What is held is one unfinished line and one unfinished event, each up to a limit.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use memchr::{memchr, memchr2};

/// A longer line, and a longer event, is cut.
const LIMIT_BYTES: usize = 1024 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEvent<'a> {
    /// Its name; `message` where the stream gives it none.
    pub name: Cow<'a, str>,
    /// Its lines, with `\n` between them. What is no UTF-8 is replaced.
    pub data: Cow<'a, str>,
    /// The last id that the stream gave, with this event or before it; empty if there was none.
    pub id: &'a str,
    /// There was more of it than is held.
    pub cut: bool,
}

/// Reads one stream: give it bytes with [`EventStream::feed`], then take the events that are whole with
/// [`EventStream::next_event`] until there are none.
///
/// An event that the stream ends in the middle of is never given.
///
/// ```
/// use windlass_core::service::EventStream;
///
/// let mut stream = EventStream::default();
/// stream.feed("data: one\n\nda".into());
/// assert_eq!(stream.next_event().map(|event| event.data.into_owned()), Some("one".to_owned()));
/// assert_eq!(stream.next_event(), None);
/// stream.feed("ta: two\r\n\r\n".into());
/// assert_eq!(stream.next_event().map(|event| event.data.into_owned()), Some("two".to_owned()));
/// ```
#[derive(Debug)]
pub struct EventStream {
    limit_bytes: usize,
    chunk: Bytes,
    at: usize,
    /// The beginning of a line whose end has not come; one byte more than the limit says that it is cut.
    line: Vec<u8>,
    /// The last byte was a CR: an LF after it belongs to it.
    after_return: bool,
    began: bool,
    event: Pending,
    /// The event was given: the next one begins anew.
    given: bool,
    id: String,
    retry: Option<Duration>,
}

/// The event whose lines are coming.
#[derive(Debug, Default)]
struct Pending {
    name: Vec<u8>,
    data: Vec<u8>,
    /// The id that it will have; it holds for the events after it too.
    id: String,
    /// It has one of its own. (Comparing empty texts instead takes 0.1 µs where `memcmp` loads with a mask.)
    has_id: bool,
    has_data: bool,
    cut: bool,
}

impl Default for EventStream {
    fn default() -> Self {
        Self::with_limit(LIMIT_BYTES)
    }
}

impl EventStream {
    /// A stream of which no line and no event is held beyond so many bytes.
    pub fn with_limit(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            chunk: Bytes::new(),
            at: 0,
            line: Vec::new(),
            after_return: false,
            began: false,
            event: Pending::default(),
            given: false,
            id: String::new(),
            retry: None,
        }
    }

    /// Takes the next bytes. Events of the bytes before must have been taken: what is left of them is
    /// read first, but copied.
    pub fn feed(&mut self, bytes: Bytes) {
        if self.at < self.chunk.len() {
            let rest = self.chunk.slice(self.at..);
            self.chunk = [rest, bytes].concat().into();
        } else {
            self.chunk = bytes;
        }
        self.at = 0;
    }

    /// The next event that is whole; `None` where more bytes are needed.
    pub fn next_event(&mut self) -> Option<StreamEvent<'_>> {
        if std::mem::take(&mut self.given) {
            self.event.clear();
        }
        let chunk = std::mem::take(&mut self.chunk);
        let is_whole = self.read(&chunk);
        self.chunk = chunk;
        if !is_whole {
            return None;
        }
        self.given = true;
        let Pending { name, data, cut, .. } = &self.event;
        Some(StreamEvent {
            name: if name.is_empty() { "message".into() } else { String::from_utf8_lossy(name) },
            data: String::from_utf8_lossy(data),
            id: &self.id,
            cut: *cut,
        })
    }

    /// How long the server wants a client to wait before it connects again, if it said so.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Reads lines up to the end of an event, and says whether there was one.
    fn read(&mut self, chunk: &[u8]) -> bool {
        while let Some(rest) = chunk.get(self.at..).filter(|rest| !rest.is_empty()) {
            if std::mem::take(&mut self.after_return) && rest[0] == b'\n' {
                self.at += 1;
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', rest) else {
                self.hold(rest);
                self.at = chunk.len();
                return false;
            };
            self.after_return = rest[end] == b'\r';
            self.at += end + 1;
            let is_whole = if self.line.is_empty() {
                self.take_line(&rest[..end])
            } else {
                self.hold(&rest[..end]);
                let mut line = std::mem::take(&mut self.line);
                let is_whole = self.take_line(&line);
                line.clear();
                self.line = line;
                is_whole
            };
            if is_whole {
                return true;
            }
        }
        false
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = (self.limit_bytes + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Takes one line without its end, and says whether it ends an event.
    fn take_line(&mut self, line: &[u8]) -> bool {
        let is_first = !std::mem::replace(&mut self.began, true);
        let line = if is_first { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.end_event();
        }
        let (line, cut) = match line.get(..self.limit_bytes) {
            Some(head) if head.len() < line.len() => (head, true),
            _ => (line, false),
        };
        let (field, value) = match memchr(b':', line) {
            // A comment.
            Some(0) => return false,
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &[][..]),
        };
        match field {
            b"data" => self.event.add(value, cut, self.limit_bytes),
            b"event" => value.clone_into(&mut self.event.name),
            b"id" if memchr(0, value).is_none() => {
                self.event.id = String::from_utf8_lossy(value).into();
                self.event.has_id = true;
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let millis = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                self.retry = Some(Duration::from_millis(millis.unwrap_or(u64::MAX)));
            }
            _ => {}
        }
        false
    }

    fn end_event(&mut self) -> bool {
        if std::mem::take(&mut self.event.has_id) {
            self.id.clone_from(&self.event.id);
        }
        if !self.event.has_data {
            self.event.clear();
            return false;
        }
        true
    }
}

impl Pending {
    /// Adds a line of data.
    fn add(&mut self, value: &[u8], cut: bool, limit_bytes: usize) {
        if std::mem::replace(&mut self.has_data, true) && self.data.len() < limit_bytes {
            self.data.push(b'\n');
        }
        let room = limit_bytes.saturating_sub(self.data.len()).min(value.len());
        self.data.extend_from_slice(&value[..room]);
        self.cut |= cut || room < value.len();
    }

    fn clear(&mut self) {
        self.name.clear();
        self.data.clear();
        self.has_data = false;
        self.cut = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, data and id of every event.
    fn events(limit_bytes: usize, pieces: &[&[u8]]) -> Vec<(String, String, String, bool)> {
        let mut stream = EventStream::with_limit(limit_bytes);
        let mut seen = Vec::new();
        for piece in pieces {
            stream.feed(Bytes::copy_from_slice(piece));
            while let Some(StreamEvent { name, data, id, cut }) = stream.next_event() {
                seen.push((name.into_owned(), data.into_owned(), id.to_owned(), cut));
            }
        }
        seen
    }

    fn data(text: &str) -> Vec<String> {
        events(LIMIT_BYTES, &[text.as_bytes()]).into_iter().map(|(_, data, ..)| data).collect()
    }

    #[test]
    fn lines_end_in_three_ways() {
        for text in ["data: a\n\ndata: b\n\n", "data: a\r\rdata: b\r\r", "data: a\r\n\r\ndata: b\r\n\r\n"] {
            assert_eq!(data(text), ["a", "b"], "{text:?}");
        }
        // The standard's own example of mixed ends: CR, then LF, is one end; LF, then CR, is two.
        assert_eq!(data("data: a\n\rdata: b\r\n\n"), ["a", "b"]);
    }

    #[test]
    fn the_examples_of_the_standard() {
        assert_eq!(data("data: YHOO\ndata: +2\ndata: 10\n\n"), ["YHOO\n+2\n10"]);
        let text =
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n";
        assert_eq!(
            events(LIMIT_BYTES, &[text.as_bytes()]),
            [
                ("message".into(), "first event".into(), "1".into(), false),
                ("message".into(), "second event".into(), String::new(), false),
            ],
            "the third has no end"
        );
        // The first has no data at all, the second one line end, the third is not ended.
        assert_eq!(data("data\n\ndata\ndata\n\ndata:"), ["", "\n"]);
        assert_eq!(data("data:test\n\ndata: test\n\n"), ["test", "test"]);
    }

    #[test]
    fn fields_mean_what_the_standard_says() {
        let text =
            "event: add\nid: 7\ndata: 1\n\ndata: 2\n\nevent: x\n\nid: a\0b\ndata:3\nunknown: y\nData: z\n\n";
        assert_eq!(
            events(LIMIT_BYTES, &[text.as_bytes()]),
            [
                ("add".into(), "1".into(), "7".into(), false),
                ("message".into(), "2".into(), "7".into(), false),
                ("message".into(), "3".into(), "7".into(), false),
            ]
        );
        for (text, expected) in [
            ("retry: 1500\n", Some(1500)),
            ("retry: 1500\nretry: soon\nretry:\n", Some(1500)),
            ("retry:-1\n", None),
            ("retry:99999999999999999999999\n", Some(u64::MAX)),
        ] {
            let mut stream = EventStream::default();
            stream.feed(text.into());
            assert_eq!(stream.next_event(), None);
            assert_eq!(stream.retry(), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_byte_order_mark_counts_only_at_the_beginning() {
        assert_eq!(data("\u{feff}data: a\n\n\u{feff}data: b\n\ndata: \u{feff}c\n\n"), ["a", "\u{feff}c"]);
    }

    #[test]
    fn what_is_no_utf8_is_replaced() {
        let bytes = b"data: \xff\xe2\x82 \xe2\x82\xac\ndata: \xe2\n\n";
        assert_eq!(events(LIMIT_BYTES, &[bytes])[0].1, "\u{fffd}\u{fffd} €\n\u{fffd}");
    }

    #[test]
    fn what_is_too_long_is_cut_and_the_next_is_whole() {
        let limit = 20;
        let cut = |text: &str| {
            let whole = events(limit, &[text.as_bytes()]);
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(events(limit, &bytes), whole, "{text:?}");
            whole.into_iter().map(|(_, data, _, cut)| (data, cut)).collect::<Vec<_>>()
        };
        let long = format!("data: {}\n\ndata: next\n\n", "x".repeat(100));
        assert_eq!(cut(&long), [("x".repeat(14), true), ("next".into(), false)]);
        let many = format!("{}\ndata: next\n\n", "data: 12345\n".repeat(9));
        assert_eq!(cut(&many), [("12345\n12345\n12345\n12".into(), true), ("next".into(), false)]);
        // What has no end is not held either.
        let mut stream = EventStream::with_limit(limit);
        for _ in 0..1000 {
            stream.feed(Bytes::from_static(&[b'x'; 1000]));
            assert_eq!(stream.next_event(), None);
        }
        assert!(stream.line.capacity() < 100 && stream.chunk.len() <= 1000);
    }

    /// Every way to cut a sample into three pieces gives the same events, and so do single bytes.
    #[test]
    fn it_does_not_matter_where_bytes_are_cut() {
        let sample =
            "\u{feff}: hello\r\n\r\nid: 1\rdata: ä€𝄞 one\r\rdata: two\ndata:\ndata:2\n\nevent: log\r\n\
                      data: {\"done\": true}\r\nid: x\u{e9}\r\n\r\ndata\rdata\r\n\rretry: 10\n\ndata: last\n"
                .as_bytes();
        let mut broken = sample.to_vec();
        broken.extend(b"data: \xff\xe2\x82\n\n\r\r");
        for sample in [sample, &broken] {
            let whole = events(LIMIT_BYTES, &[sample]);
            assert!(whole.len() >= 4, "{whole:?}");
            assert_eq!(events(LIMIT_BYTES, &sample.chunks(1).collect::<Vec<_>>()), whole);
            for first in 0..=sample.len() {
                for second in first..=sample.len() {
                    let pieces = [&sample[..first], &sample[first..second], &sample[second..]];
                    assert_eq!(events(LIMIT_BYTES, &pieces), whole, "cut at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn bytes_that_were_not_read_are_not_lost() {
        let mut stream = EventStream::default();
        stream.feed("data: 1\n\ndata: 2\n\nda".into());
        assert_eq!(stream.next_event().expect("the first").data, "1");
        stream.feed("ta: 3\n\n".into());
        assert_eq!(stream.next_event().expect("the second").data, "2");
        assert_eq!(stream.next_event().expect("the third").data, "3");
        assert_eq!(stream.next_event(), None);
    }
}
