//! Gathers what the surroundings say, in the one written order: files, environment, arguments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_core::archive::{ArchiveSettings, Compression, Timestamps, UnpackLimit};
use windlass_core::backend_registry::Host;
use windlass_core::config::{self, CompressionSection, ContextSection, Settings, Sources};
use windlass_core::context::{ContextSettings, Modes};
use windlass_core::credentials::CredentialSettings;
use windlass_core::error::ResultExt;
use windlass_core::http::RetryPolicy;
use windlass_core::registry::{RegistryClient, RegistrySettings};
use windlass_core::{Error, ErrorKind, Result};

use crate::args::GlobalArgs;

/// What the process was started with.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// The environment variables; those that are not UTF-8 mean nothing to us and are left out.
    pub(crate) environment: BTreeMap<String, String>,
    /// Where the process was started.
    pub(crate) current_dir: PathBuf,
}

impl Surroundings {
    /// Asks the process.
    pub(crate) fn gather() -> Result<Self> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let current_dir = std::env::current_dir()
            .or_error(ErrorKind::LocalIo, || "the current directory does not exist any more")?;
        Ok(Self { environment, current_dir })
    }

    /// A variable; an empty one counts as unset.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn home_dir(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from).filter(|home| home.is_absolute())
    }

    /// A directory of the XDG base directory specification: relative values do not count.
    fn xdg(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let named = self.variable(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        named.or_else(|| Some(self.home_dir()?.join(below_home)))
    }

    /// The user's own file.
    pub(crate) fn user_file(&self) -> Option<PathBuf> {
        Some(self.xdg("XDG_CONFIG_HOME", ".config")?.join("windlass/config.toml"))
    }
}

/// Reads the settings for work on a directory; `start` is the context, if the command has one.
pub(crate) fn load(
    global: &GlobalArgs,
    surroundings: &Surroundings,
    start: Option<&Path>,
) -> Result<Settings> {
    let named = global.config.clone().or_else(|| surroundings.variable("WINDLASS_CONFIG").map(PathBuf::from));
    let project_file = match named {
        Some(file) if !surroundings.current_dir.join(&file).is_file() => {
            let message = format!("the configuration file `{}` does not exist", file.display());
            return Err(Error::new(ErrorKind::InvalidConfig, message)
                .with_hint("`windlass config init` writes one to start with"));
        }
        Some(file) => Some(surroundings.current_dir.join(file)),
        None => nearest_project_file(surroundings, start),
    };
    config::load(&Sources {
        user_file: surroundings.user_file(),
        project_file,
        environment: Some(&surroundings.environment),
        overrides: &global.set,
    })
}

/// The file of the context's project, else that of the current directory's.
fn nearest_project_file(surroundings: &Surroundings, start: Option<&Path>) -> Option<PathBuf> {
    let context = start.and_then(|start| surroundings.current_dir.join(start).canonicalize().ok());
    let of_context = context.and_then(|context| config::project_file(&context));
    of_context.or_else(|| config::project_file(&surroundings.current_dir))
}

/// Makes what backends get to know of this machine.
pub(crate) fn host(settings: &Settings, surroundings: &Surroundings) -> Result<Arc<Host>> {
    let directory = |set: &Option<PathBuf>, variable, below_home, key| {
        let set = set.as_ref().map(|path| surroundings.current_dir.join(path));
        set.or_else(|| Some(surroundings.xdg(variable, below_home)?.join("windlass"))).ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, format!("nothing says where `{key}` is: HOME is not set"))
                .with_hint(format!("set HOME, {variable} or the setting `{key}`"))
        })
    };
    Ok(Arc::new(Host {
        environment: surroundings.environment.clone(),
        home_dir: surroundings.home_dir(),
        current_dir: surroundings.current_dir.clone(),
        cache_dir: directory(&settings.cache_dir, "XDG_CACHE_HOME", ".cache", "cache-dir")?,
        state_dir: directory(&settings.state_dir, "XDG_STATE_HOME", ".local/state", "state-dir")?,
        registry_client: registry_client(settings, surroundings)?,
        archive: archive_settings(settings, surroundings)?,
    }))
}

