//! The registries that are up while the tests run, one of each kind.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use windlass_tests::service::{
    Absent, Certificates, Error, Registry, RegistryOptions, TokenHabits, TokenServer, from_environment,
    variables,
};

/// What is up. Started from the main thread, which outlives the tests.
#[derive(Debug)]
pub(crate) struct World {
    /// Plain http, nobody is asked; holds `base/busybox:1`, an index of two platforms.
    pub(crate) open: Registry,
    /// Plain http, asks for the account by Basic.
    pub(crate) basic: Registry,
    /// TLS, asks for the account by Basic.
    pub(crate) secure: Registry,
    /// TLS, asks for a certificate of the authority.
    pub(crate) mutual: Registry,
    /// Plain http, asks for a token of `tokens`.
    pub(crate) bearer: Registry,
    /// The token server of `bearer`.
    pub(crate) tokens: TokenServer,
    /// The authority of `secure` and `mutual`.
    pub(crate) certificates: Certificates,
    /// An authority that nobody knows.
    pub(crate) strangers: Certificates,
    /// An engine for `docker load`.
    pub(crate) engine: String,
    // Dropped last: the registries read from it.
    _directory: TempDir,
}

impl World {
    /// Starts everything.
    pub(crate) fn new() -> Result<Self, Absent> {
        let engine = from_environment(variables::DOCKER_HOST)?;
        let bases = from_environment(variables::BASES)?;
        Self::start(engine, &bases).map_err(|error| Absent::Missing(error.to_string()))
    }

    fn start(engine: String, bases: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let directory = tempfile::Builder::new().prefix("windlass-registry.").tempdir()?;
        let make = |name: &str| -> Result<Certificates, Box<dyn std::error::Error>> {
            let own: PathBuf = directory.path().join(name);
            std::fs::create_dir(&own)?;
            Ok(Certificates::make(name, &own)?)
        };
        let (certificates, strangers) = (make("authority")?, make("strangers")?);
        let tokens = TokenServer::start(TokenHabits::default(), directory.path())?;
        let (server, authority) = (&certificates.server, certificates.authority.as_path());
        let options = [
            RegistryOptions::default(),
            RegistryOptions { accounts: true, ..RegistryOptions::default() },
            RegistryOptions { accounts: true, certificate: Some(server), ..RegistryOptions::default() },
            RegistryOptions {
                certificate: Some(server),
                client_authority: Some(authority),
                ..RegistryOptions::default()
            },
            RegistryOptions { tokens: Some(&tokens), ..RegistryOptions::default() },
        ];
        let [open, basic, secure, mutual, bearer] = options.each_ref().map(Registry::start_with);
        let open = open?;
        copy_base(bases, &open)?;
        Ok(Self {
            open,
            basic: basic?,
            secure: secure?,
            mutual: mutual?,
            bearer: bearer?,
            tokens,
            certificates,
            strangers,
            engine,
            _directory: directory,
        })
    }
}

fn copy_base(bases: &str, registry: &Registry) -> Result<(), Error> {
    let arguments = [
        "copy",
        "--quiet",
        "--all",
        "--dest-tls-verify=false",
        &format!("oci:{bases}/busybox:1"),
        &format!("docker://{}/base/busybox:1", registry.address()),
    ];
    let output = Command::new("skopeo")
        .args(arguments)
        .output()
        .map_err(|source| Error::Io { what: "run skopeo".into(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Command { command: "skopeo copy".into(), stderr })
}
