//! The real registry (`docker-registry`, which is CNCF distribution) on a loopback port.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::daemon::Daemon;
use super::{Error, free_port};

/// A registry with storage of its own, over plain http and without credentials, in which manifests may be deleted.
#[derive(Debug)]
pub struct Registry {
    // Dropped in this order: the program first, then its files.
    _daemon: Daemon,
    _directory: TempDir,
    address: String,
}

impl Registry {
    /// Starts an empty registry and waits until it answers.
    ///
    /// # Errors
    /// `Exited` or `Silent` if it does not answer; `Io` if it, its directory or its port cannot be had.
    pub fn start() -> Result<Self, Error> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| Error::Io { what, source }
        };
        let directory = tempfile::Builder::new()
            .prefix("windlass-registry.")
            .tempdir()
            .map_err(io("make a directory for the registry"))?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let config = directory.path().join("config.yml");
        std::fs::write(&config, config_text(&directory.path().join("storage"), &address))
            .map_err(io("write the registry's configuration"))?;

        let config = config.to_string_lossy();
        let log = directory.path().join("log");
        let mut daemon = Daemon::start("docker-registry", &["serve", &config], &log)?;
        daemon.wait_until(|| answers(&address))?;
        Ok(Self { _daemon: daemon, _directory: directory, address })
    }

    /// `127.0.0.1:PORT`: what comes before the repository in an image reference.
    pub fn address(&self) -> &str {
        &self.address
    }
}

fn config_text(storage: &Path, address: &str) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: info, accesslog: {{disabled: false}}}}\n\
         storage:\n  \
           filesystem: {{rootdirectory: '{}'}}\n  \
           delete: {{enabled: true}}\n\
         http: {{addr: '{address}', secret: not-a-secret}}\n",
        storage.display()
    )
}

/// True once `GET /v2/` has the answer 200, as the distribution specification promises ("determining support").
fn answers(address: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(start.starts_with(b"HTTP/1.") && start.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
