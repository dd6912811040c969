//! The management API, call by call.
//!
//! Questions, aliases and credentials are asked for again where the service is busy or the connection
//! breaks. What makes or ends a snapshot is sent once: it is repeated only where it certainly did not
//! arrive (nobody listens) or was turned away (429).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_core::backend::Job;
use windlass_core::backend_registry::{BackendOptions, Host};
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::http::{Failure, RetryPolicy};
use windlass_core::service::ServiceClient;

use super::credential::IssuedCredential;
use super::failure;
use super::options::Options;
use super::path::{component, query};
use super::wire::{
    CredentialAnswer, NewAlias, NewSnapshot, Snapshot, SnapshotAlias, SnapshotPage, SnapshotQuery,
};

/// So many snapshots can be asked for at once.
const BATCH_LIMIT: usize = 100;

/// The management API of Together. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Management {
    client: ServiceClient,
    retry: RetryPolicy,
    /// Who says what the address is, for messages.
    source: String,
}

/// Whether a call may be made again when nobody knows what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing, or the same once more.
    Safe,
    /// It must not; what to do about it.
    Never(&'static str),
}

/// One call.
struct Call<'a, T: ?Sized> {
    /// What it does: `list snapshots`.
    operation: &'a str,
    method: Method,
    url: Url,
    document: Option<&'a T>,
    repeat: Repeat,
}

impl Management {
    /// The service that the environment says, with the usual manners; reaches for nothing.
    ///
    /// # Errors
    /// `InvalidConfig` if there is no key, or the address is none.
    pub fn from_environment(host: &Host) -> Result<Self> {
        Self::with_options(host, BackendOptions::default(), crate::TYPE)
    }

    /// The same with the options of the backend `name`, as far as they hold for this service too:
    /// `url`, `api-key-env`, `ca-file`, `insecure`, `attempts`, `retry-first-wait`, `retry-after-limit`,
    /// `connect-timeout`, `call-timeout`.
    ///
    /// # Errors
    /// `InvalidConfig`.
    pub fn with_options(host: &Host, options: BackendOptions, name: &str) -> Result<Self> {
        let options = Options::read(options, name)?;
        let (settings, source) = options.service(name, host)?;
        Ok(Self { client: ServiceClient::new(settings)?, retry: options.retry(), source })
    }

    /// How messages name it: host, and port where it is not the usual one.
    pub fn server(&self) -> &str {
        self.client.server()
    }

    /// Gets a credential for Together's registry.
    ///
    /// # Errors
    /// `Denied` if the key does not count; `Unavailable`; `UnexpectedAnswer`, which shows nothing of the
    /// answer.
    pub async fn issue_credential(&self, job: &Job) -> Result<IssuedCredential> {
        let operation = "issue a registry credential";
        let url = self.url("/container-registries/default/credentials");
        let call = Call::<()> { operation, method: Method::POST, url, document: None, repeat: Repeat::Safe };
        let body = self.call(call, job).await?;
        let answer: Option<CredentialAnswer> = serde_json::from_slice(&body).ok();
        answer.map_or(Err("a credential"), IssuedCredential::read).map_err(|missing| {
            let message = format!(
                "Failed to {operation}: `{}` answered without {missing} that can be used",
                self.server()
            );
            Error::new(ErrorKind::UnexpectedAnswer, message)
        })
    }

