//! Docker's `config.json` and containers' `auth.json`: which of their entries is for a registry.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use docker_credential::DockerCredential;
use serde::Deserialize;
use serde_json::Value;

use super::{Credential, DOCKER_HUB_KEY, Found, helper};
use crate::backend::Job;
use crate::error::Result;
use crate::reference::DOCKER_HUB;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ConfigFile {
    auths: Option<BTreeMap<String, Value>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

/// One place that may hold the credential. Not to be printed: an entry holds its secret.
pub(super) enum Candidate {
    /// A helper program, asked for this server.
    Helper { name: String, server: String, origin: String },
    /// An entry of `auths`, as a document that `docker_credential` reads.
    Entry { document: String, server: String, origin: String },
}

/// The places in one file, in Docker's order: the helper of the registry, the helper of all
/// registries, the file itself. `None` if there is no such file.
pub(super) fn candidates(
    file: &Path,
    registry: &str,
    repository: &str,
    problems: &mut Vec<String>,
) -> Option<Vec<Candidate>> {
    let config: ConfigFile = match fs::read(file) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(config) => config,
            Err(error) => {
                // serde_json's message may quote what it found; position and category do not.
                problems.push(format!("`{}` is malformed (line {})", file.display(), error.line()));
                return None;
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            problems.push(format!("could not read `{}`: {error}", file.display()));
            return None;
        }
    };
    let shown = file.display();
    let server = if is_docker_hub(registry) { DOCKER_HUB_KEY } else { registry }.to_owned();
    let mut found = Vec::new();
    let helpers = config.cred_helpers.unwrap_or_default();
    if let Some((key, name)) = helpers.iter().find(|(key, _)| matches(key, registry)) {
        let (name, origin) = (name.clone(), format!("the helper `{name}` (`credHelpers` of `{shown}`)"));
        // The helper knows the server by the name that it is registered for.
        let server = if is_docker_hub(registry) { server.clone() } else { key.clone() };
        found.push(Candidate::Helper { name, server, origin });
    }
    if let Some(name) = config.creds_store.filter(|name| !name.is_empty()) {
        let origin = format!("the helper `{name}` (`credsStore` of `{shown}`)");
        found.push(Candidate::Helper { name, server: server.clone(), origin });
    }
    let mut auths = config.auths.unwrap_or_default();
    auths.retain(|_, entry| holds_something(entry));
    if let Some((key, entry)) = best_entry(&auths, registry, repository) {
        let document = serde_json::json!({ "auths": { &server: entry } }).to_string();
        let origin = format!("the entry `{key}` (`auths` of `{shown}`)");
        found.push(Candidate::Entry { document, server, origin });
    }
    found.retain(|candidate| match candidate {
        Candidate::Helper { name, origin, .. } if !helper::is_name(name) => {
            problems.push(format!("{origin} has no valid name"));
            false
        }
        _ => true,
    });
    Some(found)
}

impl Candidate {
    /// Gets the credential, or says in a sentence why that failed. `None` if there is none.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(super) async fn credential(
        self,
        registry: &str,
        limit: Duration,
        job: &Job,
    ) -> Result<Result<Option<Found>, String>> {
        let (credential, origin) = match self {
            Self::Helper { name, server, origin } => {
                let answer = job.run(async { Ok(helper::get(&name, &server, limit).await) }).await?;
                (answer.map_err(|why| format!("{origin} failed for `{registry}`: {why}")), origin)
            }
            Self::Entry { document, server, origin } => {
                let answer = docker_credential::get_credential_from_reader(document.as_bytes(), &server);
                let credential = answer.map(|credential| Some(ours(credential)));
                (credential.map_err(|error| format!("{origin} for `{registry}`: {error}")), origin)
            }
        };
        Ok(credential.map(|found| found.map(|credential| Found { credential, origin })))
    }
}

pub(super) fn ours(credential: DockerCredential) -> Credential {
    match credential {
        DockerCredential::IdentityToken(token) => Credential::IdentityToken(token.into()),
        DockerCredential::UsernamePassword(username, password) => {
            // `docker login` pads some passwords with zero bytes.
            Credential::Password { username, password: password.trim_end_matches('\0').into() }
        }
    }
}

/// Docker leaves empty entries behind when a helper keeps the secret.
fn holds_something(entry: &Value) -> bool {
    ["auth", "identitytoken", "username"]
        .iter()
        .any(|key| entry.get(key).and_then(Value::as_str).is_some_and(|value| !value.is_empty()))
}

/// The entry for the longest matching part of `registry/repository`: containers' auth.json has
/// entries for single repositories too.
fn best_entry<'a>(
    auths: &'a BTreeMap<String, Value>,
    registry: &str,
    repository: &str,
) -> Option<(&'a String, &'a Value)> {
    let mut name = Some(repository);
    while let Some(part) = name {
        let key = format!("{registry}/{part}");
        if let Some(entry) = auths.get_key_value(&key) {
            return Some(entry);
        }
        name = part.rsplit_once('/').map(|(parent, _)| parent);
    }
    auths.get_key_value(registry).or_else(|| auths.iter().find(|(key, _)| matches(key, registry)))
}

