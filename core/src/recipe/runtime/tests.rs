//! From recipe to image, over backends that only pretend.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::archive::ArchiveSettings;
use crate::backend::{Capabilities, Feature};
use crate::backend_registry::BackendRegistry;
use crate::error::ErrorKind;
use crate::output::Output;
use crate::recipe::fake::Fake;
use crate::recipe::{Mode, Recipes, RuntimeTags, runtime_names};
use crate::registry::{RegistryClient, RegistrySettings};

const LOCK: &str = "oh_v0.62.0_rfkyaj1iiv38kkns";
const SOURCE: &str = "oh_v0.62.0_rfkyaj1iiv38kkns_glnsdte2lm82vv7q";
const VERSIONED: &str = "oh_v0.62.0_debian_t_11";
/// The base image, as a fake knows it.
const BASE: &str = "11";

/// The tree T1 of the vectors as a package, its lock files beside it.
struct Platform(tempfile::TempDir);

impl Platform {
    fn new() -> Self {
        let platform = Self(tempfile::tempdir().expect("a directory"));
        for (name, content) in [
            ("pyproject.toml", "[tool.poetry]\nname = \"demo\"\nversion = \"1.0.0\"\n"),
            ("poetry.lock", "# lock\n"),
            ("openhands/__init__.py", ""),
            ("openhands/a.txt", "hello\n"),
            ("openhands/sub/b.py", "print(1)\n"),
            ("openhands/sub/deep/c.md", "# c\n"),
        ] {
            platform.write(name, content);
        }
        platform
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().expect("a parent")).expect("made");
        fs::write(self.path(name), content).expect("written");
    }

    fn options(&self) -> RuntimeOptions {
        let recipe = Recipes::builtin().expect("valid").get("openhands-runtime").expect("built in");
        RuntimeOptions {
            base_image: "debian:11".to_owned(),
            repository: Some("example.com/runtime".to_owned()),
            version: Some("0.62.0".to_owned()),
            ..RuntimeOptions::new(recipe)
        }
    }

    fn host(&self) -> Host {
        host(self.0.path())
    }

    async fn build(&self, backends: &[&Arc<Fake>], options: &RuntimeOptions) -> Result<RuntimeReport> {
        let host = self.host();
        build_runtime(&pipeline(backends, &host), options, &host, &Job::silent()).await
    }

    async fn plan(&self, backend: &Arc<Fake>, options: &RuntimeOptions) -> Result<RuntimePlan> {
        let host = self.host();
        plan_runtime(&pipeline(&[backend], &host), options, &host, &Job::silent()).await
    }
}

fn host(dir: &Path) -> Host {
    Host {
        environment: [("EMPTY".to_owned(), String::new())].into(),
        home_dir: None,
        current_dir: dir.to_owned(),
        cache_dir: dir.join("cache"),
        state_dir: dir.join("state"),
        registry_client: RegistryClient::new(RegistrySettings::default()).expect("no files are named"),
        archive: ArchiveSettings::default(),
    }
}

fn pipeline(backends: &[&Arc<Fake>], host: &Host) -> Pipeline {
    let backends = backends.iter().map(|&backend| backend.clone() as Arc<dyn Backend>).collect();
    Pipeline::new(BackendRegistry::new(), backends, Arc::new(host.clone())).expect("there is a backend")
}

fn tags(references: &[Reference]) -> Vec<&str> {
    references.iter().filter_map(Reference::tag).collect()
}

fn text(request: &BuildRequest) -> String {
    text_of(request)
}

#[tokio::test]
async fn from_scratch_all_tags_are_set_and_the_source_tag_is_the_result() {
    let (platform, backend) = (Platform::new(), Arc::new(Fake::with(&[BASE])));
    let report = platform.build(&[&backend], &platform.options()).await.expect("built");
    let built = backend.built();
    assert_eq!(tags(&built.tags), [SOURCE, LOCK, VERSIONED]);
    assert!(text(&built).contains("FROM debian:11"), "{}", text(&built));
    assert_eq!((report.result.tag(), report.digest), (Some(SOURCE), Some(Digest::of("built"))));
    assert_eq!(report.decision.mode(), Some(Mode::Scratch));
}

