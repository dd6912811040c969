//! Hashing that gives the same on every machine and in every version.
//!
//! The standard library's `Hash` promises neither. Here every value says what it is and how long
//! it is before its bytes come, so that no two sequences of values feed the same bytes.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Collects values and gives their hash.
#[derive(Clone, Debug)]
pub struct StableHasher(Sha256);

impl StableHasher {
    /// Starts a hash. `purpose` keeps hashes of different things apart; it ends with a version
    /// number that goes up when the values that follow change their meaning.
    pub fn new(purpose: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.bytes(purpose.as_bytes());
        hasher
    }

    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.start(b'b', bytes.len());
        self.0.update(bytes);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.0.update([b'n']);
        self.0.update(number.to_le_bytes());
    }

    /// Adds the number of values that follow as one list.
    pub fn list(&mut self, length: usize) {
        self.start(b'l', length);
    }

    /// Gives the hash of everything added.
    pub fn finish(self) -> Digest {
        Digest::from_bytes(self.0.finalize().into())
    }

    fn start(&mut self, kind: u8, length: usize) {
        self.0.update([kind]);
        self.0.update((length as u64).to_le_bytes());
    }
}

/// Something whose hash is the same everywhere and always.
pub trait StableHash {
    /// Adds the value to a hash.
    fn stable_hash(&self, hasher: &mut StableHasher);
}

impl StableHash for str {
    fn stable_hash(&self, hasher: &mut StableHasher) {
        hasher.bytes(self.as_bytes());
    }
}

impl StableHash for String {
    fn stable_hash(&self, hasher: &mut StableHasher) {
        hasher.bytes(self.as_bytes());
    }
}

impl StableHash for Digest {
    fn stable_hash(&self, hasher: &mut StableHasher) {
        hasher.bytes(self.as_bytes());
    }
}

impl<T: StableHash> StableHash for Option<T> {
    fn stable_hash(&self, hasher: &mut StableHasher) {
        hasher.list(usize::from(self.is_some()));
        if let Some(value) = self {
            value.stable_hash(hasher);
        }
    }
}

impl<T: StableHash> StableHash for [T] {
    fn stable_hash(&self, hasher: &mut StableHasher) {
        hasher.list(self.len());
        for value in self {
            value.stable_hash(hasher);
        }
    }
}

impl<K: StableHash, V: StableHash> StableHash for BTreeMap<K, V> {
    fn stable_hash(&self, hasher: &mut StableHasher) {
        hasher.list(self.len());
        for (key, value) in self {
            key.stable_hash(hasher);
            value.stable_hash(hasher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(values: &[&[u8]]) -> Digest {
        let mut hasher = StableHasher::new("test 1");
        for value in values {
            hasher.bytes(value);
        }
        hasher.finish()
    }

    #[test]
    fn where_one_value_ends_counts() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"abc"]), hash(&[b"abc", b""]));
        assert_ne!(StableHasher::new("test 1").finish(), StableHasher::new("test 2").finish());
    }

    #[test]
    fn never_changes() {
        let mut hasher = StableHasher::new("test 1");
        BTreeMap::from([("a".to_owned(), Some("b".to_owned())), ("c".to_owned(), None)])
            .stable_hash(&mut hasher);
        hasher.number(7);
        assert_eq!(hasher.finish().hex(), "277ce01f744da303bde9896f29a010da979368827b87b49ac940e176d1fce28e");
    }
}
