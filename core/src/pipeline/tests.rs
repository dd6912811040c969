//! The pipeline over backends that only pretend.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::archive::ArchiveSettings;
use crate::backend::{Capabilities, CheckReport, Feature, FoundImage, PlannedAction};
use crate::backend_registry::{BackendSetup, BackendType};
use crate::context::{Context, ContextPath};
use crate::output::Output;
use crate::registry::{RegistryClient, RegistrySettings};
use crate::remote::RemoteBuilds;
use crate::request::{BuiltImage, DockerfileSource, NamedContext};

/// Answers as it is told, and remembers what it was asked.
#[derive(Debug)]
struct Fake {
    name: &'static str,
    capabilities: Capabilities,
    /// The doctor says that builds work.
    well: bool,
    /// `find` finds everything.
    full: bool,
    /// What `build` fails with.
    failure: Option<ErrorKind>,
    /// A file that somebody changes while `build` is at work.
    changes: Option<PathBuf>,
    asked: Mutex<Vec<String>>,
}

impl Fake {
    fn new(name: &'static str) -> Self {
        let features = [Feature::Store, Feature::Push, Feature::OciArchive];
        Self {
            name,
            capabilities: Capabilities::of(features),
            well: true,
            full: false,
            failure: None,
            changes: None,
            asked: Mutex::default(),
        }
    }

    fn note(&self, what: String) {
        self.asked.lock().expect("no test panics while it holds this").push(what);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no test panics while it holds this").clone()
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
        self.note(format!("find {} {scope:?}", reference.familiar_name()));
        Ok(self.full.then(|| FoundImage {
            reference: reference.clone(),
            digest: Some(Digest::of("found")),
            image_id: None,
            platforms: Vec::new(),
            in_registry: scope == FindScope::Registry,
        }))
    }

    async fn tag(&self, _: &FoundImage, references: &[Reference], _: &Job) -> Result<()> {
        let names: Vec<String> = references.iter().map(Reference::familiar).collect();
        self.note(format!("tag {}", names.join(" ")));
        Ok(())
    }

    async fn plan(&self, _: &BuildRequest, _: &Job) -> Result<Vec<PlannedAction>> {
        match self.failure {
            Some(kind) => Err(Error::new(kind, "no luck")),
            None => Ok(Vec::new()),
        }
    }

    async fn build(&self, request: &BuildRequest, _: &Job) -> Result<BuiltImage> {
        self.note("build".to_owned());
        if let Some(file) = &self.changes {
            std::fs::write(file, "something else").expect("writable");
        }
        match self.failure {
            Some(kind) => Err(Error::new(kind, "no luck")),
            None => Ok(BuiltImage {
                references: request.tags.clone(),
                digest: Some(Digest::of("built")),
                image_id: None,
                platforms: Vec::new(),
                backend: self.name.to_owned(),
                reused: false,
                written: Vec::new(),
                metadata: serde_json::Map::new(),
            }),
        }
    }

    fn remote(&self) -> Option<&dyn RemoteBuilds> {
        None
    }
}

fn pipeline(backends: &[&Arc<Fake>], dir: &Path) -> Pipeline {
    let host = Host {
        environment: BTreeMap::new(),
        home_dir: None,
        current_dir: dir.to_owned(),
        cache_dir: dir.join("cache"),
        state_dir: dir.join("state"),
        registry_client: RegistryClient::new(RegistrySettings::default()).expect("no files are named"),
        archive: ArchiveSettings::default(),
    };
    let registry = BackendRegistry::new().with(BackendType {
        name: "mighty",
        summary: "can do everything",
        capabilities: || Capabilities::of(Feature::ALL.iter().copied()),
        factory: |_: BackendSetup| Err(Error::new(ErrorKind::InvalidConfig, "is never made")),
    });
    let backends = backends.iter().map(|&backend| backend.clone() as Arc<dyn Backend>).collect();
    Pipeline::new(registry, backends, Arc::new(host)).expect("there is a backend")
}

fn request() -> BuildRequest {
    let mut context = Context::empty();
    context.insert(ContextPath::from_clean("a"), "a", 0o644);
    let dockerfile = DockerfileSource {
        shown: "Dockerfile".into(),
        path: None,
        in_context: None,
        content: "FROM scratch\nCOPY a /\n".into(),
    };
    BuildRequest::new(context, dockerfile)
}

fn tagged(tag: &str) -> BuildRequest {
    BuildRequest { tags: vec![tag.parse().expect("a reference")], ..request() }
}

async fn build(pipeline: &Pipeline, request: BuildRequest, reuse: Reuse) -> Result<BuildReport> {
    pipeline.build(request, &PipelineOptions { reuse, explain: false }, &Job::silent()).await
}

