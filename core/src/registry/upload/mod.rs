//! Sending blobs: HEAD, then mount, then upload, in one request or in pieces.
//!
//! What registries do beyond the specification, and what is done about it:
//! Google Artifact Registry takes only whole blobs, many front ends only small requests: the form
//! that is refused is followed by the other. ECR answers 201 to a piece, and its `Range` may
//! stay at the first one: a success counts, not the `Range`. `Location` may be relative, may have
//! a query, and may lead to another host, which gets no credentials.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Instant;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, HeaderValue};
use reqwest::{Method, StatusCode};

use self::blob::Upload;
pub(super) use self::form::Form;
pub(super) use self::known::KnownBlobs;
use self::session::Begun;
pub(super) use self::session::Session;
pub use self::stream::{BlobSink, BlobStream};
pub(super) use self::turns::Turns;
pub use self::turns::UploadTurn;
use super::RegistryClient;
use super::authentication::Scope;
use super::endpoint::Endpoint;
use super::exchange::{Answer, Request};
use crate::backend::Job;
use crate::error::{ErrorKind, Result};
use crate::events::{Event, Events, Step, StepId, Unit};
use crate::image::Descriptor;
use crate::reference::Reference;

mod blob;
mod form;
mod known;
mod location;
mod part;
mod session;
mod stream;
mod through;
mod turns;

/// Pieces of what comes once only are held in memory until the registry has them, three at a
/// time: one that is being filled, one that waits, one on its way.
const LARGEST_PIECE_BYTES: u64 = 8 << 20;

/// Where the content of a blob is.
#[derive(Clone, Debug)]
pub enum BlobSource {
    /// In a file, which must not change while it is sent.
    File(PathBuf),
    /// In memory.
    Bytes(Bytes),
    /// At other registries, the likeliest first: it is sent on as it comes, verified, and not stored.
    /// One that fails on the way is followed by the next.
    Registries(Vec<Reference>),
}

/// How a blob came to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// It was taken over from another repository of the registry.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// Tells how far a blob is, under its digest.
#[derive(Clone, Debug)]
struct Report {
    events: Events,
    step: StepId,
    /// What it is, once that is known.
    blob: Option<Descriptor>,
}

impl Report {
    fn new(step: &Step, job: &Job) -> Self {
        Self { events: job.events.clone(), step: step.id(), blob: None }
    }

    fn of(&self, blob: &Descriptor) -> Self {
        Self { blob: Some(blob.clone()), ..self.clone() }
    }

    fn sent(&self, bytes: u64) {
        let Some(blob) = &self.blob else { return };
        self.events.emit(Event::StepProgressed {
            step: self.step,
            item: blob.digest.to_string(),
            current: bytes,
            total: Some(blob.size_bytes),
            unit: Unit::Bytes,
        });
    }
}

/// What was found out about a blob before anything is sent.
enum Claim {
    /// The repository has it.
    There(Pushed),
    /// It must be sent; to this address, if the registry named one already.
    Absent(Option<Begun>),
}

