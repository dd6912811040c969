//! What the backend refuses and plans; what it does on a service is tested with one, in `tests/`.

use std::collections::BTreeMap;
use std::path::Path;

use windlass_core::archive::ArchiveSettings;
use windlass_core::backend_registry::BackendOptions;
use windlass_core::context::{Context, ContextPath};
use windlass_core::output::Output;
use windlass_core::registry::{RegistryClient, RegistrySettings};
use windlass_core::request::DockerfileSource;

use super::*;

/// A machine with these variables.
pub(crate) fn host(directory: &Path, variables: &[(&str, &str)]) -> Host {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Host {
        environment: variables.collect(),
        home_dir: None,
        current_dir: directory.to_owned(),
        cache_dir: directory.join("cache"),
        state_dir: directory.join("state"),
        registry_client: RegistryClient::new(RegistrySettings::default()).expect("no files are named"),
        archive: ArchiveSettings::default(),
    }
}

/// The options as they stand in a file.
pub(crate) fn setup(options: &str, host: Arc<Host>) -> BackendSetup {
    let table = options.parse().expect("TOML");
    BackendSetup { name: "it".to_owned(), options: BackendOptions::new(table, BTreeMap::new()), host }
}

fn builder(options: &str) -> (tempfile::TempDir, ImageBuilder) {
    let directory = tempfile::tempdir().expect("a directory");
    let variables =
        [("TOGETHER_API_KEY", "secret-key"), ("TOGETHER_BASE_URL", "https://api.bartender.x.dev/")];
    let host = Arc::new(host(directory.path(), &variables));
    let builder = ImageBuilder::new(setup(options, host)).expect("valid");
    (directory, builder)
}

fn request(tags: &[&str]) -> BuildRequest {
    let mut context = Context::empty();
    context.insert(ContextPath::from_clean("src/a.txt"), "hello", 0o640);
    let dockerfile = DockerfileSource {
        shown: "-".into(),
        path: None,
        in_context: None,
        content: "FROM scratch\n".into(),
    };
    let tags = tags.iter().map(|tag| tag.parse().expect("valid")).collect();
    let build_args = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    BuildRequest { tags, build_args, ..BuildRequest::new(context, dockerfile) }
}

async fn planned(options: &str, request: &BuildRequest) -> String {
    let (_directory, builder) = builder(options);
    let actions = builder.plan(request, &Job::silent()).await.expect("planned");
    let lines =
        actions.iter().map(|action| format!("{} {} {:?}\n", action.verb, action.subject, action.details));
    lines.collect()
}

#[tokio::test]
async fn a_plan_is_the_requests_and_the_archive() {
    let plan = planned("", &request(&["team/agent:1"])).await;
    assert!(!plan.contains("secret"), "{plan}");
    let field = |name: &str, value: &str| format!("name=\\\"{name}\\\"\\\\r\\\\n\\\\r\\\\n{value}\\\\r\\\\n");
    for part in [
        "POST https://builder.x.dev/builds [\"Authorization: Bearer (hidden)\"",
        "multipart/form-data",
        &field("image_name", "team/agent:1"),
        &field("dockerfile", "windlass.Dockerfile"),
        &field("nydus_convert", "true"),
        &field("cache_key", "team/agent"),
        "member windlass.Dockerfile [\"0644\", \"13 bytes\"]",
        "member src/a.txt [\"0640\", \"5 bytes\"]",
        "GET https://builder.x.dev/builds/{build_id}/logs [",
        "GET https://builder.x.dev/builds/{build_id} [",
    ] {
        assert!(plan.contains(part), "{part} in {plan}");
    }
    let plan = planned("nydus = false\ncache-key = ''", &request(&[])).await;
    assert!(
        plan.contains("image-{uuid}:{uuid}") && plan.contains(&field("nydus_convert", "false")),
        "{plan}"
    );
    assert!(!plan.contains("cache_key"), "{plan}");
    let fresh = BuildRequest { no_cache: true, ..request(&["a:1"]) };
    assert!(planned("cache-key = 'x'", &fresh).await.contains(&field("cache_key", "image-{uuid}")));
}

#[tokio::test]
async fn what_the_protocol_has_no_word_for_is_refused_by_name() {
    let (_directory, builder) = builder("");
    let refused = async |request: BuildRequest| {
        let error = builder.plan(&request, &Job::silent()).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let submitted = builder.submit(&request, &Job::silent()).await.expect_err("refused");
        assert_eq!(submitted.message(), error.message());
        error.message().to_owned()
    };
    let plain = || request(&["a:1"]);
    let target = BuildRequest { target: Some("x".into()), ..plain() };
    assert!(refused(target).await.contains("`--target`"));
    let labels = BuildRequest { labels: BTreeMap::from([("a".into(), "b".into())]), ..plain() };
    assert!(refused(labels).await.contains("`--label`"));
    let platform = BuildRequest { platforms: vec!["linux/arm64".parse().expect("valid")], ..plain() };
    assert!(refused(platform).await.contains("`--platform`"));
    for output in ["type=oci,dest=x.tar", "type=image,compression=zstd"] {
        let outputs = vec![output.parse::<Output>().expect("valid")];
        assert!(refused(BuildRequest { outputs, ..plain() }).await.contains(output));
    }
    assert!(refused(request(&["a:1", "a:2"])).await.contains("one name"));
    let error = builder.upload(&upload(), &Job::silent()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

fn upload() -> ImageUpload {
    let source = windlass_core::remote::UploadSource::Archive("x.tar".into());
    ImageUpload { source, names: vec!["a:1".parse().expect("valid")] }
}
