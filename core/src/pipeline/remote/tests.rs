//! Remote builds over a service that only pretends.

use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::archive::ArchiveSettings;
use crate::backend::{Capabilities, CheckReport, FindScope, FoundImage, PlannedAction};
use crate::backend_registry::BackendRegistry;
use crate::context::{Context, ContextPath};
use crate::reference::Reference;
use crate::registry::{RegistryClient, RegistrySettings};
use crate::remote::{BuildId, ImageUpload};
use crate::request::DockerfileSource;

/// A service that takes builds.
#[derive(Debug)]
struct Service {
    name: &'static str,
    capabilities: Capabilities,
    /// What submitting ends in.
    submit: Option<ErrorKind>,
    /// What following a build ends in.
    attach: Option<ErrorKind>,
    /// An image of any name exists, and cannot get another.
    found: bool,
    /// Builds can be stopped; otherwise they have succeeded already.
    stoppable: bool,
    stops_with_client: bool,
    /// The user leaves once the service has everything.
    left: bool,
    asked: Mutex<Vec<String>>,
}

impl Service {
    fn new(attach: Option<ErrorKind>) -> Self {
        let capabilities = Capabilities::of([crate::backend::Feature::Store]);
        Self {
            name: "far",
            capabilities,
            submit: None,
            attach,
            found: false,
            stoppable: true,
            stops_with_client: false,
            left: false,
            asked: Mutex::default(),
        }
    }

    fn note(&self, what: &str) {
        self.asked.lock().expect("no test panics while it holds this").push(what.to_owned());
    }

    fn asked(&self) -> String {
        self.asked.lock().expect("no test panics while it holds this").join(" ")
    }

    fn image(&self) -> BuiltImage {
        BuiltImage {
            references: vec!["r.example.com/a:1".parse().expect("valid")],
            digest: None,
            image_id: None,
            platforms: Vec::new(),
            backend: self.name.to_owned(),
            reused: false,
            written: Vec::new(),
            metadata: serde_json::Map::new(),
        }
    }
}

#[async_trait]
impl Backend for Service {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Never well, so that the pipeline would pass it over if it could.
    async fn check(&self, _: &Job) -> CheckReport {
        let mut report = CheckReport::default();
        report.bad("service", "is gone", "");
        report
    }

    async fn find(&self, reference: &Reference, _: FindScope, _: &Job) -> Result<Option<FoundImage>> {
        let found = FoundImage {
            reference: reference.clone(),
            digest: None,
            image_id: None,
            platforms: Vec::new(),
            in_registry: true,
        };
        Ok(self.found.then_some(found))
    }

    async fn tag(&self, _: &FoundImage, _: &[Reference], _: &Job) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "no further names"))
    }

    async fn plan(&self, _: &BuildRequest, _: &Job) -> Result<Vec<PlannedAction>> {
        Ok(Vec::new())
    }

    async fn build(&self, _: &BuildRequest, _: &Job) -> Result<BuiltImage> {
        self.note("build");
        Ok(self.image())
    }

    fn remote(&self) -> Option<&dyn RemoteBuilds> {
        Some(self)
    }
}

#[async_trait]
impl RemoteBuilds for Service {
    fn server(&self) -> &str {
        "https://far.example.com"
    }

    fn stops_with_client(&self) -> bool {
        self.stops_with_client
    }

    async fn submit(&self, _: &BuildRequest, job: &Job) -> Result<Submitted> {
        self.note("submit");
        if self.left {
            job.cancel.cancel();
        }
        if let Some(kind) = self.submit {
            return Err(Error::new(kind, "no luck"));
        }
        Ok(Submitted::Started(RemoteBuild {
            id: BuildId::new("b-1"),
            targets: vec!["a:1".to_owned()],
            submitted_at: None,
        }))
    }

    async fn upload(&self, _: &ImageUpload, _: &Job) -> Result<Submitted> {
        Err(Error::new(ErrorKind::Unsupported, "no"))
    }

    async fn registry_names(&self, names: &[Reference], _: &Job) -> Result<Vec<Reference>> {
        Ok(names.to_vec())
    }

    fn planned_find(&self, reference: &Reference) -> Result<Vec<PlannedAction>> {
        let subject = reference.to_string();
        Ok(vec![PlannedAction { verb: "GET".to_owned(), subject, details: Vec::new() }])
    }

    async fn status(&self, _: &RemoteBuild, _: &Job) -> Result<RemoteStatus> {
        let succeeded = RemoteStatus {
            state: RemoteState::Succeeded,
            word: "DONE".to_owned(),
            image: Some("r.example.com/a:1".to_owned()),
            error: None,
        };
        if self.stoppable { Err(Error::new(ErrorKind::NotFound, "no")) } else { Ok(succeeded) }
    }

