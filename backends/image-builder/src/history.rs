//! Which events of a log were shown already: a log that is read again begins at its beginning.

use std::hash::{DefaultHasher, Hash, Hasher};

/// So many events are remembered, two bytes each. A log that begins with the same ones is the same log:
/// what was shown after them is told by its number alone.
const REMEMBERED: usize = 256 * 1024;
/// So many events in a row that are those of the beginning are no accident.
const CERTAIN: u64 = 64;

/// What was shown of a log.
#[derive(Debug, Default)]
pub(crate) struct History {
    hashes: Vec<u16>,
    count: u64,
    first_id: String,
    last_id: String,
}

/// How far one reading of the log is.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    at: u64,
    /// What comes now is new.
    live: bool,
    began: bool,
    /// By their ids these are new, by their words they are the beginning once more: ids and data.
    held: Vec<(String, String)>,
    doubtful: bool,
}

impl Reading {
    /// What was held back when the server ended the log: all that it had to tell.
    pub(crate) fn into_held(self) -> Vec<String> {
        self.held.into_iter().map(|(_, data)| data).collect()
    }
}

impl History {
    /// The id of the last event, which the server may continue after; empty where it gave none.
    pub(crate) fn last_id(&self) -> &str {
        &self.last_id
    }

    /// Takes the next event of a reading. If it was not shown yet, gives what was held back before it, which is
    /// to be shown first; `None` if it is not to be shown, or not now. Where the log is not the one that was read
    /// before, everything from there on is new.
    pub(crate) fn take(&mut self, reading: &mut Reading, data: &str, id: &str) -> Option<Vec<String>> {
        if reading.live && self.hashes.len() == REMEMBERED {
            self.note(id, None);
            return Some(Vec::new());
        }
        let hash = hash(data);
        if !std::mem::replace(&mut reading.began, true) && self.goes_on(id) {
            // The server went on where we were; some give the last event once more.
            if id == self.last_id && self.remembers(self.count - 1, hash) {
                reading.live = true;
                return None;
            }
            // Or it has new ids for every connection, and began from the beginning.
            reading.doubtful = self.remembers(0, hash) && !follows(&self.last_id, id);
            reading.live = !reading.doubtful;
        }
        if reading.doubtful {
            return self.hold(reading, data, id, hash);
        }
        if !reading.live {
            if reading.at < self.count && self.remembers(reading.at, hash) {
                reading.at += 1;
                return None;
            }
            reading.live = true;
            self.forget_after(reading.at);
        }
        self.note(id, Some(hash));
        Some(Vec::new())
    }

    /// Holds an event back until it is clear whether the log was begun anew. To show a line twice is better
    /// than to lose one: lines that are all the same say nothing.
    fn hold(&mut self, reading: &mut Reading, data: &str, id: &str, hash: u16) -> Option<Vec<String>> {
        let same = self.remembers(reading.at, hash);
        if same {
            reading.at += 1;
            if reading.at < self.count.min(CERTAIN) {
                reading.held.push((id.to_owned(), data.to_owned()));
                return None;
            }
        }
        reading.doubtful = false;
        let end = usize::try_from(reading.at).unwrap_or(usize::MAX);
        let known = self.hashes.get(..end).unwrap_or_default();
        let held = std::mem::take(&mut reading.held);
        if same && known.iter().any(|known| Some(known) != self.hashes.first()) {
            return None;
        }
        reading.live = true;
        for (id, data) in &held {
            self.note(id, Some(self::hash(data)));
        }
        self.note(id, Some(hash));
        Some(held.into_iter().map(|(_, data)| data).collect())
    }

    fn note(&mut self, id: &str, hash: Option<u16>) {
        if self.count == 0 {
            self.first_id = id.to_owned();
        }
        // Most logs have none; to compare two empty texts takes longer than to see that.
        if !(id.is_empty() && self.last_id.is_empty()) && self.last_id != id {
            id.clone_into(&mut self.last_id);
        }
        if (self.hashes.len() as u64) == self.count && self.hashes.len() < REMEMBERED {
            self.hashes.extend(hash);
        }
        self.count += 1;
    }

    /// Ids tell an event in the middle from the first.
    fn goes_on(&self, id: &str) -> bool {
        self.count > 0 && !id.is_empty() && !self.first_id.is_empty() && id != self.first_id
    }

    fn remembers(&self, at: u64, hash: u16) -> bool {
        usize::try_from(at).ok().and_then(|at| self.hashes.get(at)).is_none_or(|known| *known == hash)
    }

    fn forget_after(&mut self, count: u64) {
        self.count = self.count.min(count);
        self.hashes.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    }
}

