//! Which engine the API calls go to: the one that the docker CLI would choose.
//!
//! `DOCKER_HOST`, else `DOCKER_CONTEXT`, else the current context of `config.json`, else the
//! default socket: the order of docker's `cli/command/cli.go`. (The options of the backend have
//! become variables before.)

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use windlass_core::Result;
use windlass_core::digest::Digest;
use windlass_core::error::{Error, ErrorKind, ResultExt};

use crate::surroundings::Surroundings;
use crate::wire::{CliConfig, ContextMeta};

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Where an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `unix://…`, `tcp://…`
    pub(crate) host: String,
    /// The directory of `ca.pem`, `cert.pem` and `key.pem`, for an engine behind TLS.
    pub(crate) certificates: Option<PathBuf>,
    /// Why this one.
    pub(crate) origin: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)
    }
}

impl Endpoint {
    /// Finds out which engine is meant; reads files, asks nobody.
    ///
    /// # Errors
    /// `InvalidConfig` if a context does not exist or a file of docker's is damaged.
    pub(crate) fn resolve(surroundings: &Surroundings) -> Result<Self> {
        if let Some(host) = surroundings.variable("DOCKER_HOST") {
            return Ok(Self {
                host: host.to_owned(),
                certificates: certificates_of_variables(surroundings),
                origin: "DOCKER_HOST".to_owned(),
            });
        }
        let directory = surroundings.docker_config_dir();
        let (context, origin) = match (surroundings.variable("DOCKER_CONTEXT"), &directory) {
            (Some(context), _) => (context.to_owned(), format!("DOCKER_CONTEXT `{context}`")),
            (None, Some(directory)) => {
                let config: CliConfig = read(&directory.join("config.json"))?.unwrap_or_default();
                let origin = format!("current docker context `{}`", config.current_context);
                (config.current_context, origin)
            }
            (None, None) => (String::new(), String::new()),
        };
        match directory {
            Some(directory) if !context.is_empty() && context != "default" => {
                Self::of_context(&directory, &context, origin)
            }
            _ => Ok(Self {
                host: DEFAULT_HOST.to_owned(),
                certificates: None,
                origin: "default socket".to_owned(),
            }),
        }
    }

    fn of_context(directory: &Path, context: &str, origin: String) -> Result<Self> {
        // docker names the directory of a context after the sha256 of its name.
        let id = Digest::of(context).hex();
        let contexts = directory.join("contexts");
        let meta: Option<ContextMeta> = read(&contexts.join("meta").join(&id).join("meta.json"))?;
        let host = meta.and_then(|mut meta| meta.endpoints.remove("docker")).map(|endpoint| endpoint.host);
        let Some(host) = host.filter(|host| !host.is_empty()) else {
            let message = format!("the docker context `{context}` does not exist or names no engine");
            return Err(Error::new(ErrorKind::InvalidConfig, message)
                .with_detail("chosen by", origin)
                .with_hint("`docker context ls` lists the contexts"));
        };
        let certificates = contexts.join("tls").join(&id).join("docker");
        let certificates = certificates.join("ca.pem").exists().then_some(certificates);
        Ok(Self { host, certificates, origin })
    }
}

/// TLS by variables: `DOCKER_TLS_VERIFY` or `DOCKER_CERT_PATH`, as the docker CLI reads them.
fn certificates_of_variables(surroundings: &Surroundings) -> Option<PathBuf> {
    let path = surroundings.variable("DOCKER_CERT_PATH").map(PathBuf::from);
    match surroundings.variable("DOCKER_TLS_VERIFY") {
        Some(_) => path.or_else(|| surroundings.docker_config_dir()),
        None => None,
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::new(ErrorKind::InvalidConfig, format!("could not read `{}`", path.display()))
                .with_source(error));
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .or_error(ErrorKind::InvalidConfig, || format!("`{}` is damaged", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A docker configuration with the context `far`, and the current context of `config.json`.
    fn configuration(current: &str) -> tempfile::TempDir {
        let directory = tempfile::TempDir::new().expect("a directory");
        let write = |path: &str, content: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, content).expect("written");
        };
        // `printf far | sha256sum`
        let id = "512eea46ceb3921dff4363c7069d89d4964d1d9fccaa0f411851a7aa60a5c868";
        write("config.json", &format!(r#"{{"auths": {{}}, "currentContext": "{current}"}}"#));
        write(
            &format!("contexts/meta/{id}/meta.json"),
            r#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://far:2376","SkipTLSVerify":false}}}"#,
        );
        write(&format!("contexts/tls/{id}/docker/ca.pem"), "");
        directory
    }

    fn resolve(directory: &Path, variables: &[(&str, &str)]) -> Result<Endpoint> {
        let mut environment: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        environment.insert("DOCKER_CONFIG".to_owned(), directory.display().to_string());
        Endpoint::resolve(&Surroundings::for_tests(environment))
    }

    #[test]
    fn the_order_is_that_of_docker() {
        let directory = configuration("far");
        let host = |variables: &[(&str, &str)]| resolve(directory.path(), variables).expect("resolved").host;
        assert_eq!(host(&[("DOCKER_HOST", "tcp://a:1"), ("DOCKER_CONTEXT", "far")]), "tcp://a:1");
        assert_eq!(host(&[("DOCKER_CONTEXT", "default")]), DEFAULT_HOST);
        assert_eq!(host(&[("DOCKER_HOST", "")]), "tcp://far:2376");
        let directory = configuration("");
        assert_eq!(resolve(directory.path(), &[]).expect("resolved").origin, "default socket");
    }

    #[test]
    fn a_context_brings_its_certificates() {
        let directory = configuration("");
        let far = resolve(directory.path(), &[("DOCKER_CONTEXT", "far")]).expect("resolved");
        assert!(far.certificates.expect("certificates").ends_with("docker"));
        let variables = [("DOCKER_HOST", "tcp://a:1"), ("DOCKER_TLS_VERIFY", "1")];
        let variable = resolve(directory.path(), &variables).expect("resolved");
        assert_eq!(variable.certificates.as_deref(), Some(directory.path()));
        assert_eq!(resolve(directory.path(), &variables[..1]).expect("resolved").certificates, None);
    }

    #[test]
    fn an_unknown_context_and_a_damaged_file_are_errors() {
        let directory = configuration("");
        let unknown = resolve(directory.path(), &[("DOCKER_CONTEXT", "nope")]).expect_err("unknown");
        assert_eq!(unknown.kind(), ErrorKind::InvalidConfig);
        std::fs::write(directory.path().join("config.json"), "{").expect("written");
        let damaged = resolve(directory.path(), &[]).expect_err("damaged");
        assert!(damaged.to_string().contains("config.json"), "{damaged}");
    }
}
