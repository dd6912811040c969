//! What a team may choose about its contexts.

/// How a context is read, and what is said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextSettings {
    /// The ignore file is obeyed. Default: yes.
    pub ignore: bool,
    /// What permission bits count. Default: those on disk.
    pub modes: Modes,
    /// Warn about files that look like secrets. Default: yes.
    pub warn_secrets: bool,
    /// What looks like a secret, in the syntax of `.dockerignore`, the last match wins.
    /// Default: [`DEFAULT_SECRET_PATTERNS`].
    pub secret_patterns: Vec<String>,
    /// Warn if the files together are larger than this; never if `None`. Default: 1 GiB.
    pub warn_size_bytes: Option<u64>,
}

impl Default for ContextSettings {
    fn default() -> Self {
        Self {
            ignore: true,
            modes: Modes::Keep,
            warn_secrets: true,
            secret_patterns: DEFAULT_SECRET_PATTERNS.iter().map(ToString::to_string).collect(),
            warn_size_bytes: Some(1 << 30),
        }
    }
}

/// Names that secrets usually have.
pub const DEFAULT_SECRET_PATTERNS: &[&str] = &[
    "**/.env",
    "**/.env.*",
    "!**/.env.example",
    "!**/.env.sample",
    "!**/.env.template",
    "!**/.env.dist",
    "**/id_rsa",
    "**/id_dsa",
    "**/id_ecdsa",
    "**/id_ed25519",
    "**/*.key",
    "**/*-key.pem",
    "**/*_key.pem",
    "**/privkey*.pem",
    "**/*.p12",
    "**/*.pfx",
    "**/*.kdbx",
    "**/.netrc",
    "**/.pypirc",
    "**/.npmrc",
    "**/.git-credentials",
    "**/.aws/credentials",
    "**/.docker/config.json",
    "**/.kube/config",
];

/// What permission bits entries have, in archives, images and fingerprints alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Modes {
    /// Those on disk.
    #[default]
    Keep,
    /// 0755 for directories and for files that their owner may execute, 0644 for the others: the
    /// same whatever the umask of the machine was.
    Normalize,
}

impl Modes {
    /// The permission bits that an entry gets which has these on disk.
    pub(super) fn apply(self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Keep => mode & 0o7777,
            Self::Normalize if is_directory || mode & 0o100 != 0 => 0o755,
            Self::Normalize => 0o644,
        }
    }
}