/// Keys may be `host`, `host:port`, `https://host`, `https://host/v1/`.
fn matches(key: &str, registry: &str) -> bool {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let whole_host = matches!(path.trim_end_matches('/'), "" | "v1" | "v2");
    whole_host && (host == registry || (is_docker_hub(host) && is_docker_hub(registry)))
}

fn is_docker_hub(host: &str) -> bool {
    matches!(host, DOCKER_HUB | "index.docker.io" | "registry-1.docker.io")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::CredentialSettings;
    use secrecy::ExposeSecret;

    async fn find(config: &str, registry: &str, repository: &str) -> (Option<String>, Vec<String>) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("config.json");
        fs::write(&file, config).expect("write");
        let settings = CredentialSettings {
            files: vec!["/nonexistent/config.json".into(), file],
            ..CredentialSettings::default()
        };
        let lookup = settings.find(registry, repository, &Job::silent()).await.expect("not cancelled");
        assert!(!format!("{lookup:?}").contains("secret"), "{lookup:?}");
        let shown = lookup.found.map(|found| match found.credential {
            Credential::Password { username, password } => format!("{username}:{}", password.expose_secret()),
            Credential::IdentityToken(token) => format!("token:{}", token.expose_secret()),
        });
        (shown, lookup.problems)
    }

    // `dTpzZWNyZXQ=` is `u:secret`, `djpzZWNyZXQ=` is `v:secret`.
    #[tokio::test]
    async fn finds_the_entry_of_a_registry_under_every_form_of_its_key() {
        for (key, registry) in [
            ("ghcr.io", "ghcr.io"),
            ("https://ghcr.io", "ghcr.io"),
            ("https://ghcr.io/v1/", "ghcr.io"),
            ("localhost:5000", "localhost:5000"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
        ] {
            let config = format!(r#"{{"auths":{{"other":{{}},"{key}":{{"auth":"dTpzZWNyZXQ="}}}}}}"#);
            let (found, problems) = find(&config, registry, "acme/app").await;
            assert_eq!(found.as_deref(), Some("u:secret"), "{key}: {problems:?}");
        }
        let (found, _) = find(r#"{"auths":{"ghcr.io.evil":{"auth":"dTpzZWNyZXQ="}}}"#, "ghcr.io", "a").await;
        assert_eq!(found, None);
    }

    #[tokio::test]
    async fn the_most_exact_entry_wins() {
        let config =
            r#"{"auths":{"quay.io":{"auth":"dTpzZWNyZXQ="},"quay.io/acme":{"auth":"djpzZWNyZXQ="}}}"#;
        assert_eq!(find(config, "quay.io", "acme/app").await.0.as_deref(), Some("v:secret"));
        assert_eq!(find(config, "quay.io", "acmee/app").await.0.as_deref(), Some("u:secret"));
    }

    #[tokio::test]
    async fn reads_identity_tokens_and_skips_empty_entries() {
        let config = r#"{"auths":{"a.io":{"identitytoken":"secret"},"b.io":{}}}"#;
        assert_eq!(find(config, "a.io", "x").await.0.as_deref(), Some("token:secret"));
        let (found, problems) = find(config, "b.io", "x").await;
        assert_eq!((found, problems), (None, Vec::new()));
    }

    #[tokio::test]
    async fn an_empty_entry_hides_no_other() {
        let auth = r#"{"auth":"dTpzZWNyZXQ="}"#;
        let config = format!(r#"{{"auths":{{"a.io/acme":{{}},"https://a.io":{auth}}}}}"#);
        assert_eq!(find(&config, "a.io", "acme/app").await.0.as_deref(), Some("u:secret"));
        let plain = r#"{"auths":{"a.io":{"username":"u","password":"secret"}}}"#;
        assert_eq!(find(plain, "a.io", "acme/app").await.0.as_deref(), Some("u:secret"));
    }

    #[tokio::test]
    async fn a_failing_helper_is_named_and_does_not_disable_the_rest() {
        let config = r#"{"auths":{"a.io":{"auth":"dTpzZWNyZXQ="}},"credsStore":"windlass-none","credHelpers":{"a.io":"../evil"}}"#;
        let (found, problems) = find(config, "a.io", "x").await;
        assert_eq!(found.as_deref(), Some("u:secret"));
        assert!(problems[0].contains("`../evil`"), "{problems:?}");
        assert!(problems[1].contains("`windlass-none`"), "{problems:?}");
    }

    #[tokio::test]
    async fn a_malformed_file_is_named_and_not_quoted() {
        let (found, problems) = find("{\"auths\":\"secret\"}", "a.io", "x").await;
        assert_eq!(found, None);
        assert!(problems[0].contains("config.json") && !problems[0].contains("secret"), "{problems:?}");
    }
}
