//! Names that nobody else has.

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use windlass_core::digest::Digest;

/// Makes a random UUID (version 4, RFC 9562), in lower case.
pub fn uuid4() -> String {
    // The keys of a hasher come from the system's source of chance; the rest is for good measure.
    let chance = [RandomState::new(), RandomState::new()].map(|state| state.hash_one(std::process::id()));
    let hex = Digest::of(format!("{chance:?} {:?}", SystemTime::now())).hex();
    let variant = match hex.as_bytes()[16] {
        b'0' | b'4' | b'8' | b'c' => '8',
        b'1' | b'5' | b'9' | b'd' => '9',
        b'2' | b'6' | b'a' | b'e' => 'a',
        _ => 'b',
    };
    format!("{}-{}-4{}-{variant}{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// A name for an image that is only made to become a snapshot: the namespace is shared by all.
pub(super) fn image_name() -> String {
    format!("image-{}:{}", uuid4(), uuid4())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn they_have_their_form_and_differ() {
        let made: BTreeSet<String> = (0..1000).map(|_| uuid4()).collect();
        assert_eq!(made.len(), 1000);
        for uuid in made {
            let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{uuid}");
            assert!(uuid[14..].starts_with('4') && "89ab".contains(&uuid[19..20]), "{uuid}");
            assert!(
                uuid.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit() || byte.is_ascii_lowercase())
            );
        }
    }
}
