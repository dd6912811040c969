//! The credential for Together's registry: what it is for, how long it is good, and a registry client that
//! shows it and nothing else there.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use windlass_core::backend::Job;
use windlass_core::backend_registry::Host;
use windlass_core::credentials::{Credential, Found};
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::reference::Reference;
use windlass_core::registry::{RegistryClient, RegistrySettings};

use super::wire::CredentialAnswer;

/// What messages call it.
const ORIGIN: &str = "the credential that Together issued";

/// A credential that the service issued. Its password cannot be printed.
#[derive(Clone, Debug)]
pub struct IssuedCredential {
    username: String,
    password: SecretString,
    registry_url: String,
    /// When it ends; `None` if the service does not say.
    expires_at: Option<Timestamp>,
}

impl IssuedCredential {
    /// Reads an answer; the error says what is missing in it.
    pub(super) fn read(answer: CredentialAnswer) -> Result<Self, &'static str> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let username = given(answer.username).ok_or("a user name")?;
        let password = answer.password.ok_or("a password")?;
        let url = given(answer.registry_url).ok_or("a registry")?;
        let url = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or(&url);
        let registry_url = url.trim_end_matches('/').to_owned();
        let is_whole =
            |image: Reference| registry_url.split_once('/').is_some_and(|(h, _)| h == image.registry());
        if !format!("{registry_url}/image:1").parse().is_ok_and(is_whole) {
            return Err("a registry");
        }
        let expires_at = answer.expired_at.and_then(|text| text.parse().ok());
        Ok(Self { username, password, registry_url, expires_at })
    }

    /// The registry: host, and port if it has one.
    pub fn registry(&self) -> &str {
        self.registry_url.split_once('/').map_or(&self.registry_url, |(host, _)| host)
    }

    /// The name of an image of the project.
    ///
    /// # Errors
    /// `InvalidInput` if the name is none.
    pub fn image(&self, name: &str) -> Result<Reference> {
        format!("{}/{name}", self.registry_url).parse()
    }

    /// Says whether it ends sooner than `margin` from `now`.
    pub fn ends_within(&self, margin: Duration, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| {
            let left = end.duration_since(now);
            Duration::try_from(left).is_ok_and(|left| left < margin) || left.is_negative()
        })
    }

    /// A registry client like that of the host, which shows this credential to its registry and nothing else.
    /// Nothing of it is written anywhere.
    ///
    /// # Errors
    /// `InvalidConfig` for the settings of registries.
    pub fn client(&self, host: &Host) -> Result<RegistryClient> {
        let mut settings: RegistrySettings = host.registry_client.settings().clone();
        let credential =
            Credential::Password { username: self.username.clone(), password: self.password.clone() };
        let found = Found { credential, origin: ORIGIN.to_owned() };
        settings.credentials.given.insert(self.registry().to_owned(), found);
        RegistryClient::new(settings)
    }

    /// Finds out whether a push with it would be let in; sends nothing.
    ///
    /// # Errors
    /// `Denied`, `Unavailable` and so on, as the registry says.
    pub async fn verify(&self, image: &Reference, client: &RegistryClient, job: &Job) -> Result<()> {
        match client.check_push(image, job).await?.refusal {
            None => Ok(()),
            Some(refusal) => Err(does_not_work(self.registry(), &refusal)),
        }
    }
}

/// The error of a credential that was just issued and does not count. What a registry client says to do
/// then, such as `docker login`, would be of no use.
pub(super) fn does_not_work(registry: &str, refusal: &Error) -> Error {
    let said = std::error::Error::source(refusal).map_or_else(String::new, |cause| format!(": {cause}"));
    let (message, hint) = match refusal.kind() {
        ErrorKind::Denied => (
            format!("the registry `{registry}` does not take the credential that Together issued for it"),
            "try again; if it stays so, ask Together: the key and the registry do not fit together",
        ),
        _ => (
            format!("the registry `{registry}` cannot be pushed to"),
            "nothing was built: check the network, then try again",
        ),
    };
    Error::new(refusal.kind(), message).with_source(format!("{refusal}{said}")).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(registry_url: &str, expired_at: Option<&str>) -> CredentialAnswer {
        CredentialAnswer {
            username: Some("u".to_owned()),
            password: Some("secret".into()),
            registry_url: Some(registry_url.to_owned()),
            expired_at: expired_at.map(str::to_owned),
        }
    }

    #[test]
    fn the_registry_is_a_host_and_a_project() {
        for (url, registry, image) in [
            ("r.example.com/nbswy3dp", "r.example.com", "r.example.com/nbswy3dp/image-1:2"),
            ("https://r.example.com/nbswy3dp/", "r.example.com", "r.example.com/nbswy3dp/image-1:2"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000", "127.0.0.1:5000/a/image-1:2"),
        ] {
            let credential = IssuedCredential::read(answer(url, None)).expect(url);
            assert_eq!(credential.registry(), registry);
            assert_eq!(credential.image("image-1:2").expect("a name").to_string(), image);
            assert!(!format!("{credential:?}").contains("secret"));
        }
        for url in ["", "r.example.com", "nohost/project", "r.example.com/UPPER"] {
            assert_eq!(IssuedCredential::read(answer(url, None)).expect_err(url), "a registry");
        }
        let without = CredentialAnswer { password: None, ..answer("r.example.com/a", None) };
        assert_eq!(IssuedCredential::read(without).expect_err("none"), "a password");
    }

    #[test]
    fn the_end_is_known_where_it_was_said() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        for (end, soon) in [
            (None, false),
            (Some("2026-01-01T00:04:59Z"), true),
            (Some("2026-01-01T00:05:00Z"), false),
            (Some("2025-12-31T00:00:00Z"), true),
            (Some("2026-01-01T02:04:00.123+02:00"), true),
            (Some("soon"), false),
        ] {
            let credential = IssuedCredential::read(answer("r.example.com/a", end)).expect("complete");
            assert_eq!(credential.ends_within(Duration::from_secs(300), now), soon, "{end:?}");
        }
    }
}
