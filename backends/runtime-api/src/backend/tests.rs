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

fn api(options: &str) -> (tempfile::TempDir, RuntimeApi) {
    let directory = tempfile::tempdir().expect("a directory");
    let variables = [("RUNTIME_API_URL", "https://api.example.com/v1/"), ("RUNTIME_API_KEY", "secret-key")];
    let host = Arc::new(host(directory.path(), &variables));
    let api = RuntimeApi::new(setup(options, host)).expect("valid");
    (directory, api)
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
    BuildRequest { tags, ..BuildRequest::new(context, dockerfile) }
}

async fn planned(options: &str, tags: &[&str]) -> String {
    let (_directory, api) = api(options);
    let actions = api.plan(&request(tags), &Job::silent()).await.expect("planned");
    let lines =
        actions.iter().map(|action| format!("{} {} {:?}\n", action.verb, action.subject, action.details));
    lines.collect()
}

#[tokio::test]
async fn a_plan_shows_the_requests_and_the_archive_and_no_secret() {
    let plan = planned("", &["agent:1"]).await;
    for line in [
        "GET https://api.example.com/v1/registry_prefix ",
        "POST https://api.example.com/v1/build [\"X-API-Key: (hidden)\", \"Content-Type: application/json\"",
        r#"{\"context\":\"(base64 of the archive)\",\"target_image\":\"{registry_prefix}/agent:1\"}"#,
        "member Dockerfile [\"0644\", \"13 bytes\"]",
        "member Dockerfile.dockerignore ",
        "member src/ [\"0755\"]",
        "member src/a.txt [\"0640\", \"5 bytes\"]",
        "GET https://api.example.com/v1/build_status?build_id={build_id} ",
    ] {
        assert!(plan.contains(line), "`{line}` is not in {plan}");
    }
    assert!(!plan.contains("secret"), "{plan}");
    let plan = planned("registry-prefix = 'r.example.com/p/'", &["agent:1", "agent:2"]).await;
    assert!(!plan.contains("GET https://api.example.com/v1/registry_prefix"), "{plan}");
    assert!(plan.contains("name=\\\"tags\\\"\\\\r\\\\n\\\\r\\\\nr.example.com/p/agent:2"), "{plan}");
}

#[tokio::test]
async fn what_the_protocol_cannot_carry_is_refused_by_name() {
    let (_directory, api) = api("");
    type Ask = fn(&mut BuildRequest);
    let asked: [(&str, Ask); 5] = [
        ("--platform", |request| request.platforms.push("linux/arm64".parse().expect("valid"))),
        ("--build-arg", |request| drop(request.build_args.insert("A".to_owned(), "1".to_owned()))),
        ("--target", |request| request.target = Some("x".to_owned())),
        ("--label", |request| drop(request.labels.insert("a".to_owned(), "1".to_owned()))),
        ("compression", |request| {
            let mut output = Output::push();
            output.attributes.insert("compression".to_owned(), "zstd".to_owned());
            request.outputs = vec![output];
        }),
    ];
    for (option, ask) in asked {
        let mut request = request(&["a:1"]);
        ask(&mut request);
        let error = api.plan(&request, &Job::silent()).await.expect_err(option);
        assert!(error.kind() == ErrorKind::Unsupported && error.message().contains(option), "{error:?}");
        // Nothing is sent either: there is no such service.
        let error = api.submit(&request, &Job::silent()).await.expect_err(option);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn the_image_is_what_the_service_calls_it() {
    let (_directory, api) = api("");
    let names = |image: Option<&str>, targets: &[&str]| {
        let targets: Vec<String> = targets.iter().map(|target| (*target).to_owned()).collect();
        let built = api.built(image.map(str::to_owned), &targets, &Job::silent());
        built.map(|image| image.references.iter().map(Reference::familiar).collect::<Vec<_>>()).ok()
    };
    let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(names(None, &["r.io/a:1", "r.io/a:2"]), list(&["r.io/a:1", "r.io/a:2"]));
    assert_eq!(names(Some("r.io/b:1"), &["r.io/a:1", "r.io/a:2"]), list(&["r.io/b:1", "r.io/a:2"]));
    assert_eq!(names(Some("NO REFERENCE"), &["r.io/a:1"]), list(&["r.io/a:1"]));
    assert_eq!(names(Some("r.io/b:1"), &[]), list(&["r.io/b:1"]));
    assert_eq!(names(None, &[]), None);
}

#[test]
fn nothing_shows_the_key() {
    let (_directory, api) = api("");
    assert_eq!(api.server(), "https://api.example.com/v1");
    let shown = format!("{:?}", api.client);
    assert!(!shown.contains("secret-key"), "{shown}");
}