    async fn attach(&self, build: &RemoteBuild, _: &Job) -> Result<BuiltImage> {
        self.note(&format!("attach:{}", build.id));
        match self.attach {
            Some(kind) => Err(Error::new(kind, "no luck")),
            None => Ok(self.image()),
        }
    }

    async fn logs(
        &self,
        _: &RemoteBuild,
        _: &mut (dyn for<'a> FnMut(&'a str) + Send),
        _: &Job,
    ) -> Result<()> {
        Ok(())
    }

    async fn cancel(&self, _: &RemoteBuild, job: &Job) -> Result<()> {
        job.check()?;
        self.note("cancel");
        match self.stoppable {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::InvalidInput, "it has succeeded already")),
        }
    }
}

fn pipeline(backends: &[&std::sync::Arc<Service>], dir: &std::path::Path) -> Pipeline {
    let host = Host {
        environment: std::collections::BTreeMap::new(),
        home_dir: None,
        current_dir: dir.to_owned(),
        cache_dir: dir.join("cache"),
        state_dir: dir.join("state"),
        registry_client: RegistryClient::new(RegistrySettings::default()).expect("no files are named"),
        archive: ArchiveSettings::default(),
    };
    let backends = backends.iter().map(|&backend| backend.clone() as std::sync::Arc<dyn Backend>).collect();
    Pipeline::new(BackendRegistry::new(), backends, std::sync::Arc::new(host)).expect("there is a backend")
}

fn request() -> BuildRequest {
    let mut context = Context::empty();
    context.insert(ContextPath::from_clean("Dockerfile"), "FROM scratch\n", 0o644);
    let dockerfile = DockerfileSource {
        shown: "Dockerfile".into(),
        path: None,
        in_context: ContextPath::clean("Dockerfile"),
        content: "FROM scratch\n".into(),
    };
    BuildRequest { tags: vec!["a:1".parse().expect("valid")], ..BuildRequest::new(context, dockerfile) }
}

async fn build(service: Service) -> (Result<BuildReport>, LedgerEntry, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let service = std::sync::Arc::new(service);
    let second = std::sync::Arc::new(Service { name: "second", ..Service::new(None) });
    let pipeline = pipeline(&[&service, &second], directory.path());
    let built = pipeline.build(request(), &PipelineOptions::default(), &Job::silent()).await;
    let entry = Ledger::new(&directory.path().join("state")).find("b-1").expect("in the ledger");
    assert_eq!(second.asked(), "", "no other backend may build the same");
    let asked = service.asked();
    (built, entry, asked)
}

#[tokio::test]
async fn a_build_is_submitted_written_down_and_followed() {
    let (built, entry, asked) = build(Service::new(None)).await;
    assert_eq!(built.expect("built").image.backend, "far");
    assert_eq!(asked, "submit attach:b-1");
    assert_eq!((entry.state, entry.image.as_deref()), (RemoteState::Succeeded, Some("r.example.com/a:1")));
    assert_eq!((entry.backend.as_str(), entry.server.as_str()), ("far", "https://far.example.com"));
}

#[tokio::test]
async fn what_ends_the_client_does_not_end_the_entry() {
    for (kind, state) in [
        (ErrorKind::BuildFailed, RemoteState::Failed),
        (ErrorKind::Cancelled, RemoteState::Running),
        (ErrorKind::TimedOut, RemoteState::Running),
        // Another backend must not build the same while this one does.
        (ErrorKind::Unavailable, RemoteState::Running),
    ] {
        let (built, entry, asked) = build(Service::new(Some(kind))).await;
        let error = built.expect_err("fails");
        assert_eq!((error.kind(), entry.state), (kind, state));
        assert_eq!(error.details(), [("build id", "b-1".to_owned())]);
        assert_eq!(error.hints().iter().any(|hint| hint.contains("builds attach b-1")), !state.is_final());
        assert_eq!(asked, "submit attach:b-1");
    }
}

#[tokio::test]
async fn a_build_that_ends_with_the_client_is_cancelled() {
    let service = Service { stops_with_client: true, ..Service::new(Some(ErrorKind::Cancelled)) };
    let (built, entry, asked) = build(service).await;
    assert_eq!(built.expect_err("stopped").kind(), ErrorKind::Cancelled);
    assert_eq!((entry.state, asked.as_str()), (RemoteState::Cancelled, "submit attach:b-1 cancel"));
}

#[tokio::test]
async fn a_detached_build_is_only_submitted() {
    let directory = tempfile::tempdir().expect("a directory");
    let service = std::sync::Arc::new(Service::new(None));
    let pipeline = pipeline(&[&service], directory.path());
    let detached = pipeline.submit(request(), &PipelineOptions::default(), &Job::silent()).await;
    let Detached::Started(started) = detached.expect("submitted") else { panic!("it runs") };
    assert_eq!((started.build.id.as_str(), service.asked().as_str()), ("b-1", "submit"));
    let entry = Ledger::new(&directory.path().join("state")).find("b").expect("in the ledger");
    assert_eq!(entry.state, RemoteState::Running);
    let image = resume(service.as_ref(), entry, &pipeline.host, &Job::silent()).await;
    assert_eq!(image.expect("followed").backend, "far");
}

