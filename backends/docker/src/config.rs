//! The options of the `docker` backend, every default stated.

use std::time::Duration;

use serde::Deserialize;
use windlass_core::Result;
use windlass_core::backend_registry::BackendSetup;
use windlass_core::error::{Error, ErrorKind};

const KNOWN: &[&str] = &["docker", "docker-host", "context", "builder", "extra-args", "via", "stop-seconds"];

/// The options, as `[backends.NAME]` of the configuration gives them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The docker program: a name to look up in `PATH`, or a path. `docker` by default.
    pub(crate) docker: String,
    /// The engine, as `DOCKER_HOST` would name it. By default what the environment and the
    /// current docker context say.
    pub(crate) docker_host: Option<String>,
    /// A docker context. Excludes `docker-host`.
    pub(crate) context: Option<String>,
    /// A builder of buildx; `--builder` of a build wins. By default the one the user selected.
    pub(crate) builder: Option<String>,
    /// Further arguments for `docker buildx build`, before the context.
    pub(crate) extra_args: Vec<String>,
    /// Which way builds go; `auto` by default.
    pub(crate) via: Via,
    /// How long a build that was interrupted may take to stop before it is killed. 10 by default.
    pub(crate) stop_seconds: u64,
}

/// Which way a build goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Via {
    /// Through buildx; where that is missing and the engine answers, through the engine, with a
    /// warning.
    #[default]
    Auto,
    /// Through `docker buildx build`.
    Buildx,
    /// Through the BuildKit inside the engine.
    Engine,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            docker: "docker".to_owned(),
            docker_host: None,
            context: None,
            builder: None,
            extra_args: Vec::new(),
            via: Via::default(),
            stop_seconds: 10,
        }
    }
}

impl Config {
    /// Reads and checks the options.
    ///
    /// # Errors
    /// `InvalidConfig`: an option is unknown, has the wrong form, or contradicts another.
    pub(crate) fn read(setup: &BackendSetup) -> Result<Self> {
        let config: Self = setup.options.parse(&setup.name, KNOWN)?;
        if config.docker_host.is_some() && config.context.is_some() {
            let message =
                format!("`docker-host` and `context` of the backend `{}` both name an engine", setup.name);
            return Err(Error::new(ErrorKind::InvalidConfig, message).with_hint("keep one of the two"));
        }
        if config.docker.is_empty() {
            let message = format!("`docker` of the backend `{}` names no program", setup.name);
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        Ok(config)
    }

    /// How long an interrupted build may take to stop.
    pub(crate) fn stop_within(&self) -> Duration {
        Duration::from_secs(self.stop_seconds)
    }
}
