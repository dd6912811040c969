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
