use super::*;
use crate::archive::ArchiveSettings;
use crate::backend_registry::BackendRegistry;
use crate::context::Context;
use crate::output::Output;
use crate::recipe::fake::Fake;
use crate::registry::{RegistryClient, RegistrySettings};
use crate::request::{BuildRequest, DockerfileSource};

/// Asks for `first` and `second` where the registry has some tags: what came of it, and whether it was built.
async fn build(registry: &[&str], begun_before: bool) -> (Built, bool) {
    let dir = tempfile::tempdir().expect("a directory");
    let host = Arc::new(Host {
        environment: [].into(),
        home_dir: None,
        current_dir: dir.path().to_owned(),
        cache_dir: dir.path().join("cache"),
        state_dir: dir.path().join("state"),
        registry_client: RegistryClient::new(RegistrySettings::default()).expect("no files are named"),
        archive: ArchiveSettings::default(),
    });
    let registry = registry.iter().map(ToString::to_string).collect();
    let fake = Arc::new(Fake { registry, ..Fake::with(&[]) });
    let backends: Vec<Arc<dyn Backend>> = vec![fake.clone()];
    let pipeline = Pipeline::new(BackendRegistry::new(), backends, host.clone()).expect("a backend");
    let builder = PipelineBuilder { pipeline: Arc::new(pipeline), host, force: false };
    let dockerfile = DockerfileSource {
        shown: "D".into(),
        path: None,
        in_context: None,
        content: "FROM scratch\n".into(),
    };
    let tags: Vec<Reference> =
        ["r.io/a:first", "r.io/a:second"].iter().map(|tag| tag.parse().expect("a reference")).collect();
    let request = BuildRequest {
        tags: tags.clone(),
        outputs: vec![Output::push()],
        ..BuildRequest::new(Context::empty(), dockerfile)
    };
    let entry = Entry {
        name: "a".to_owned(),
        line: 1,
        base_image: None,
        target: None,
        tags,
        work: Work::Dockerfile(Box::new(request)),
        hash: String::new(),
        shares: Vec::new(),
    };
    let built = builder.build(&entry, begun_before, &Job::silent()).await.expect("built or found");
    (built, fake.has_built())
}

fn tags(built: &Built) -> Vec<&str> {
    built.tags.iter().filter_map(Reference::tag).collect()
}

#[tokio::test]
async fn one_tag_is_enough_and_only_what_exists_is_said_to() {
    let (found, has_built) = build(&["second"], false).await;
    assert_eq!((tags(&found), found.found, has_built), (vec!["second"], true, false));
    let (built, has_built) = build(&[], false).await;
    assert_eq!((tags(&built), built.found, has_built), (vec!["first", "second"], false, true));
}

#[tokio::test]
async fn a_tag_that_an_earlier_attempt_left_is_not_enough() {
    let (built, has_built) = build(&["first"], true).await;
    assert_eq!((tags(&built), built.found, has_built), (vec!["first", "second"], false, true));
}