fn registry_client(settings: &Settings, surroundings: &Surroundings) -> Result<RegistryClient> {
    let home_dir = surroundings.home_dir();
    let retry = RetryPolicy::default();
    RegistryClient::new(RegistrySettings {
        hosts: settings.registries.clone(),
        credentials: CredentialSettings::from_variables(
            |name| surroundings.variable(name),
            home_dir.as_deref(),
        ),
        connect_timeout: settings.timeouts.connect,
        answer_timeout: settings.timeouts.answer,
        silence_timeout: settings.timeouts.silence,
        blob_answer_timeout: settings.timeouts.blob_answer,
        retry: RetryPolicy {
            retries: settings.retries.count,
            retries_when_refused: retry.retries_when_refused.min(settings.retries.count),
            first_wait: settings.retries.first_wait,
            longest_wait: settings.retries.longest_wait,
            ..retry
        },
        concurrency: settings.transfers.concurrency,
        whole_limit_bytes: settings.transfers.whole_limit,
        piece_bytes: settings.transfers.piece_size,
        requests_per_minute: None,
    })
}

/// How contexts are read.
pub(crate) fn context_settings(section: &ContextSection) -> ContextSettings {
    let default = ContextSettings::default();
    ContextSettings {
        ignore: section.ignore,
        modes: if section.modes == "normalize" { Modes::Normalize } else { Modes::Keep },
        warn_secrets: section.warn_secrets,
        secret_patterns: section.secret_patterns.clone().unwrap_or(default.secret_patterns),
        warn_size_bytes: Some(section.warn_size).filter(|limit| *limit > 0),
    }
}

/// `SOURCE_DATE_EPOCH` of the environment.
///
/// # Errors
/// `InvalidInput` if it is not a number of seconds.
pub(crate) fn source_date_epoch(text: Option<&str>) -> Result<Option<i64>> {
    let Some(text) = text else { return Ok(None) };
    match text.trim().parse::<i64>() {
        Ok(seconds) if (0..=LAST_SECOND).contains(&seconds) => Ok(Some(seconds)),
        _ => Err(Error::new(ErrorKind::InvalidInput, format!("invalid SOURCE_DATE_EPOCH `{text}`"))
            .with_hint("it is whole seconds since 1970, such as `$(git log -1 --format=%ct)`")),
    }
}

/// 9999-12-31T23:59:59Z: later times have no place in an image config.
const LAST_SECOND: i64 = 253_402_300_799;

fn archive_settings(settings: &Settings, surroundings: &Surroundings) -> Result<ArchiveSettings> {
    let keep = settings.context.timestamps == "keep";
    Ok(ArchiveSettings {
        compression: compression(&settings.compression)
            .map_err(|error| error.with_detail("set in", settings.origin("compression.level").to_string()))?,
        timestamps: if keep { Timestamps::Keep } else { Timestamps::Fixed },
        source_date_epoch: source_date_epoch(surroundings.variable("SOURCE_DATE_EPOCH"))?,
        unpack_limit: UnpackLimit::of_bytes(settings.limits.unpack),
    })
}

fn compression(section: &CompressionSection) -> Result<Compression> {
    compression_of(&section.format, section.level.map(|level| level.clamp(-1_000, 1_000) as i32))
}

/// The compression of this name: `gzip`, `zstd`, or none.
pub(crate) fn compression_of(name: &str, level: Option<i32>) -> Result<Compression> {
    let compression = match name {
        "gzip" => Compression::gzip(),
        "zstd" => Compression::zstd(),
        _ => Compression::None,
    };
    level.map_or(Ok(compression), |level| compression.with_level(level))
}
