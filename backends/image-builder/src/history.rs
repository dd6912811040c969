//! Which events of a log were shown already: a log that is read again begins at its beginning.

use std::hash::{DefaultHasher, Hash, Hasher};

/// So many events are remembered, two bytes each. A log that begins with the same ones is the same log:
/// what was shown after them is told by its number alone.
const REMEMBERED: usize = 256 * 1024;

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
}

impl History {
    /// The id of the last event, which the server may continue after; empty where it gave none.
    pub(crate) fn last_id(&self) -> &str {
        &self.last_id
    }

    /// Takes the next event of a reading, and says whether it was not shown yet. Where the log is not the
    /// one that was read before, everything from there on is new.
    pub(crate) fn is_new(&mut self, reading: &mut Reading, data: &str, id: &str) -> bool {
        if reading.live && self.hashes.len() == REMEMBERED {
            self.note(id, None);
            return true;
        }
        let hash = hash(data);
        if !std::mem::replace(&mut reading.began, true) && self.goes_on(id) {
            // The server went on where we were; some give the last event once more.
            reading.live = true;
            if id == self.last_id && self.remembers(self.count - 1, hash) {
                return false;
            }
        }
        if !reading.live {
            if reading.at < self.count && self.remembers(reading.at, hash) {
                reading.at += 1;
                return false;
            }
            reading.live = true;
            self.forget_after(reading.at);
        }
        self.note(id, Some(hash));
        true
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
        let new = events.filter(|(id, data)| history.is_new(&mut reading, data, id));
        new.map(|(_, data)| data.to_owned()).collect()
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
