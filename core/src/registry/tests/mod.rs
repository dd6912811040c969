//! What a registry may do to us, and what we do then.

mod download;
mod fake;
mod login;
mod preflight;
mod stopped;
mod stream;
mod through;
mod upload;

use std::time::Duration;

use super::{RegistryClient, RegistrySettings};
use crate::credentials::CredentialSettings;
use crate::http::RetryPolicy;
use crate::reference::Reference;

/// A client that does not wait long, with the credential `u:secret` for one registry.
fn client(login_to: Option<&str>) -> (RegistryClient, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("config.json");
    if let Some(registry) = login_to {
        let auths = format!(r#"{{"auths":{{"{registry}":{{"auth":"dTpzZWNyZXQ="}}}}}}"#);
        std::fs::write(&file, auths).expect("write");
    }
    let settings = RegistrySettings {
        credentials: CredentialSettings { files: vec![file], ..CredentialSettings::default() },
        retry: RetryPolicy { first_wait: Duration::from_millis(1), ..RetryPolicy::default() },
        whole_limit_bytes: 1000,
        piece_bytes: 400,
        ..RegistrySettings::default()
    };
    (RegistryClient::new(settings).expect("client"), dir)
}

fn reference(host: &str) -> Reference {
    format!("{host}/a/b:1").parse().expect("reference")
}
