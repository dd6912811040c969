//! The client for image registries.
//!
//! A registry keeps repositories; a repository keeps blobs (content by digest) and manifests
//! (documents by digest, some with tags). To fetch an image is to ask for the manifest by its tag
//! and for blobs by their digests; to send one is the same the other way around: blobs first,
//! then the manifest that names them, so that no reader ever meets a half of it.
//!
//! Of `oci_distribution` we use what it knows about the errors of registries. Its client does not
//! carry our requests: it sends blobs without asking whether they can be mounted or resumed, decides
//! once for all registries how they are sent, hides the size and media type of a HEAD answer and
//! `Retry-After`, fetches tokens neither with identity tokens nor for two repositories at once,
//! and builds an HTTP client of its own. So there is one way for every request, and it is
//! [`exchange`](self): authentication, retries and time limits are in it; the other files say
//! what is asked.
//!
//! Source: OCI distribution-spec, and what registries do beyond it (each noted where it matters).

mod authentication;
mod budget;
mod challenge;
mod download;
mod endpoint;
mod exchange;
mod manifests;
mod mirrors;
mod preflight;
mod refusal;
mod settings;
mod tags;
#[cfg(test)]
mod tests;
mod token;
mod upload;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

pub use manifests::Ping;
pub use preflight::{Authentication, PushCheck, ShownCredential, ShownToken};
pub use settings::{HostSettings, RegistrySettings};
pub use upload::{BlobSink, BlobSource, BlobStream, Pushed, UploadTurn};

use self::authentication::Authenticator;
use self::endpoint::Endpoint;
use self::upload::{Form, KnownBlobs, Turns};
use crate::error::Result;

/// The client for image registries. Clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: RegistrySettings,
    authenticator: Authenticator,
    endpoints: Mutex<HashMap<String, Endpoint>>,
    mirrors_down: Mutex<HashSet<String>>,
    forms: Mutex<HashMap<String, Form>>,
    known_blobs: KnownBlobs,
    turns: Turns,
    /// The registries that have taken a blob over from another repository.
    mounting: Mutex<HashSet<String>>,
    /// Permits for blobs that are being sent: asking for them is not limited by it.
    sending: Semaphore,
}

impl RegistryClient {
    /// Makes a client. Reaches for nothing yet.
    ///
    /// # Errors
    /// `InvalidConfig` for certificate files of the settings that cannot be read, and for mirrors
    /// that are no hosts.
    pub fn new(mut settings: RegistrySettings) -> Result<Self> {
        mirrors::settle(&mut settings)?;
        let authenticator = Authenticator::new(settings.credentials.clone());
        let hosts: Vec<String> = settings.hosts.keys().cloned().collect();
        let sending = Semaphore::new(settings.concurrency.clamp(1, Semaphore::MAX_PERMITS));
        let inner = Inner {
            settings,
            authenticator,
            endpoints: Mutex::default(),
            mirrors_down: Mutex::default(),
            forms: Mutex::default(),
            known_blobs: KnownBlobs::default(),
            turns: Turns::default(),
            mounting: Mutex::default(),
            sending,
        };
        let client = Self { inner: Arc::new(inner) };
        hosts.iter().try_for_each(|host| client.endpoint(host).map(drop))?;
        Ok(client)
    }

    /// What it was told about its surroundings.
    pub fn settings(&self) -> &RegistrySettings {
        &self.inner.settings
    }

    fn endpoint(&self, registry: &str) -> Result<Endpoint> {
        let mut endpoints = self.inner.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = endpoints.get(registry) {
            return Ok(endpoint.clone());
        }
        let endpoint = Endpoint::new(registry, &self.inner.settings)?;
        endpoints.insert(registry.to_owned(), endpoint.clone());
        Ok(endpoint)
    }
}
