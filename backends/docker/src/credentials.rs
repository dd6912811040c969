//! The user's credentials in the form in which the engine takes them.
//!
//! Only for builds and pushes through the engine's API: buildx reads docker's files itself.

use std::collections::HashMap;

use bollard::auth::DockerCredentials;
use secrecy::ExposeSecret;
use windlass_core::Result;
use windlass_core::backend::Job;
use windlass_core::credentials::Credential;
use windlass_core::dockerfile;
use windlass_core::reference::{DOCKER_HUB, Reference};
use windlass_core::registry::RegistryClient;
use windlass_core::request::BuildRequest;

/// The name under which docker keeps and asks for the credential of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The credential for a repository, if there is one.
///
/// # Errors
/// `Cancelled`.
pub(crate) async fn of(
    client: &RegistryClient,
    repository: &Reference,
    job: &Job,
) -> Result<Option<DockerCredentials>> {
    let registry = repository.registry();
    let lookup = client.settings().credentials.find(registry, repository.repository(), job).await?;
    for problem in lookup.problems {
        job.events.warn(problem);
    }
    Ok(lookup.found.map(|found| {
        let server = DockerCredentials { serveraddress: Some(key(registry)), ..DockerCredentials::default() };
        match found.credential {
            Credential::Password { username, password } => DockerCredentials {
                username: Some(username),
                password: Some(password.expose_secret().to_owned()),
                ..server
            },
            Credential::IdentityToken(token) => {
                DockerCredentials { identitytoken: Some(token.expose_secret().to_owned()), ..server }
            }
        }
    }))
}

/// The credentials for the images that a request is built from, by registry.
///
/// # Errors
/// `Cancelled`.
pub(crate) async fn of_bases(
    client: &RegistryClient,
    request: &BuildRequest,
    job: &Job,
) -> Result<HashMap<String, DockerCredentials>> {
    let mut credentials = HashMap::new();
    // A Dockerfile that we cannot read is BuildKit's to refuse, in its own words.
    for base in dockerfile::base_images(request).unwrap_or_default() {
        let key = key(base.registry());
        if !credentials.contains_key(&key)
            && let Some(credential) = of(client, &base, job).await?
        {
            credentials.insert(key, credential);
        }
    }
    Ok(credentials)
}

fn key(registry: &str) -> String {
    if registry == DOCKER_HUB { DOCKER_HUB_KEY.to_owned() } else { registry.to_owned() }
}
