//! A backend that writes down every image it makes.
//!
//! It builds through the embedded backend and appends one line of JSON to a ledger for each image, as a
//! platform might that has to say later what it built. It needs the option `ledger`; it can do what
//! `oci` can.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use windlass_core::backend::{
    Backend, Capabilities, CheckReport, FindScope, FoundImage, Job, PlannedAction,
};
use windlass_core::backend_registry::{BackendOptions, BackendSetup, BackendType};
use windlass_core::digest::Digest;
use windlass_core::reference::Reference;
use windlass_core::remote::RemoteBuilds;
use windlass_core::request::{BuildRequest, BuiltImage};
use windlass_core::{Error, ErrorKind, Result, ResultExt};

/// What the program registers.
pub fn backend_type() -> BackendType {
    BackendType {
        name: "audited",
        summary: "the embedded builder, with a ledger of every image",
        capabilities: || (windlass_oci::backend_type().capabilities)(),
        factory: |setup| Ok(Arc::new(Audited::new(setup)?)),
    }
}

/// `[backends.NAME]` with `type = "audited"`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Config {
    /// The file that lines are appended to. Required.
    ledger: Option<PathBuf>,
}

/// One line of the ledger.
#[derive(Serialize)]
struct Line<'a> {
    references: &'a [Reference],
    digest: Option<Digest>,
    reused: bool,
}

#[derive(Debug)]
struct Audited {
    name: String,
    ledger: PathBuf,
    inner: Arc<dyn Backend>,
}

impl Audited {
    fn new(setup: BackendSetup) -> Result<Self> {
        let config: Config = setup.options.parse(&setup.name, &["ledger"])?;
        let ledger = config.ledger.ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, format!("the backend `{}` has no ledger", setup.name))
                .with_hint("set `ledger` to the file that its lines go to")
        })?;
        let inner = BackendSetup { options: BackendOptions::default(), ..setup.clone() };
        Ok(Self {
            ledger: setup.host.current_dir.join(ledger),
            inner: (windlass_oci::backend_type().factory)(inner)?,
            name: setup.name,
        })
    }

    fn record(&self, references: &[Reference], digest: Option<Digest>, reused: bool) -> Result<()> {
        let line = serde_json::to_string(&Line { references, digest, reused });
        line.map_err(std::io::Error::from)
            .and_then(|line| {
                // One write of one whole line: two builds at the same time do not mix theirs.
                let mut file = OpenOptions::new().create(true).append(true).open(&self.ledger)?;
                file.write_all(format!("{line}\n").as_bytes())
            })
            .or_error(ErrorKind::LocalIo, || {
                format!("could not record the image in `{}`", self.ledger.display())
            })
    }
}

#[async_trait]
impl Backend for Audited {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn check(&self, job: &Job) -> CheckReport {
        let mut report = self.inner.check(job).await;
        // A check changes nothing, so it does not make the file: its directory will do.
        let place = if self.ledger.exists() { Some(self.ledger.as_path()) } else { self.ledger.parent() };
        match place.map(std::fs::metadata).transpose() {
            Ok(_) => report.good("ledger", self.ledger.display().to_string()),
            Err(error) => report.bad(
                "ledger",
                format!("{}: {error}", self.ledger.display()),
                "set `ledger` to a file that can be written",
            ),
        }
        report
    }

    async fn find(
        &self,
        reference: &Reference,
        scope: FindScope,
        job: &Job,
    ) -> Result<Option<FoundImage>> {
        self.inner.find(reference, scope, job).await
    }

    async fn tag(&self, image: &FoundImage, references: &[Reference], job: &Job) -> Result<()> {
        self.inner.tag(image, references, job).await?;
        self.record(references, image.digest, true)
    }

    async fn plan(&self, request: &BuildRequest, job: &Job) -> Result<Vec<PlannedAction>> {
        let mut actions = self.inner.plan(request, job).await?;
        actions.push(PlannedAction {
            verb: "record".to_owned(),
            subject: self.ledger.display().to_string(),
            details: Vec::new(),
        });
        Ok(actions)
    }

    async fn build(&self, request: &BuildRequest, job: &Job) -> Result<BuiltImage> {
        let image = self.inner.build(request, job).await?;
        self.record(&image.references, image.digest, image.reused)?;
        Ok(image)
    }

    fn remote(&self) -> Option<&dyn RemoteBuilds> {
        self.inner.remote()
    }
}
