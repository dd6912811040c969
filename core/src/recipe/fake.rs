//! A backend that only pretends, for the tests of decisions and of what follows from them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::Barrier;

use crate::backend::{
    Backend, Capabilities, CheckReport, Feature, FindScope, FoundImage, Job, PlannedAction,
};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::reference::Reference;
use crate::remote::RemoteBuilds;
use crate::request::{BuildRequest, BuiltImage};

/// Finds what it is told to, and remembers what it was asked and what it built.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) name: &'static str,
    pub(crate) capabilities: Capabilities,
    /// The check says that builds work.
    pub(crate) well: bool,
    /// Tags in its own store.
    pub(crate) store: Vec<String>,
    /// Tags in the registry.
    pub(crate) registry: Vec<String>,
    /// Tags that cannot be asked for, and how that fails.
    pub(crate) failures: BTreeMap<String, ErrorKind>,
    /// Answers only when as many have asked.
    pub(crate) together: Option<Barrier>,
    /// A file that somebody changes while `build` is at work.
    pub(crate) changes: Option<std::path::PathBuf>,
    /// A file that somebody changes while `find` is at work.
    pub(crate) changes_early: Option<std::path::PathBuf>,
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) built: Mutex<Vec<BuildRequest>>,
}

impl Fake {
    /// One that can do everything, in whose store these tags are.
    pub(crate) fn with(tags: &[&str]) -> Self {
        Self {
            name: "fake",
            capabilities: Capabilities::of(Feature::ALL.iter().copied()),
            well: true,
            store: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            registry: Vec::new(),
            failures: BTreeMap::new(),
            together: None,
            changes: None,
            changes_early: None,
            asked: Mutex::default(),
            built: Mutex::default(),
        }
    }

    /// The questions so far, sorted: they come all at once.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().expect("no test panics while it holds this").clone();
        asked.sort();
        asked
    }

    /// The only build.
    pub(crate) fn built(&self) -> BuildRequest {
        let built = self.built.lock().expect("no test panics while it holds this");
        assert_eq!(built.len(), 1, "{built:?}");
        built[0].clone()
    }

    pub(crate) fn has_built(&self) -> bool {
        !self.built.lock().expect("no test panics while it holds this").is_empty()
    }
}

#[async_trait]
impl Backend for Fake {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn check(&self, _: &Job) -> CheckReport {
        let mut report = CheckReport::default();
        if !self.well {
            report.bad("the machine", "is off", "switch it on");
        }
        report
    }

    async fn find(&self, reference: &Reference, scope: FindScope, _: &Job) -> Result<Option<FoundImage>> {
        let tag = reference.tag().unwrap_or_default();
        let words = format!("{tag} {scope:?}");
        self.asked.lock().expect("no test panics while it holds this").push(words);
        if let Some(file) = &self.changes_early {
            std::fs::write(file, "something else").expect("writable");
        }
        if let Some(barrier) = &self.together {
            barrier.wait().await;
        }
        if let Some(kind) = self.failures.get(tag) {
            return Err(Error::new(*kind, "no answer"));
        }
        let (here, there) = (self.store.iter().any(|t| t == tag), self.registry.iter().any(|t| t == tag));
        let (found, in_registry) = match scope {
            FindScope::Store => (here, false),
            FindScope::Registry => (there, true),
            FindScope::StoreThenRegistry => (here || there, !here),
        };
        Ok(found.then(|| FoundImage {
            reference: reference.clone(),
            digest: Some(Digest::of(tag)),
            image_id: None,
            platforms: Vec::new(),
            in_registry,
        }))
    }

    async fn tag(&self, image: &FoundImage, references: &[Reference], _: &Job) -> Result<()> {
        let names: Vec<String> = references.iter().map(Reference::familiar).collect();
        let words = format!("tag {} {}", image.reference.familiar(), names.join(" "));
        self.asked.lock().expect("no test panics while it holds this").push(words);
        Ok(())
    }

    /// Where it lacks RUN it refuses it, as the real ones do.
    async fn plan(&self, request: &BuildRequest, _: &Job) -> Result<Vec<PlannedAction>> {
        let text = String::from_utf8_lossy(&request.dockerfile.content).into_owned();
        if !self.capabilities.has(Feature::Run) && text.contains("\nRUN ") {
            return Err(Error::unsupported(Feature::Run, "RUN cannot be built"));
        }
        Ok(Vec::new())
    }

    async fn build(&self, request: &BuildRequest, _: &Job) -> Result<BuiltImage> {
        self.built.lock().expect("no test panics while it holds this").push(request.clone());
        if let Some(file) = &self.changes {
            std::fs::write(file, "something else").expect("writable");
        }
        if !self.well {
            return Err(Error::new(ErrorKind::Unavailable, "is off"));
        }
        Ok(BuiltImage {
            references: request.tags.clone(),
            digest: Some(Digest::of("built")),
            image_id: None,
            platforms: Vec::new(),
            backend: self.name.to_owned(),
            reused: false,
            written: Vec::new(),
            metadata: serde_json::Map::new(),
        })
    }

    fn remote(&self) -> Option<&dyn RemoteBuilds> {
        None
    }
}