#[tokio::test]
async fn the_dockerfile_is_that_of_the_mode() {
    let platform = Platform::new();
    let on_lock = Arc::new(Fake::with(&[LOCK]));
    platform.build(&[&on_lock], &platform.options()).await.expect("built");
    let built = on_lock.built();
    assert_eq!(tags(&built.tags), [SOURCE]);
    assert!(text(&built).contains(&format!("FROM example.com/runtime:{LOCK}")), "{}", text(&built));
    let on_versioned = Arc::new(Fake::with(&[VERSIONED]));
    platform.build(&[&on_versioned], &platform.options()).await.expect("built");
    let built = on_versioned.built();
    assert_eq!(tags(&built.tags), [SOURCE, LOCK]);
    assert!(text(&built).contains(&format!("FROM example.com/runtime:{VERSIONED}")), "{}", text(&built));
}

#[tokio::test]
async fn an_image_that_exists_is_the_result_and_gets_further_tags() {
    let (platform, backend) = (Platform::new(), Arc::new(Fake::with(&[SOURCE])));
    let further = vec!["example.com/mine:1".parse().expect("a reference")];
    let options = RuntimeOptions { further_tags: further, ..platform.options() };
    let report = platform.build(&[&backend], &options).await.expect("found");
    assert!(!backend.has_built() && report.build.image.reused);
    assert_eq!((report.result.tag(), report.digest), (Some(SOURCE), Some(Digest::of(SOURCE))));
    let tagged = format!("tag example.com/runtime:{SOURCE} example.com/mine:1");
    assert!(backend.asked().contains(&tagged), "{:?}", backend.asked());
    // What is to be a file is built nevertheless, and is called the same.
    let output = "type=oci,dest=x.tar".parse::<Output>().expect("valid");
    let options = RuntimeOptions { outputs: vec![output], ..platform.options() };
    let both = Arc::new(Fake::with(&[SOURCE, LOCK]));
    platform.build(&[&both], &options).await.expect("built");
    assert_eq!(tags(&both.built().tags), [SOURCE]);
}

#[tokio::test]
async fn a_plan_asks_and_builds_nothing() {
    let (platform, backend) = (Platform::new(), Arc::new(Fake::with(&[LOCK])));
    let plan = platform.plan(&backend, &platform.options()).await.expect("planned");
    assert_eq!((plan.decision.mode(), plan.result.tag()), (Some(Mode::Lock), Some(SOURCE)));
    assert!(plan.dockerfile.is_some_and(|text| text.contains(LOCK)) && plan.build.is_some());
    let all = Arc::new(Fake::with(&[SOURCE, LOCK, VERSIONED]));
    let plan = platform.plan(&all, &platform.options()).await.expect("planned");
    assert!(plan.dockerfile.is_none() && plan.build.is_none());
    // Three questions, and nothing else.
    assert_eq!((all.asked().len(), all.has_built(), backend.has_built()), (3, false, false));
}

#[tokio::test]
async fn a_forced_build_that_must_not_move_the_source_tag_says_whose_digest_it_is() {
    let (platform, backend) = (Platform::new(), Arc::new(Fake::with(&[BASE, SOURCE])));
    let options = RuntimeOptions { force_rebuild: true, ..platform.options() };
    let report = platform.build(&[&backend], &options).await.expect("built");
    assert_eq!(tags(&backend.built().tags), [LOCK, VERSIONED]);
    assert_eq!((report.result.tag(), report.digest), (Some(SOURCE), Some(Digest::of(SOURCE))));
}