#[tokio::test]
async fn an_untagged_build_is_looked_for_under_its_fingerprint() {
    let dir = tempfile::tempdir().expect("a directory");
    let empty = Arc::new(Fake::new("empty"));
    let report = build(&pipeline(&[&empty], dir.path()), request(), Reuse::default()).await.expect("builds");
    assert_eq!(empty.asked(), ["find localhost/image Store", "build"]);
    assert!(report.image.references[0].tag().is_some_and(|tag| tag.starts_with("fp-")));

    let full = Arc::new(Fake { full: true, ..Fake::new("full") });
    let report = build(&pipeline(&[&full], dir.path()), request(), Reuse::default()).await.expect("finds");
    assert_eq!(full.asked(), ["find localhost/image Store"]);
    assert!(report.image.reused && report.image.digest == Some(Digest::of("found")));
}

#[tokio::test]
async fn a_context_that_changes_while_it_is_built_has_no_fingerprint() {
    let dir = tempfile::tempdir().expect("a directory");
    let (context, file) = (dir.path().join("context"), dir.path().join("context/a"));
    std::fs::create_dir(&context).expect("a directory");
    std::fs::write(&file, "a").expect("writable");
    let backend = Arc::new(Fake { changes: Some(file.clone()), ..Fake::new("slow") });
    let pipeline = pipeline(&[&backend], dir.path());
    let wanted = || {
        let context = Context::from_dir(&context, None, &crate::context::ContextSettings::default());
        BuildRequest { context: context.expect("a context"), ..request() }
    };
    let error = build(&pipeline, wanted(), Reuse::default()).await.expect_err("changed");
    assert_eq!(error.kind(), ErrorKind::ContextUnreadable);
    assert!(error.hints()[0].contains("--force-rebuild"), "{error:?}");
    // It is changed to what it is already.
    build(&pipeline, wanted(), Reuse::default()).await.expect("the same as before");

    // A backend that builds what was listed fails by itself, or its image is right.
    std::fs::write(&file, "a").expect("writable");
    let capabilities = Capabilities::of([Feature::Store, Feature::NamedContexts]).building_what_is_listed();
    let backend = Arc::new(Fake { changes: Some(file), capabilities, ..Fake::new("sure") });
    let pipeline = self::pipeline(&[&backend], dir.path());
    build(&pipeline, wanted(), Reuse::default()).await.expect("it was listed before");
    // But named contexts are listed by everybody for himself.
    let mut named = wanted();
    named.build_contexts.insert("other".to_owned(), NamedContext::Directory(context.clone()));
    std::fs::write(context.join("a"), "a").expect("writable");
    let error = build(&pipeline, named, Reuse::default()).await.expect_err("changed");
    assert_eq!(error.kind(), ErrorKind::ContextUnreadable);
}

#[tokio::test]
async fn what_may_be_other_content_today_is_not_taken_unasked() {
    let dir = tempfile::tempdir().expect("a directory");
    let full = Arc::new(Fake { full: true, ..Fake::new("full") });
    let pipeline = pipeline(&[&full], dir.path());
    let wanted = || {
        let mut wanted = request();
        wanted.dockerfile.content = "FROM scratch\nADD https://example.org/x /\n".into();
        wanted
    };
    assert!(!build(&pipeline, wanted(), Reuse::default()).await.expect("builds").image.reused);
    assert!(build(&pipeline, wanted(), Reuse::Always).await.expect("finds").image.reused);
}

#[tokio::test]
async fn a_tag_of_the_user_is_never_taken_for_its_content() {
    let dir = tempfile::tempdir().expect("a directory");
    let full = Arc::new(Fake { full: true, ..Fake::new("full") });
    let pipeline = pipeline(&[&full], dir.path());
    build(&pipeline, tagged("r.io/app:1"), Reuse::default()).await.expect("builds");
    assert_eq!(full.asked(), ["build"]);
    // With --reuse the fingerprint's tag is asked for, and the user's tag put on what is found.
    let pushed = BuildRequest { outputs: vec![Output::push()], ..tagged("r.io/app:1") };
    build(&pipeline, pushed, Reuse::Always).await.expect("finds");
    assert_eq!(full.asked()[1..], ["find r.io/app Registry", "tag r.io/app:1"]);
}

