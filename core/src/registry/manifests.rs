//! Manifests and indexes: ask for them, fetch them, send them; and whether a registry is there.

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Serialize;

use super::RegistryClient;
use super::authentication::Scope;
use super::endpoint::Endpoint;
use super::exchange::{Answer, Payload, Request};
use crate::backend::Job;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::image::media_type::ACCEPTED_DOCUMENTS;
use crate::image::{DOCUMENT_LIMIT_BYTES, Descriptor};
use crate::reference::Reference;

/// How a registry answered [`RegistryClient::ping`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ping {
    /// It lets us in: as nobody, or with our credential.
    pub accepted: bool,
    /// Where our credential comes from, if there is one.
    pub credentials_from: Option<String>,
    /// Files and helpers with credentials that failed.
    pub problems: Vec<String>,
    /// It is reached over TLS.
    pub secure: bool,
}

/// What a manifest is asked for by: the digest where there is one, else the tag.
fn name_of(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

impl RegistryClient {
    /// Asks what a reference stands for, without downloading it. `None` means that the registry
    /// said "not found", and nothing else.
    ///
    /// # Errors
    /// `Denied`, with a hint how to log in; `Unavailable` with the cause; `TimedOut`; `Cancelled`.
    pub async fn head_manifest(&self, reference: &Reference, job: &Job) -> Result<Option<Descriptor>> {
        for place in self.places(reference).iter().filter(|place| *place != reference) {
            match self.head_manifest_at(place, job).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => self.pass_over(place, error, job)?,
            }
        }
        self.head_manifest_at(reference, job).await
    }

    async fn head_manifest_at(&self, reference: &Reference, job: &Job) -> Result<Option<Descriptor>> {
        let response =
            match self.ask(Method::HEAD, reference, Scope::pull(reference.repository()), job).await? {
                Answer::Success(response) => response,
                Answer::Refused(refusal) if refusal.status == StatusCode::NOT_FOUND => return Ok(None),
                // Some registries do not know HEAD.
                Answer::Refused(refusal) if refusal.status == StatusCode::METHOD_NOT_ALLOWED => {
                    return self.optional_manifest(reference, job).await;
                }
                Answer::Refused(refusal) => return Err(self.not_asked(refusal, reference, job).await),
            };
        match described(response.headers(), reference) {
            Some(descriptor) => {
                check_digest(reference, descriptor.digest)?;
                Ok(Some(descriptor))
            }
            // An answer without digest or size: the document itself has both.
            None => self.optional_manifest(reference, job).await,
        }
    }

    /// Asks whether a repository that we push to has a manifest or index.
    ///
    /// # Errors
    /// As [`RegistryClient::head_manifest`].
    pub async fn has_manifest(&self, reference: &Reference, job: &Job) -> Result<bool> {
        match self.ask(Method::HEAD, reference, Scope::push(reference.repository()), job).await? {
            Answer::Success(_) => Ok(true),
            // A registry that does not know HEAD, or does not let us look, is sent everything again.
            Answer::Refused(refusal)
                if matches!(
                    refusal.status,
                    StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::FORBIDDEN
                ) =>
            {
                Ok(false)
            }
            Answer::Refused(refusal) => {
                let endpoint = self.endpoint(reference.registry())?;
                let message = format!("could not push to `{}`", reference.name());
                Err(self.refused(refusal, &message, &endpoint, reference.repository(), job).await)
            }
        }
    }

    /// Fetches a manifest or index as the bytes that its digest is of.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if the bytes are not those of the digest asked for; and as
    /// [`RegistryClient::head_manifest`].
    pub async fn manifest(&self, reference: &Reference, job: &Job) -> Result<(Descriptor, Bytes)> {
        for place in self.places(reference).iter().filter(|place| *place != reference) {
            match self.manifest_at(place, job).await {
                Ok(found) => return Ok(found),
                Err(error) => self.pass_over(place, error, job)?,
            }
        }
        self.manifest_at(reference, job).await
    }

    async fn manifest_at(&self, reference: &Reference, job: &Job) -> Result<(Descriptor, Bytes)> {
        let endpoint = self.endpoint(reference.registry())?;
        let request = question(&endpoint, Method::GET, reference, Scope::pull(reference.repository()));
        let (headers, bytes) = match self.exchange_document(&request, DOCUMENT_LIMIT_BYTES, job).await? {
            Ok(answer) => answer,
            Err(refusal) => return Err(self.not_asked(refusal, reference, job).await),
        };
        let (announced, media_type) = (digest_header(&headers), media_type(&headers));
        let digest = Digest::of(&bytes);
        check_digest(reference, digest)?;
        if announced.is_some_and(|announced| announced != digest) {
            return Err(wrong_digest(reference, digest));
        }
        let media_type = media_type.unwrap_or_default();
        let document = crate::image::Document::parse(&media_type, &bytes, &format!("`{reference}`"))?;
        let media_type = match crate::image::media_type::is_manifest(&media_type)
            || crate::image::media_type::is_index(&media_type)
        {
            true => media_type,
            false => document.media_type().to_owned(),
        };
        Ok((Descriptor::new(media_type, digest, bytes.len() as u64), bytes))
    }

    /// Sends a manifest or index under the tag of a reference, or under its digest.
    ///
    /// # Errors
    /// `Corrupt` if the registry has stored something else; and as [`RegistryClient::head_manifest`].
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &Bytes,
        job: &Job,
    ) -> Result<Digest> {
        let digest = Digest::of(bytes);
        check_digest(reference, digest)?;
        let endpoint = self.endpoint(reference.registry())?;
        let name = match (reference.tag(), reference.digest()) {
            (Some(tag), _) => tag.to_owned(),
            (None, _) => digest.to_string(),
        };
        let url = endpoint.url(reference.repository(), &format!("manifests/{name}"));
        let content_type = HeaderValue::from_str(media_type)
            .or_error(ErrorKind::InvalidInput, || format!("`{media_type}` is no media type"))?;
        let request = Request::new(&endpoint, Scope::push(reference.repository()), Method::PUT, url)
            .header(CONTENT_TYPE, content_type)
            .payload(Payload::Bytes(bytes.clone()));
        match self.exchange(&request, job).await? {
            Answer::Success(response) => {
                if digest_header(response.headers()).is_some_and(|stored| stored != digest) {
                    return Err(Error::new(
                        ErrorKind::Corrupt,
                        format!("`{}` has stored something other than what was sent", reference.registry()),
                    )
                    .with_detail("reference", reference.to_string()));
                }
                Ok(digest)
            }
            Answer::Refused(refusal) => {
                let message = format!("could not push the manifest of `{reference}`");
                Err(self.refused(refusal, &message, &endpoint, reference.repository(), job).await)
            }
        }
    }

    /// Removes a manifest by its digest, or a tag where the registry can do that.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` where the registry does not allow it; and as
    /// [`RegistryClient::head_manifest`].
    pub async fn delete_manifest(&self, reference: &Reference, job: &Job) -> Result<()> {
        let endpoint = self.endpoint(reference.registry())?;
        let url = endpoint.url(reference.repository(), &format!("manifests/{}", name_of(reference)));
        let request = Request::new(&endpoint, Scope::push(reference.repository()), Method::DELETE, url);
        match self.exchange(&request, job).await? {
            Answer::Success(_) => Ok(()),
            Answer::Refused(refusal) if refusal.status == StatusCode::METHOD_NOT_ALLOWED => {
                let message = format!("`{}` does not allow to remove `{reference}`", reference.registry());
                Err(Error::new(ErrorKind::Unsupported, message))
            }
            Answer::Refused(refusal) => {
                let message = format!("could not remove `{reference}`");
                Err(self.refused(refusal, &message, &endpoint, reference.repository(), job).await)
            }
        }
    }

    /// Reaches a registry and says whether it lets us in. For the doctor: nothing else needs it.
    ///
    /// # Errors
    /// `Unavailable`, `TimedOut`, `Cancelled`.
    pub async fn ping(&self, registry: &str, job: &Job) -> Result<Ping> {
        let endpoint = self.endpoint(registry)?;
        let request = Request::new(&endpoint, Scope::default(), Method::GET, endpoint.base.clone());
        let accepted = match self.exchange(&request, job).await {
            Ok(Answer::Success(_)) => true,
            Ok(Answer::Refused(refusal)) => {
                if !matches!(refusal.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    let message = format!("`{registry}` does not answer as a registry");
                    let failure = refusal.into_failure(&message, true);
                    return Err(failure.into_error());
                }
                false
            }
            Err(error) if error.kind() == ErrorKind::Denied => false,
            Err(error) => return Err(error),
        };
        let lookup = self.inner.authenticator.lookup(&endpoint, "", job).await?;
        Ok(Ping {
            accepted,
            credentials_from: lookup.found.as_ref().map(|found| found.origin.clone()),
            problems: lookup.problems.clone(),
            secure: endpoint.is_secure(),
        })
    }

    async fn ask(&self, method: Method, reference: &Reference, scope: Scope, job: &Job) -> Result<Answer> {
        let endpoint = self.endpoint(reference.registry())?;
        self.exchange(&question(&endpoint, method, reference, scope), job).await
    }

    async fn optional_manifest(&self, reference: &Reference, job: &Job) -> Result<Option<Descriptor>> {
        match self.manifest_at(reference, job).await {
            Ok((descriptor, _)) => Ok(Some(descriptor)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn not_asked(&self, refusal: super::refusal::Refusal, reference: &Reference, job: &Job) -> Error {
        let message = match refusal.status {
            StatusCode::NOT_FOUND => format!("`{reference}` does not exist"),
            _ => format!("could not look up `{reference}`"),
        };
        match self.endpoint(reference.registry()) {
            Ok(endpoint) => self.refused(refusal, &message, &endpoint, reference.repository(), job).await,
            Err(error) => error,
        }
    }
}

/// The question for a manifest or index.
fn question<'a>(endpoint: &'a Endpoint, method: Method, reference: &Reference, scope: Scope) -> Request<'a> {
    let url = endpoint.url(reference.repository(), &format!("manifests/{}", name_of(reference)));
    let accept = HeaderValue::from_str(&ACCEPTED_DOCUMENTS.join(", ")).expect("media types are ASCII");
    Request::new(endpoint, scope, method, url).header(ACCEPT, accept)
}

/// The descriptor in the head of an answer; `None` if something is missing.
fn described(headers: &HeaderMap, reference: &Reference) -> Option<Descriptor> {
    let digest = digest_header(headers).or(reference.digest())?;
    let size_bytes = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok().filter(|size| *size > 0)?;
    Some(Descriptor::new(media_type(headers)?, digest, size_bytes))
}

pub(super) fn digest_header(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// The media type without parameters such as `; charset=utf-8`.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_owned())
}

fn check_digest(reference: &Reference, digest: Digest) -> Result<()> {
    match reference.digest() {
        Some(expected) if expected != digest => Err(wrong_digest(reference, digest)),
        _ => Ok(()),
    }
}

fn wrong_digest(reference: &Reference, digest: Digest) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the manifest of `{reference}` is not what its digest says"))
        .with_detail("digest of what came", digest.to_string())
}