impl RegistryClient {
    /// Sees to it that a repository has a blob, in the cheapest way: asks for it, takes it over from
    /// `mount_from` (a repository of the same registry), sends it. Progress is reported under the digest.
    /// Any number may be called at once: no more are sent at a time than the settings allow.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`, `TimedOut`, `UnexpectedAnswer` as the registry does; `LocalIo` if
    /// the source cannot be read, `NotFound` or `Corrupt` if it is not there or not what its digest
    /// says; `Cancelled`. An upload that was begun is given up.
    pub async fn push_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        source: &BlobSource,
        mount_from: Option<&str>,
        step: &Step,
        job: &Job,
    ) -> Result<Pushed> {
        self.push_reported(repository, blob, source, mount_from, &Report::new(step, job), job).await
    }

    async fn push_reported(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        source: &BlobSource,
        mount_from: Option<&str>,
        report: &Report,
        job: &Job,
    ) -> Result<Pushed> {
        let endpoint = self.endpoint(repository.registry())?;
        match self.claim(&endpoint, repository, blob, mount_from, job).await? {
            Claim::There(pushed) => Ok(pushed),
            Claim::Absent(begun) => {
                let session = self.session(endpoint, repository, blob, job);
                self.upload(repository, Upload { session, blob, source, report: report.of(blob) }, begun)
                    .await
            }
        }
    }

    /// Sends a blob without asking whether it is there, unless that is known.
    ///
    /// # Errors
    /// As [`RegistryClient::push_blob`].
    pub async fn send_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        source: &BlobSource,
        step: &Step,
        job: &Job,
    ) -> Result<Pushed> {
        if self.knows_blob(repository, blob) {
            return Ok(Pushed::Existed);
        }
        let session = self.session(self.endpoint(repository.registry())?, repository, blob, job);
        let report = Report::new(step, job).of(blob);
        self.upload(repository, Upload { session, blob, source, report }, None).await
    }

    /// Sends a blob when it is its turn.
    async fn upload(
        &self,
        repository: &Reference,
        upload: Upload<'_>,
        begun: Option<Begun>,
    ) -> Result<Pushed> {
        let permit = async { Ok(self.inner.sending.acquire().await) };
        let _permit = match (upload.session.job.run(permit).await, begun) {
            (Ok(permit), begun) => {
                upload.run(begun).await?;
                permit
            }
            (Err(error), Some(begun)) => {
                upload.session.abandon(begun.location).await;
                return Err(error);
            }
            (Err(error), None) => return Err(error),
        };
        self.inner.known_blobs.note(&repository.name(), upload.blob.digest, Instant::now());
        Ok(Pushed::Uploaded)
    }

    /// Sees to it that a repository has a blob without sending it: asks for it, takes it over from
    /// `mount_from`. `None` if it must be sent.
    ///
    /// # Errors
    /// As [`RegistryClient::push_blob`].
    pub async fn claim_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        mount_from: Option<&str>,
        job: &Job,
    ) -> Result<Option<Pushed>> {
        let endpoint = self.endpoint(repository.registry())?;
        match self.claim(&endpoint, repository, blob, mount_from, job).await? {
            Claim::There(pushed) => Ok(Some(pushed)),
            Claim::Absent(None) => Ok(None),
            // It opened an upload instead, which nobody will use.
            Claim::Absent(Some(begun)) => {
                self.session(endpoint, repository, blob, job).abandon(begun.location).await;
                Ok(None)
            }
        }
    }

    /// Says whether a repository was seen to have a blob a short while ago.
    pub fn knows_blob(&self, repository: &Reference, blob: &Descriptor) -> bool {
        self.inner.known_blobs.has(&repository.name(), blob.digest, Instant::now())
    }

    /// Has a blob that the repository is not known to have taken over from another, without asking for it
    /// first, where the registry has done such a thing before; says whether the repository has it now.
    ///
    /// # Errors
    /// As [`RegistryClient::push_blob`].
    pub async fn mount_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        from: &str,
        job: &Job,
    ) -> Result<bool> {
        let registry = repository.registry();
        let mounts = self.inner.mounting.lock().unwrap_or_else(PoisonError::into_inner).contains(registry);
        if !mounts || from == repository.repository() {
            return Ok(false);
        }
        let endpoint = self.endpoint(registry)?;
        match self.mount(&endpoint, repository, blob, from, job).await? {
            Claim::There(_) => {
                self.inner.known_blobs.note(&repository.name(), blob.digest, Instant::now());
                Ok(true)
            }
            Claim::Absent(begun) => {
                if let Some(begun) = begun {
                    self.session(endpoint, repository, blob, job).abandon(begun.location).await;
                }
                Ok(false)
            }
        }
    }

    fn session(&self, endpoint: Endpoint, repository: &Reference, blob: &Descriptor, job: &Job) -> Session {
        Session {
            client: self.clone(),
            endpoint,
            scope: Scope::push(repository.repository()),
            what: format!("blob `{}` ({} bytes)", blob.digest, blob.size_bytes),
            job: job.clone(),
        }
    }

    async fn claim(
        &self,
        endpoint: &Endpoint,
        repository: &Reference,
        blob: &Descriptor,
        mount_from: Option<&str>,
        job: &Job,
    ) -> Result<Claim> {
        let (known, name) = (&self.inner.known_blobs, repository.name());
        if known.has(&name, blob.digest, Instant::now()) {
            return Ok(Claim::There(Pushed::Existed));
        }
        let scope = Scope::push(repository.repository());
        let mount_from = mount_from.filter(|from| *from != repository.repository());
        let claim = match (self.has_blob_as(endpoint, scope, blob, job).await?, mount_from) {
            (true, _) => Claim::There(Pushed::Existed),
            (false, Some(from)) => self.mount(endpoint, repository, blob, from, job).await?,
            (false, None) => Claim::Absent(None),
        };
        if matches!(claim, Claim::There(_)) {
            known.note(&name, blob.digest, Instant::now());
        }
        Ok(claim)
    }

    /// Asks the registry to take the blob over from another repository. That it cannot, or that we
    /// may not read there, only means that the blob is sent.
    async fn mount(
        &self,
        endpoint: &Endpoint,
        repository: &Reference,
        blob: &Descriptor,
        from: &str,
        job: &Job,
    ) -> Result<Claim> {
        let mut url = endpoint.url(repository.repository(), "blobs/uploads/");
        url.query_pairs_mut().append_pair("mount", &blob.digest.to_string()).append_pair("from", from);
        let scope = Scope { mount_from: Some(from.to_owned()), ..Scope::push(repository.repository()) };
        let request = Request::new(endpoint, scope, Method::POST, url.clone())
            .header(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let session = self.session(endpoint.clone(), repository, blob, job);
        match session.open(&request).await {
            Ok(Answer::Success(answer)) if answer.status() == StatusCode::CREATED => {
                let mut mounting = self.inner.mounting.lock().unwrap_or_else(PoisonError::into_inner);
                mounting.insert(repository.registry().to_owned());
                Ok(Claim::There(Pushed::Mounted))
            }
            Ok(Answer::Success(answer)) => Ok(Claim::Absent(session.begun(&url, answer.headers()))),
            Ok(Answer::Refused(_)) => Ok(Claim::Absent(None)),
            Err(error) if error.kind() == ErrorKind::Denied => Ok(Claim::Absent(None)),
            Err(error) => Err(error),
        }
    }
}
