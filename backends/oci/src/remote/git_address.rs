//! The address of a repository without the name and password in it, and how git learns them.
//!
//! git writes addresses into the configuration of a checkout and of its submodules, and prints them. So it
//! gets them bare, and asks us for name and password when a server does.

use windlass_core::dockerfile::percent_decoded;
use windlass_core::error::{Error, ErrorKind, Result};

/// The variable with what [`HELPER`] says.
pub(super) const VARIABLE: &str = "WINDLASS_GIT_CREDENTIAL";
/// A credential helper, as git starts them: it is asked with `get`, and reads what for.
const HELPER: &str = r#"!w() { while read -r _; do :; done; test "$1" != get || printf '%s\n' "$WINDLASS_GIT_CREDENTIAL"; }; w"#;

/// What one server is told when it asks who we are.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credential {
    /// `https://host:port`
    server: String,
    /// The words of the helper.
    words: String,
}

impl Credential {
    /// The setting by which git asks us, for this server alone. There is no secret in it.
    pub(super) fn setting(&self) -> String {
        format!("credential.{}.helper={HELPER}", self.server)
    }

    /// The value of [`VARIABLE`].
    pub(super) fn words(&self) -> &str {
        &self.words
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Takes name and password out of an address. The name for ssh stays: it is part of the place.
///
/// # Errors
/// `InvalidDockerfile` for a line break in them, which git cannot be told.
pub(super) fn split(address: &str) -> Result<(String, Option<Credential>)> {
    let whole = || (address.to_owned(), None);
    let Some((scheme, rest)) = address.split_once("://") else { return Ok(whole()) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((credential, host)) = authority.rsplit_once('@') else { return Ok(whole()) };
    let (name, password) = match credential.split_once(':') {
        Some((name, password)) => (name, Some(password)),
        None => (credential, None),
    };
    let bare = format!("{scheme}://{host}{path}");
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => {}
        "ssh" if !name.is_empty() => return Ok((format!("{scheme}://{name}@{host}{path}"), None)),
        _ => return Ok((bare, None)),
    }
    let named = [("username", Some(name).filter(|name| !name.is_empty())), ("password", password)];
    let words: Vec<String> = named
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", percent_decoded(value?))))
        .collect();
    if words.iter().any(|word| word.contains(['\n', '\r', '\0'])) {
        let message = format!("the name or password in the address of `{bare}` has a line break in it");
        return Err(Error::new(ErrorKind::InvalidDockerfile, message));
    }
    let credential = Credential { server: format!("{scheme}://{host}"), words: words.join("\n") };
    Ok((bare, Some(credential).filter(|credential| !credential.words.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_its_credential_are_taken_apart() {
        for (address, bare, words) in [
            ("https://me:p%40ss@h:1/x.git", "https://h:1/x.git", Some("username=me\npassword=p@ss")),
            ("https://token@h/x.git", "https://h/x.git", Some("username=token")),
            ("https://a@b:c@d@h/x.git", "https://h/x.git", Some("username=a@b\npassword=c@d")),
            ("https://@h/x.git", "https://h/x.git", None),
            ("https://h/x@y.git", "https://h/x@y.git", None),
            ("ssh://git:secret@h/x", "ssh://git@h/x", None),
            ("git://me:secret@h/x", "git://h/x", None),
            ("git@h:x", "git@h:x", None),
        ] {
            let (found, credential) = split(address).expect(address);
            assert_eq!(found, bare);
            assert_eq!(credential.as_ref().map(Credential::words), words, "{address}");
            assert!(!format!("{credential:?}").contains("username"));
        }
        assert!(split("https://me:a%0Ab@h/x.git").is_err());
    }
}
