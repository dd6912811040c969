//! Addresses without the names and passwords that may be in them.

/// What stands in place of a name or a password: the word of BuildKit's `util/urlutil`.
const HIDDEN: &str = "xxxxx";

/// Hides names and passwords in all addresses of a text: `https://xxxxx:xxxxx@host/x`.
///
/// A name may be a token, so it is hidden as well; only the `git` of `ssh://git@host` stays. Everything
/// else stays as it is written.
pub fn without_credentials(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + "://".len());
        shown.push_str(before);
        rest = after;
        if let Some(end) = credential_end(after) {
            shown.push_str(&hidden(&after[..end], before.ends_with("ssh://")));
            rest = &after[end..];
        }
    }
    shown.push_str(rest);
    shown
}

/// Where the `@` is that ends the name and password at the beginning of an address without its scheme.
fn credential_end(address: &str) -> Option<usize> {
    let address = address.split(char::is_whitespace).next().unwrap_or_default();
    let authority = address.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some(end) = authority.rfind('@') {
        return Some(end);
    }
    // A password with a slash that nobody escaped ends the host before its time.
    let (_, port) = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'))?;
    if port.bytes().all(|byte| byte.is_ascii_digit()) { None } else { address.rfind('@') }
}

fn hidden(credential: &str, ssh: bool) -> String {
    match credential.split_once(':') {
        Some(("", _)) => format!(":{HIDDEN}"),
        Some(_) => format!("{HIDDEN}:{HIDDEN}"),
        None if credential.is_empty() || (ssh && credential == "git") => credential.to_owned(),
        None => HIDDEN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_are_hidden_and_nothing_else() {
        for (text, shown) in [
            ("https://u:p@h/x", "https://xxxxx:xxxxx@h/x"),
            ("https://u:p@q@h", "https://xxxxx:xxxxx@h"),
            ("https://:p@h", "https://:xxxxx@h"),
            ("https://token@h", "https://xxxxx@h"),
            ("https://u:a/b@h/x", "https://xxxxx:xxxxx@h/x"),
            ("ssh://me@h/x", "ssh://xxxxx@h/x"),
            (
                "clone of 'http://u:p@h/a' and http://t@h failed",
                "clone of 'http://xxxxx:xxxxx@h/a' and http://xxxxx@h failed",
            ),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
        for plain in [
            "https://h:80/npm/x@1.0/y?a@b",
            "https://[::1]/@x",
            "ssh://git@h/x",
            "git@h:x",
            "a@b",
            "https://h",
        ] {
            assert_eq!(without_credentials(plain), plain);
        }
    }
}
