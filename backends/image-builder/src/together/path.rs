//! Parts of addresses, encoded as the other clients encode them: everything but letters, digits, `-`, `.`,
//! `_` and `~` (RFC 3986, unreserved).

/// One part of a path, or one side of a pair of a query.
pub(super) fn component(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

/// A query; `None` where there is nothing to say.
pub(super) fn query(pairs: &[(String, String)]) -> Option<String> {
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", component(name), component(value))).collect();
    Some(pairs.join("&")).filter(|query| !query.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_may_hold_anything() {
        assert_eq!(component("my-app@v1/ü %\n.~_"), "my-app%40v1%2F%C3%BC%20%25%0A.~_");
        let pairs = [("tags[team]".to_owned(), "a b&c".to_owned()), ("limit".to_owned(), "5".to_owned())];
        assert_eq!(query(&pairs).as_deref(), Some("tags%5Bteam%5D=a%20b%26c&limit=5"));
        assert_eq!(query(&[]), None);
    }
}
