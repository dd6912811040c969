//! Records of the store that have their own checksum: a magic line, the content, and the sha256 of
//! both. One that is damaged, or of another kind, counts as none.

use crate::digest::Digest;

/// The bytes of a checksum.
const DIGEST_BYTES: usize = 32;

/// Ends a record that begins with its magic line.
pub(super) fn seal(mut record: Vec<u8>) -> Vec<u8> {
    let digest = Digest::of(&record);
    record.extend_from_slice(digest.as_bytes());
    record
}

/// The content of a sealed record of this kind, if it is sound.
pub(super) fn unseal<'a>(magic: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (record, digest) = sealed.split_at_checked(sealed.len().checked_sub(DIGEST_BYTES)?)?;
    if Digest::of(record).as_bytes() != digest {
        return None;
    }
    record.strip_prefix(magic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_whole_and_of_this_kind_is_opened() {
        let sealed = seal(b"kind 1\ncontent".to_vec());
        assert_eq!(unseal(b"kind 1\n", &sealed), Some(&b"content"[..]));
        assert_eq!(unseal(b"kind 2\n", &sealed), None);
        assert_eq!(unseal(b"kind 1\n", &sealed[..sealed.len() - 1]), None);
        assert_eq!(unseal(b"kind 1\n", b""), None);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(unseal(b"kind 1\n", &damaged), None, "byte {at}");
        }
    }
}