#[tokio::test]
async fn a_build_that_ends_while_it_is_stopped_is_noted_as_it_is() {
    let attach = Some(ErrorKind::Cancelled);
    let service = Service { stops_with_client: true, stoppable: false, ..Service::new(attach) };
    let (built, entry, _) = build(service).await;
    let error = built.expect_err("stopped");
    assert!(error.hints()[0].contains("has succeeded meanwhile"), "{error:?}");
    assert_eq!((entry.state, entry.image.as_deref()), (RemoteState::Succeeded, Some("r.example.com/a:1")));
}

#[tokio::test]
async fn a_detached_build_goes_to_the_next_backend_where_the_first_is_not_there() {
    for (kind, passes) in [(ErrorKind::Unavailable, true), (ErrorKind::UnexpectedAnswer, false)] {
        let directory = tempfile::tempdir().expect("a directory");
        let first = std::sync::Arc::new(Service { submit: Some(kind), ..Service::new(None) });
        let second = std::sync::Arc::new(Service { name: "second", ..Service::new(None) });
        let pipeline = pipeline(&[&first, &second], directory.path());
        let detached = pipeline.submit(request(), &PipelineOptions::default(), &Job::silent()).await;
        match (detached, passes) {
            (Ok(Detached::Started(started)), true) => {
                assert_eq!((started.backend.as_str(), started.passed_over.len()), ("second", 1));
            }
            (Err(error), false) => assert_eq!((error.kind(), second.asked().as_str()), (kind, "")),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_found_and_cannot_get_its_tags_is_built() {
    let service = std::sync::Arc::new(Service { found: true, ..Service::new(None) });
    let directory = tempfile::tempdir().expect("a directory");
    let pipeline = pipeline(&[&service], directory.path());
    let untagged = BuildRequest { tags: Vec::new(), ..request() };
    let options = PipelineOptions { reuse: crate::pipeline::Reuse::Always, explain: false };
    let report = pipeline.build(untagged, &options, &Job::silent()).await.expect("found");
    assert_eq!((report.image.reused, service.asked().as_str()), (true, ""));
    let report = pipeline.build(request(), &options, &Job::silent()).await.expect("built");
    assert_eq!((report.image.reused, service.asked().as_str()), (false, "submit attach:b-1"));
}

#[tokio::test]
async fn who_leaves_a_detached_build_stops_nothing() {
    let untagged = BuildRequest { tags: Vec::new(), ..request() };
    // With a tag the answer was all that was missing; without one the context is looked at once more.
    for (request, is_done) in [(request(), true), (untagged, false)] {
        let directory = tempfile::tempdir().expect("a directory");
        let service =
            std::sync::Arc::new(Service { stops_with_client: true, left: true, ..Service::new(None) });
        let pipeline = pipeline(&[&service], directory.path());
        let detached = pipeline.submit(request, &PipelineOptions::default(), &Job::silent()).await;
        match (detached, is_done) {
            (Ok(Detached::Started(started)), true) => assert_eq!(started.build.id.as_str(), "b-1"),
            (Err(error), false) => {
                assert_eq!(error.kind(), ErrorKind::Cancelled);
                assert_eq!(error.build().map(BuildId::as_str), Some("b-1"));
                let hint = "the build goes on without us: `windlass builds attach b-1 --backend far` comes back to it";
                assert_eq!(error.hints(), [hint]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(service.asked(), "submit");
        let entry = Ledger::new(&directory.path().join("state")).find("b-1").expect("in the ledger");
        assert_eq!(entry.state, RemoteState::Running);
    }
}

#[tokio::test]
async fn a_plan_asks_for_the_image_where_the_build_would() {
    let directory = tempfile::tempdir().expect("a directory");
    let pipeline = pipeline(&[&std::sync::Arc::new(Service::new(None))], directory.path());
    let untagged = || BuildRequest { tags: Vec::new(), ..request() };
    let never = PipelineOptions { reuse: crate::pipeline::Reuse::Never, explain: false };
    for (request, options, asks) in [
        (untagged(), PipelineOptions::default(), true),
        (untagged(), never.clone(), false),
        (request(), PipelineOptions::default(), false),
    ] {
        let plan = pipeline.plan(request, &options, &Job::silent()).await.expect("planned");
        assert_eq!(plan.actions.len(), usize::from(asks), "{:?}", plan.actions);
        assert!(plan.actions.iter().all(|action| action.verb == "GET" && action.subject.contains(":fp-")));
    }
}