    /// Makes a snapshot of an image.
    ///
    /// # Errors
    /// `InvalidInput` with every field that the service finds wrong; `Denied`, `Unavailable`. The hints say
    /// so where it may have been made all the same.
    pub async fn create_snapshot(&self, new: &NewSnapshot, job: &Job) -> Result<Snapshot> {
        let hint =
            "it may have been made all the same, so it is not sent again: look with `windlass snapshot list`";
        let call = Call {
            operation: "create snapshot",
            method: Method::POST,
            url: self.url("/snapshots"),
            document: Some(new),
            repeat: Repeat::Never(hint),
        };
        self.read(call, "no snapshot", job).await.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedAnswer | ErrorKind::Cancelled => error.with_hint(hint),
            _ => error,
        })
    }

    /// Lists one page of snapshots, as the service orders them.
    ///
    /// # Errors
    /// As the service says.
    pub async fn list_snapshots(&self, wanted: &SnapshotQuery, job: &Job) -> Result<SnapshotPage> {
        let mut pairs = Vec::new();
        let mut add = |name: String, value: &str| pairs.push((name, value.to_owned()));
        if let Some(limit) = wanted.limit {
            add("limit".to_owned(), &limit.to_string());
        }
        if let Some(cursor) = &wanted.cursor {
            add("cursor".to_owned(), cursor);
        }
        if wanted.exclude_retired {
            add("exclude_retired".to_owned(), "true");
        }
        for (key, value) in &wanted.tags {
            add(format!("tags[{key}]"), value);
        }
        let mut url = self.url("/snapshots");
        url.set_query(query(&pairs).as_deref());
        self.ask("list snapshots", url, "no list of snapshots", job).await
    }

    /// Gets several snapshots, in the order of the ids; those that do not exist are left out.
    ///
    /// # Errors
    /// As the service says.
    pub async fn get_snapshots(&self, ids: &[String], job: &Job) -> Result<Vec<Snapshot>> {
        let mut seen = BTreeSet::new();
        let different: Vec<&String> = ids.iter().filter(|id| seen.insert(*id)).collect();
        let mut found: BTreeMap<String, Snapshot> = BTreeMap::new();
        for batch in different.chunks(BATCH_LIMIT) {
            let pairs: Vec<_> = batch.iter().map(|id| ("ids[]".to_owned(), (*id).clone())).collect();
            let mut url = self.url("/snapshots/batch");
            url.set_query(query(&pairs).as_deref());
            let page: Vec<Snapshot> = self.ask("get snapshots", url, "no list of snapshots", job).await?;
            found.extend(page.into_iter().map(|snapshot| (snapshot.id.to_ascii_lowercase(), snapshot)));
        }
        Ok(different.into_iter().filter_map(|id| found.remove(&id.to_ascii_lowercase())).collect())
    }

    /// Gets the snapshot with this id, or with `@ALIAS` what that points to.
    ///
    /// # Errors
    /// `NotFound`; else as the service says.
    pub async fn get_snapshot(&self, id_or_alias: &str, job: &Job) -> Result<Snapshot> {
        let url = match id_or_alias.strip_prefix('@') {
            Some(alias) => self.url(&format!("/snapshots/@{}", component(alias))),
            None => self.snapshot_url(id_or_alias, "")?,
        };
        self.ask(&format!("get snapshot `{id_or_alias}`"), url, "no snapshot", job).await
    }

    /// Points an alias, taken verbatim, to a snapshot; where it pointed before does not matter.
    ///
    /// # Errors
    /// `NotFound` if there is no such snapshot; else as the service says.
    pub async fn alias(&self, id: &str, alias: &str, job: &Job) -> Result<()> {
        let (operation, url) = (format!("set alias `{alias}`"), self.snapshot_url(id, "/aliases")?);
        let document = NewAlias { alias: alias_segment(alias).map(|_| alias)? };
        let call = Call {
            operation: &operation,
            method: Method::POST,
            url,
            document: Some(&document),
            repeat: Repeat::Safe,
        };
        self.call(call, job).await.map(drop)
    }

    /// The aliases that point to a snapshot.
    ///
    /// # Errors
    /// `NotFound` if there is no such snapshot; else as the service says.
    pub async fn aliases(&self, id: &str, job: &Job) -> Result<Vec<SnapshotAlias>> {
        let url = self.snapshot_url(id, "/aliases")?;
        self.ask(&format!("list aliases of `{id}`"), url, "no list of aliases", job).await
    }

    /// Removes an alias, taken verbatim. The service does not say whether there was one.
    ///
    /// # Errors
    /// As the service says.
    pub async fn unalias(&self, alias: &str, job: &Job) -> Result<()> {
        let operation = format!("remove alias `{alias}`");
        let url = self.url(&format!("/snapshot-aliases/{}", alias_segment(alias)?));
        let call = Call::<()> {
            operation: &operation,
            method: Method::DELETE,
            url,
            document: None,
            repeat: Repeat::Safe,
        };
        self.call(call, job).await.map(drop)
    }

    /// Retires a snapshot: it cannot be used any more.
    ///
    /// # Errors
    /// `NotFound` if there is no such snapshot; else as the service says.
    pub async fn retire(&self, id: &str, job: &Job) -> Result<Snapshot> {
        let operation = format!("retire snapshot `{id}`");
        let call = Call::<()> {
            operation: &operation,
            method: Method::POST,
            url: self.snapshot_url(id, "/retire")?,
            document: None,
            repeat: Repeat::Never("it may be retired all the same: `windlass snapshot get` says so"),
        };
        self.read(call, "no snapshot", job).await
    }

    /// The address of a call below `/v1`; `path` is encoded already.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.client.url(&["v1"], &[]);
        url.set_path(&format!("{}{path}", url.path()));
        url
    }

    fn snapshot_url(&self, id: &str, call: &str) -> Result<Url> {
        if matches!(id, "" | "." | "..") {
            return Err(Error::new(ErrorKind::InvalidInput, format!("`{id}` is no id of a snapshot")));
        }
        Ok(self.url(&format!("/snapshots/{}{call}", component(id))))
    }

    async fn ask<T: DeserializeOwned>(&self, operation: &str, url: Url, no: &str, job: &Job) -> Result<T> {
        let call = Call::<()> { operation, method: Method::GET, url, document: None, repeat: Repeat::Safe };
        self.read(call, no, job).await
    }

    async fn read<T: DeserializeOwned, D: Serialize + ?Sized>(
        &self,
        call: Call<'_, D>,
        no: &str,
        job: &Job,
    ) -> Result<T> {
        let operation = call.operation;
        let body = self.call(call, job).await?;
        self.client.read(&body, no).map_err(|error| {
            let failed = Error::new(error.kind(), format!("Failed to {operation}: {}", error.message()));
            match std::error::Error::source(&error) {
                Some(said) => failed.with_source(said.to_string()),
                None => failed,
            }
        })
    }

    async fn call<D: Serialize + ?Sized>(&self, call: Call<'_, D>, job: &Job) -> Result<Bytes> {
        let mut attempts = self.retry.attempts(format!("`{}`", self.server()), job);
        loop {
            let once =
                async { Ok(self.client.call(call.method.clone(), call.url.clone(), call.document).await) };
            let failure = match job.run(once).await? {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(refusal)) => {
                    let error = failure::refused(call.operation, self.client.key(), &self.source, &refusal);
                    let turned_away = refusal.status == StatusCode::TOO_MANY_REQUESTS;
                    match call.repeat {
                        _ if turned_away || call.repeat == Repeat::Safe && refusal.may_pass() => {
                            let retry_after = refusal.retry_after;
                            Failure::Transient { error, retry_after, refused: false }
                        }
                        Repeat::Never(hint) if refusal.may_pass() => Failure::Final(error.with_hint(hint)),
                        _ => Failure::Final(error),
                    }
                }
                Err(failure) => {
                    match (failure::broke_off(call.operation, &self.source, failure), call.repeat) {
                        (Failure::Transient { error, refused: false, .. }, Repeat::Never(hint)) => {
                            Failure::Final(error.with_hint(hint))
                        }
                        (failure, _) => failure,
                    }
                }
            };
            attempts.again(failure).await?;
        }
    }
}

/// An alias as a part of a path. Two cannot be one: servers take them for steps in the path.
pub(super) fn alias_segment(alias: &str) -> Result<String> {
    match alias {
        "" | "." | ".." => Err(Error::new(ErrorKind::InvalidInput, format!("`{alias}` cannot be an alias"))),
        _ => Ok(component(alias)),
    }
}
