//! The environment that docker sees: the host's, with the engine that the options name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use windlass_core::backend_registry::Host;

use crate::config::Config;

/// What docker reads besides its command line.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    environment: BTreeMap<String, String>,
    /// What of it the options set; shown with a command line.
    set: Vec<(&'static str, String)>,
    home_dir: Option<PathBuf>,
    current_dir: PathBuf,
}

impl Surroundings {
    /// The host's environment, changed as the options say.
    pub(crate) fn new(config: &Config, host: &Host) -> Self {
        let mut environment = host.environment.clone();
        let mut set = Vec::new();
        // `DOCKER_HOST` wins over `DOCKER_CONTEXT` in the docker CLI, so the other one must go.
        let (wanted, other) = match (&config.docker_host, &config.context) {
            (Some(docker_host), _) => (Some(("DOCKER_HOST", docker_host)), "DOCKER_CONTEXT"),
            (_, Some(context)) => (Some(("DOCKER_CONTEXT", context)), "DOCKER_HOST"),
            _ => (None, ""),
        };
        environment.remove(other);
        if let Some((name, value)) = wanted {
            environment.insert(name.to_owned(), value.clone());
            set.push((name, value.clone()));
        }
        // buildx would take it from the environment; whether it counts is the request's to say.
        environment.remove("SOURCE_DATE_EPOCH");
        Self { environment, set, home_dir: host.home_dir.clone(), current_dir: host.current_dir.clone() }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(environment: BTreeMap<String, String>) -> Self {
        Self { environment, set: Vec::new(), home_dir: None, current_dir: PathBuf::from("/") }
    }

    /// All variables.
    pub(crate) fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// A variable; an empty one counts as unset.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The variables that the options set.
    pub(crate) fn set(&self) -> &[(&'static str, String)] {
        &self.set
    }

    /// Where relative paths start.
    pub(crate) fn current_dir(&self) -> &Path {
        &self.current_dir
    }

    /// Where the docker CLI keeps its configuration, contexts and certificates.
    pub(crate) fn docker_config_dir(&self) -> Option<PathBuf> {
        match self.variable("DOCKER_CONFIG") {
            Some(directory) => Some(self.current_dir.join(directory)),
            None => self.home_dir.as_ref().map(|home| home.join(".docker")),
        }
    }
}