#[tokio::test]
async fn the_backend_that_builds_is_the_one_that_is_asked() {
    let platform = Platform::new();
    let off = Arc::new(Fake {
        name: "off",
        well: false,
        failures: [(LOCK.to_owned(), ErrorKind::Unavailable)].into(),
        ..Fake::with(&[VERSIONED])
    });
    let on = Arc::new(Fake { name: "on", ..Fake::with(&[LOCK]) });
    let report = platform.build(&[&off, &on], &platform.options()).await.expect("built");
    assert_eq!((report.build.image.backend.as_str(), report.decision.mode()), ("on", Some(Mode::Lock)));
    assert_eq!(report.build.passed_over[0].backend, "off");
    assert!(!off.has_built() && !off.asked().is_empty());
    // One that is there but whose registry is not is not passed over.
    let well =
        Arc::new(Fake { failures: [(LOCK.to_owned(), ErrorKind::Unavailable)].into(), ..Fake::with(&[]) });
    let error = platform.build(&[&well, &on], &platform.options()).await.expect_err("unknown");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_backend_without_run_refuses_before_anything_is_hashed_or_asked() {
    let platform = Platform::new();
    let without = || {
        let features = Feature::ALL.iter().copied().filter(|feature| *feature != Feature::Run);
        Arc::new(Fake { capabilities: Capabilities::of(features), ..Fake::with(&[BASE]) })
    };
    // Not asked: hashing alone would fail.
    std::os::unix::fs::symlink("..", platform.path("openhands/sub/up")).expect("linked");
    let options = RuntimeOptions { force_rebuild: true, ..platform.options() };
    let backend = without();
    let error = platform.build(&[&backend], &options).await.expect_err("refused");
    assert_eq!((error.kind(), error.feature()), (ErrorKind::Unsupported, Some(Feature::Run)));
    assert!(backend.asked().is_empty());
    // What it cannot do of the options neither.
    let features = [Feature::Store, Feature::Run];
    let plain = Arc::new(Fake { capabilities: Capabilities::of(features), ..Fake::with(&[]) });
    let options = RuntimeOptions { outputs: vec![Output::push()], ..platform.options() };
    let error = platform.build(&[&plain], &options).await.expect_err("refused");
    assert!(error.message().contains("`--push`") && plain.asked().is_empty(), "{error}");
    // Where it hangs on the answers, nothing is built.
    fs::remove_file(platform.path("openhands/sub/up")).expect("removed");
    let backend = without();
    let error = platform.build(&[&backend], &platform.options()).await.expect_err("refused");
    assert!(
        error.message().contains("mode `scratch`") && error.hints()[0].contains("lock image"),
        "{error:?}"
    );
    assert!(!backend.has_built());
}

#[tokio::test]
async fn a_base_image_that_does_not_exist_is_named_before_the_build() {
    let (platform, backend) = (Platform::new(), Arc::new(Fake::with(&[])));
    let error = platform.build(&[&backend], &platform.options()).await.expect_err("missing");
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "there is no base image `debian:11`"));
    assert!(!backend.has_built());
    // Who cannot say is not asked twice: the build will tell.
    let failures = [(BASE.to_owned(), ErrorKind::Denied)].into();
    let backend = Arc::new(Fake { failures, ..Fake::with(&[]) });
    platform.build(&[&backend], &platform.options()).await.expect("built");
}

#[tokio::test]
async fn sources_that_change_while_they_are_built_are_an_error() {
    let platform = Platform::new();
    let changes = Some(platform.path("openhands/a.txt"));
    let backend = Arc::new(Fake { changes, ..Fake::with(&[LOCK]) });
    let error = platform.build(&[&backend], &platform.options()).await.expect_err("changed");
    assert_eq!(error.kind(), ErrorKind::ContextUnreadable);
    assert!(error.hints()[0].contains("--force-rebuild"), "{error:?}");
    // Before the build, nothing is built under a tag that it is not.
    let platform = Platform::new();
    let changes_early = Some(platform.path("openhands/a.txt"));
    let backend = Arc::new(Fake { changes_early, ..Fake::with(&[LOCK]) });
    let error = platform.build(&[&backend], &platform.options()).await.expect_err("changed");
    assert_eq!((error.kind(), backend.has_built()), (ErrorKind::ContextUnreadable, false));
}