/// Says whether an id is the number after another, which no server gives that begins anew.
fn follows(last: &str, id: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().ok();
    number(last).and_then(|last| last.checked_add(1)).is_some_and(|next| number(id) == Some(next))
}

fn hash(data: &str) -> u16 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    // Any sixteen bits of it are as good as others.
    (hasher.finish() & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of the new ones among these events, each `id:data` or `data`.
    fn read(history: &mut History, events: &[&str]) -> Vec<String> {
        let mut reading = Reading::default();
        let events = events.iter().map(|event| event.split_once(':').unwrap_or(("", event)));
        let mut new = Vec::new();
        for (id, data) in events {
            if let Some(held) = history.take(&mut reading, data, id) {
                new.extend(held);
                new.push(data.to_owned());
            }
        }
        new.extend(reading.into_held());
        new
    }

    #[test]
    fn a_log_that_is_read_again_is_shown_from_where_it_was_left() {
        let mut history = History::default();
        assert_eq!(read(&mut history, &["a", "b", "b"]), ["a", "b", "b"]);
        assert_eq!(read(&mut history, &["a", "b"]), [] as [&str; 0]);
        assert_eq!(read(&mut history, &["a", "b", "b", "b", "c"]), ["b", "c"]);
        assert_eq!(history.count, 5);
    }

    #[test]
    fn another_log_is_shown_from_where_it_differs() {
        let mut history = History::default();
        read(&mut history, &["a", "b", "c"]);
        assert_eq!(read(&mut history, &["a", "x", "c", "d"]), ["x", "c", "d"]);
        assert_eq!(read(&mut history, &["a", "x", "c", "d", "e"]), ["e"]);
        assert_eq!(read(&mut history, &["later"]), ["later"]);
    }

    #[test]
    fn a_server_that_goes_on_repeats_nothing() {
        let mut history = History::default();
        assert_eq!(read(&mut history, &["1:a", "2:b"]), ["a", "b"]);
        assert_eq!(history.last_id(), "2");
        // The same words as at the beginning, but by their ids new.
        assert_eq!(read(&mut history, &["3:a", "4:b"]), ["a", "b"]);
        // The last one once more.
        assert_eq!(read(&mut history, &["4:b", "5:c"]), ["c"]);
        // From the beginning after all.
        assert_eq!(read(&mut history, &["1:a", "2:b", "3:a", "4:b", "5:c", "6:d"]), ["d"]);
    }

    #[test]
    fn ids_that_are_new_with_each_connection_show_nothing_twice() {
        let mut history = History::default();
        assert_eq!(read(&mut history, &["x1:a", "x2:b", "x3:c"]), ["a", "b", "c"]);
        assert_eq!(read(&mut history, &["y1:a", "y2:b", "y3:c", "y4:d"]), ["d"]);
        assert_eq!(read(&mut history, &["z1:a", "z2:b", "z3:c", "z4:d", "z5:e", "z6:f"]), ["e", "f"]);
        // A longer one than what makes it certain.
        let lines: Vec<String> = (0..200).map(|number| format!("n{number}:{number}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut history = History::default();
        assert_eq!(read(&mut history, &lines[..150]).len(), 150);
        let again: Vec<String> = lines.iter().map(|line| format!("m{line}")).collect();
        let again: Vec<&str> = again.iter().map(String::as_str).collect();
        assert_eq!(read(&mut history, &again).len(), 50);
    }

    #[test]
    fn a_server_that_goes_on_with_words_of_the_beginning_loses_none() {
        let mut history = History::default();
        assert_eq!(read(&mut history, &["k:a", "f:b", "q:c"]), ["a", "b", "c"]);
        assert_eq!(read(&mut history, &["w:a", "d:b", "e:x", "t:y"]), ["a", "b", "x", "y"]);
        assert_eq!(read(&mut history, &["u:a"]), ["a"]);
        // Lines that are all the same say nothing.
        let mut history = History::default();
        assert_eq!(read(&mut history, &["k:.", "f:."]), [".", "."]);
        assert_eq!(read(&mut history, &["w:.", "d:.", "e:.", "t:x"]), [".", ".", ".", "x"]);
    }

    #[test]
    fn what_is_remembered_does_not_grow_for_ever() {
        let mut history = History::default();
        let lines: Vec<String> = (0..REMEMBERED + 1000).map(|number| number.to_string()).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(read(&mut history, &lines).len(), lines.len());
        assert_eq!(history.hashes.len(), REMEMBERED);
        assert_eq!(read(&mut history, &lines).len(), 0);
        let more: Vec<&str> = lines.iter().copied().chain(["one more"]).collect();
        assert_eq!(read(&mut history, &more), ["one more"]);
    }
}
