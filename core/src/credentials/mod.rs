//! Who we are to a registry: found where `docker login` and `podman login` put it.
//!
//! Nothing here can be printed: secrets are [`SecretString`]s, and errors name the file and the
//! helper, never what was in them.

mod files;
mod helper;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use crate::backend::Job;
use crate::error::Result;

/// The key under which Docker keeps the credential for Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Where credentials are looked for.
#[derive(Clone, Debug, Default)]
pub struct CredentialSettings {
    /// Files in the form of Docker's `config.json`, in order; one that does not exist is skipped.
    pub files: Vec<PathBuf>,
    /// Credentials that somebody gave us for a registry, by its host as it stands in references. Where
    /// there is one, it is the only one that is shown there. Written nowhere.
    pub given: BTreeMap<String, Found>,
}

impl CredentialSettings {
    /// The files that `docker` and `podman` use, from the environment variables and the home
    /// directory: `$DOCKER_CONFIG/config.json` (else `~/.docker/config.json`), then
    /// `$REGISTRY_AUTH_FILE`, then `$XDG_RUNTIME_DIR/containers/auth.json` (else
    /// `/run/containers/UID/auth.json`) and `~/.config/containers/auth.json`.
    ///
    /// Source: docker's `config` package; containers-auth.json(5).
    pub fn from_variables<'a>(variable: impl Fn(&str) -> Option<&'a str>, home_dir: Option<&Path>) -> Self {
        let docker = variable("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(home_dir?.join(".docker")));
        let config =
            variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home_dir?.join(".config")));
        let of_containers =
            || format!("/run/containers/{}/auth.json", rustix::process::getuid().as_raw()).into();
        let containers = |dir: PathBuf| dir.join("containers/auth.json");
        let files = [
            docker.map(|dir| dir.join("config.json")),
            variable("REGISTRY_AUTH_FILE").map(PathBuf::from),
            Some(variable("XDG_RUNTIME_DIR").map_or_else(of_containers, |dir| containers(dir.into()))),
            config.map(containers),
        ];
        Self { files: files.into_iter().flatten().collect(), ..Self::default() }
    }

    /// Looks for the credential for a repository of a registry. A file that is malformed, or a
    /// helper that fails, is noted and does not disable the rest.
    ///
    /// # Errors
    /// `Cancelled`.
    pub async fn find(&self, registry: &str, repository: &str, job: &Job) -> Result<Lookup> {
        let mut lookup = Lookup { found: self.given.get(registry).cloned(), ..Lookup::default() };
        if lookup.found.is_some() {
            return Ok(lookup);
        }
        for file in &self.files {
            let Some(candidates) = files::candidates(file, registry, repository, &mut lookup.problems) else {
                continue;
            };
            for candidate in candidates {
                job.check()?;
                match candidate.credential(registry, HELPER_LIMIT, job).await? {
                    Ok(Some(found)) => {
                        lookup.found = Some(found);
                        return Ok(lookup);
                    }
                    Ok(None) => {}
                    Err(problem) => lookup.problems.push(problem),
                }
            }
        }
        Ok(lookup)
    }
}

/// How long a credential helper may take: it may ask the user for a password.
const HELPER_LIMIT: Duration = Duration::from_secs(60);

/// What [`CredentialSettings::find`] came upon.
#[derive(Debug, Default)]
pub struct Lookup {
    /// The credential; `None` means we go on as nobody.
    pub found: Option<Found>,
    /// Files and helpers that failed on the way, one sentence each.
    pub problems: Vec<String>,
}

/// A credential, and where it came from.
#[derive(Clone, Debug)]
pub struct Found {
    /// The credential.
    pub credential: Credential,
    /// Where it came from, for people: `` `auths` in `/home/me/.docker/config.json` ``.
    pub origin: String,
}

/// What we show to a registry.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A user name and a password.
    Password {
        /// The user name.
        username: String,
        /// The password.
        password: SecretString,
    },
    /// A token that is exchanged for access tokens (OAuth2 refresh token).
    IdentityToken(SecretString),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_where_docker_and_podman_put_credentials() {
        let variables = [("REGISTRY_AUTH_FILE", "/auth"), ("XDG_RUNTIME_DIR", "/run/me")];
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let files = CredentialSettings::from_variables(variable, Some(Path::new("/home/me"))).files;
        let files: Vec<&str> = files.iter().filter_map(|file| file.to_str()).collect();
        assert_eq!(
            files,
            [
                "/home/me/.docker/config.json",
                "/auth",
                "/run/me/containers/auth.json",
                "/home/me/.config/containers/auth.json"
            ]
        );
        let files = CredentialSettings::from_variables(|_| None, None).files;
        assert_eq!(files.len(), 1);
        assert!(files[0].starts_with("/run/containers"), "{files:?}");
    }

    #[tokio::test]
    async fn a_given_credential_is_the_only_one_of_its_registry() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("config.json");
        let auth = r#"{"auth":"dTpzZWNyZXQ="}"#;
        std::fs::write(&file, format!(r#"{{"auths":{{"a.io":{auth},"b.io":{auth}}}}}"#)).expect("write");
        let credential = Credential::Password { username: "issued".to_owned(), password: "secret".into() };
        let given = Found { credential, origin: "issued".to_owned() };
        let settings =
            CredentialSettings { files: vec![file], given: BTreeMap::from([("a.io".to_owned(), given)]) };
        for (registry, username) in [("a.io", "issued"), ("b.io", "u")] {
            let found = settings.find(registry, "x", &Job::silent()).await.expect("found").found;
            let Some(Found { credential: Credential::Password { username: seen, .. }, .. }) = found else {
                panic!("a password for {registry}")
            };
            assert_eq!(seen, username);
        }
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