#[tokio::test]
async fn the_configuration_file_has_the_tag_or_the_digest_of_a_base_image_of_ours() {
    let platform = Platform::new();
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    for (number, (base, line)) in [
        (format!("example.com/runtime@{digest}"), format!("DOCKER_IMAGE_TAG={digest}")),
        ("example.com/runtime:base".to_owned(), "DOCKER_IMAGE_TAG=base".to_owned()),
        ("debian".to_owned(), "DOCKER_IMAGE_TAG=oh_v0.62.0_image_debian_tag_latest".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = format!("folder{number}");
        let options = RuntimeOptions {
            base_image: base,
            build_folder: Some(folder.clone().into()),
            force_rebuild: true,
            ..platform.options()
        };
        // The base images, as a fake knows them: by their tag, which one with a digest has not.
        let backend = Arc::new(Fake::with(&["", "base", "latest"]));
        platform.plan(&backend, &options).await.expect("planned");
        let text = fs::read_to_string(platform.path(&folder).join("config.sh")).expect("written");
        assert!(text.contains(&line), "{text}");
    }
}

#[tokio::test]
async fn a_backend_with_one_name_gives_the_first() {
    let platform = Platform::new();
    let capabilities = Capabilities::of(Feature::ALL.iter().copied()).giving_one_name();
    let backend = Arc::new(Fake { capabilities, ..Fake::with(&[BASE]) });
    let report = platform.build(&[&backend], &platform.options()).await.expect("built");
    assert_eq!(tags(&backend.built().tags), [SOURCE]);
    assert_eq!(report.result.tag(), Some(SOURCE));
}

#[tokio::test]
async fn agent_server_gets_all_its_tags_and_asks_nothing() {
    let (platform, backend) = (Platform::new(), Arc::new(Fake::with(&[BASE])));
    let recipe = Recipes::builtin().expect("valid").get("agent-server").expect("built in");
    let options = RuntimeOptions {
        base_image: "debian:11".to_owned(),
        repository: Some("example.com/agent-server".to_owned()),
        target: Some(crate::recipe::agent_server::Target::BaseImage),
        ..RuntimeOptions::new(recipe)
    };
    let host = Host {
        environment: [("GITHUB_SHA", "abc1234567890"), ("GITHUB_REF", "x\nRUN id")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..platform.host()
    };
    let report =
        build_runtime(&pipeline(&[&backend], &host), &options, &host, &Job::silent()).await.expect("built");
    assert!(tags(&backend.built().tags).contains(&"abc1234-debian_tag_11-base-image"));
    // The image says where it comes from; what is no name of a commit or branch does not get into its Dockerfile.
    let dockerfile = String::from_utf8_lossy(&backend.built().dockerfile.content).into_owned();
    assert!(dockerfile.contains("\nENV OPENHANDS_BUILD_GIT_SHA=abc1234567890\n"), "{dockerfile}");
    assert!(!dockerfile.contains("GIT_REF") && !dockerfile.contains("RUN id"), "{dockerfile}");
    assert_eq!(report.result.tag(), Some("abc1234-debian_tag_11-base-image"));
    assert_eq!(backend.asked(), ["11 StoreThenRegistry"]);
}

#[tokio::test]
async fn a_dockerfile_of_agent_server_gets_the_stage_and_the_arguments_that_it_asks_for() {
    let (platform, backend) = (Platform::new(), Arc::new(Fake::with(&[BASE])));
    let recipe = Recipes::builtin().expect("valid").get("agent-server").expect("built in");
    let mut recipe = Recipe::clone(&recipe);
    recipe.template.text =
        "ARG BASE_IMAGE=x\nFROM ${BASE_IMAGE} AS base-image\narg OPENHANDS_BUILD_GIT_SHA\n\
                            FROM base-image AS binary\n"
            .to_owned();
    let options = RuntimeOptions {
        base_image: "debian:11".to_owned(),
        target: Some(crate::recipe::agent_server::Target::BaseImage),
        ..RuntimeOptions::new(Arc::new(recipe))
    };
    platform.build(&[&backend], &options).await.expect("built");
    let built = backend.built();
    let given: Vec<String> = built.build_args.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(given, ["BASE_IMAGE=debian:11", "OPENHANDS_BUILD_GIT_SHA=unknown"]);
    assert_eq!(built.target.as_deref(), Some("base-image"));
}

#[tokio::test]
async fn versions_are_read_as_toml() {
    let platform = Platform::new();
    let read = async |text: &str| {
        platform.write("pyproject.toml", text);
        let options = RuntimeOptions { version: Some(String::new()), ..platform.options() };
        let names = runtime_names(&options, None, &platform.host(), &Job::silent()).await?;
        Ok::<_, crate::Error>(names.version.unwrap_or_default())
    };
    for (text, version) in [
        ("[tool.poetry]\nversion = \"1.2\" # not this\n", "1.2"),
        ("version = \"9\"\n[project]\nversion='2.0'\n[tool.poetry]\nversion = \"1\"\n", "2.0"),
        ("[tool.other]\nversion = \"3\"\n[tool]\npoetry = { version = \"4\" }\n", "4"),
    ] {
        assert_eq!(read(text).await.expect(text), version);
    }
    for text in ["[tool.poetry]\nversion = \n", "[project]\nversion = 1\n", ""] {
        let error = read(text).await.expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.hints()[0].contains("--version"), "{error:?}");
    }
}

#[tokio::test]
async fn sources_at_another_place_in_the_image_are_told_in_the_tags() {
    let platform = Platform::new();
    let tags = async |source: &str| {
        let options = RuntimeOptions { source: source.into(), ..platform.options() };
        let names = runtime_names(&options, None, &platform.host(), &Job::silent()).await.expect(source);
        names.references()[0].tag().unwrap_or_default().to_owned()
    };
    fs::create_dir(platform.path("copy")).expect("made");
    std::os::unix::fs::symlink("../openhands", platform.path("copy/openhands")).expect("linked");
    std::os::unix::fs::symlink("openhands", platform.path("other")).expect("linked");
    fs::copy(platform.path("pyproject.toml"), platform.path("copy/pyproject.toml")).expect("copied");
    fs::copy(platform.path("poetry.lock"), platform.path("copy/poetry.lock")).expect("copied");
    assert_eq!((tags("openhands").await.as_str(), tags("copy/openhands").await.as_str()), (SOURCE, SOURCE));
    let other = tags("other").await;
    assert!(other.starts_with(&format!("{LOCK}_x")) && other.ends_with("_glnsdte2lm82vv7q"), "{other}");
}

#[tokio::test]
async fn repositories_may_have_ports_and_digests() {
    let platform = Platform::new();
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    for (repository, base, source, generic) in [
        (
            "localhost:5000/a/b",
            "debian:11",
            "localhost:5000/a/b",
            "localhost:5000/a/b:oh_v0.62.0_image_debian_tag_11",
        ),
        (
            &format!("r.example/x@{digest}"),
            "debian:11",
            "r.example/x",
            "r.example/x:oh_v0.62.0_image_debian_tag_11",
        ),
        // A base image of the same repository is one of ours already.
        ("r.example/x", "r.example/x:base", "r.example/x", "r.example/x:base"),
        ("r.example/x", &format!("r.example/x@{digest}"), "r.example/x", &format!("r.example/x@{digest}")),
    ] {
        let options = RuntimeOptions {
            repository: Some(repository.to_owned()),
            base_image: base.to_owned(),
            ..platform.options()
        };
        let names = runtime_names(&options, None, &platform.host(), &Job::silent()).await.expect(repository);
        let RuntimeTags::Hashes { source: named, generic: found, .. } = names.tags else {
            panic!("not hashes")
        };
        assert_eq!((named.name().as_str(), found.as_deref()), (source, Some(generic)));
    }
}