#[tokio::test]
async fn nothing_is_looked_for_where_it_must_be_built() {
    let dir = tempfile::tempdir().expect("a directory");
    let full = Arc::new(Fake { full: true, ..Fake::new("full") });
    let pipeline = pipeline(&[&full], dir.path());
    build(&pipeline, request(), Reuse::Never).await.expect("builds");
    let archive = BuildRequest { outputs: vec!["type=oci,dest=x".parse().expect("an output")], ..request() };
    build(&pipeline, archive, Reuse::Always).await.expect("builds");
    assert_eq!(full.asked(), ["build", "build"]);
}

#[tokio::test]
async fn the_next_backend_is_tried_only_where_one_is_not_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let next = Arc::new(Fake::new("next"));
    let unavailable = Some(ErrorKind::Unavailable);
    for (well, failure, moves_on) in [
        (false, unavailable, true),
        // It is the registry that cannot be reached: the next backend would meet it too.
        (true, unavailable, false),
        (false, Some(ErrorKind::BuildFailed), false),
        (false, Some(ErrorKind::Cancelled), false),
    ] {
        let first = Arc::new(Fake { well, failure, ..Fake::new("first") });
        let result = build(&pipeline(&[&first, &next], dir.path()), tagged("app"), Reuse::Never).await;
        match result {
            Ok(report) => {
                assert!(moves_on, "{failure:?}");
                assert_eq!(report.image.backend, "next");
                assert_eq!(report.passed_over[0].backend, "first");
            }
            Err(error) => assert!(!moves_on && Some(error.kind()) == failure, "{error:?}"),
        }
    }
    assert_eq!(next.asked(), ["build"]);
}

#[tokio::test]
async fn what_a_backend_lacks_is_refused_before_any_work() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = Arc::new(Fake::new("small"));
    let wanted = BuildRequest { target: Some("test".to_owned()), ..request() };
    let error =
        build(&pipeline(&[&backend], dir.path()), wanted, Reuse::default()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("`--target`") && error.message().contains("`small`"), "{error:?}");
    assert!(error.hints()[0].contains("mighty"), "{error:?}");
    assert!(backend.asked().is_empty());

    // A list does not go on, but says which of it can.
    let other = Fake { capabilities: Capabilities::of([Feature::Target]), ..Fake::new("larger") };
    let other = Arc::new(other);
    let wanted = BuildRequest { target: Some("test".to_owned()), ..request() };
    let pipeline = pipeline(&[&backend, &other], dir.path());
    let error = build(&pipeline, wanted, Reuse::default()).await.expect_err("refused");
    assert!(error.hints()[0].contains("`--backend larger`"), "{error:?}");
    assert!(backend.asked().is_empty() && other.asked().is_empty());
}

#[tokio::test]
async fn a_push_needs_a_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = Arc::new(Fake::new("any"));
    let wanted = BuildRequest { outputs: vec![Output::push()], ..request() };
    let error =
        build(&pipeline(&[&backend], dir.path()), wanted, Reuse::default()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(backend.asked().is_empty());
}

#[tokio::test]
async fn a_plan_moves_on_as_the_build_would() {
    let dir = tempfile::tempdir().expect("a directory");
    let down = Fake { well: false, failure: Some(ErrorKind::Unavailable), ..Fake::new("down") };
    let (down, next) = (Arc::new(down), Arc::new(Fake::new("next")));
    let pipeline = pipeline(&[&down, &next], dir.path());
    let plan =
        pipeline.plan(tagged("app"), &PipelineOptions::default(), &Job::silent()).await.expect("plans");
    assert_eq!((plan.backend.as_str(), plan.passed_over[0].backend.as_str()), ("next", "down"));
}

#[tokio::test]
async fn the_name_of_an_output_is_a_tag() {
    let dir = tempfile::tempdir().expect("a directory");
    let full = Arc::new(Fake { full: true, ..Fake::new("full") });
    let pipeline = pipeline(&[&full], dir.path());
    for output in
        ["type=image,\"name=r.io/a:1,r.io/b:2\",push=true", "type=registry,\"name=r.io/a:1,r.io/b:2\""]
    {
        let wanted = BuildRequest { outputs: vec![output.parse().expect("an output")], ..request() };
        let report = build(&pipeline, wanted, Reuse::default()).await.expect("builds");
        assert_eq!(report.image.references, [reference("r.io/a:1"), reference("r.io/b:2")]);
    }
    // The same name everywhere, or each output keeps its own: none of them is windlass's to choose.
    let outputs = ["type=image,name=a", "type=image,name=b"].map(|output| output.parse().expect("an output"));
    let wanted = BuildRequest { outputs: outputs.to_vec(), ..request() };
    build(&pipeline, wanted, Reuse::default()).await.expect("builds");
    assert_eq!(full.asked(), ["build", "build", "build"]);
}

fn reference(text: &str) -> Reference {
    text.parse().expect("a reference")
}
