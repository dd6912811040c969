//! Short hashes: a hex digest in base 36.

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const LIMIT: usize = 16;

/// Shortens a hexadecimal digest of up to 128 bits: read as a number, its base-36 digits, the least
/// significant first, at most 16 of them. Zero is the empty text. `None` for what is no such digest.
///
/// The same as `truncate_hash` of OpenHands.
pub fn short_hash(hex: &str) -> Option<String> {
    // `from_str_radix` would take a sign.
    let mut rest = u128::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+'))?;
    let mut digits = String::new();
    while rest > 0 && digits.len() < LIMIT {
        digits.push(char::from(DIGITS[(rest % 36) as usize]));
        rest /= 36;
    }
    Some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_shortened_as_elsewhere() {
        for (hex, short) in [
            ("b08f254d76b1c6a7ad924708c0032251", "pma2wc71uq3c9a85"),
            ("102aecc0cea025253c0278f54ebef078", "4titk6gquia3taj5"),
            ("1f69bd20d68d9e3874d5bf7f7459709b", "bozkz3djf2bkxrcq"),
            ("d41d8cd98f00b204e9800998ecf8427e", "uc3mgirxygs0uf85"),
            ("ffffffffffffffffffffffffffffffff", "33psmzhlgqnyronp"),
            ("00000000000000000000000000000023", "z"),
            ("00000000000000000000000000000024", "01"),
            ("FF", "37"),
            ("0", ""),
        ] {
            assert_eq!(short_hash(hex).as_deref(), Some(short), "{hex}");
        }
        assert_eq!(
            (short_hash("x"), short_hash(""), short_hash("+1"), short_hash(&"f".repeat(33))),
            (None, None, None, None)
        );
    }
}
