use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Mutex;

use super::super::Recipes;
use super::*;
use crate::archive::decompress;
use crate::archive::unpack::TarReader;
use crate::events::{Event, EventSink, Events};
use crate::registry::{RegistryClient, RegistrySettings};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

struct Checkout(tempfile::TempDir);

impl Checkout {
    fn new() -> Self {
        let checkout = Self(tempfile::tempdir().expect("a directory"));
        for (name, content) in [
            ("pyproject.toml", "[project]\nname = \"x\"\nversion = \"1.2.3\"\n"),
            ("uv.lock", "lock\n"),
            ("README.mdx", "read\n"),
            ("openhands/sdk/a.py", "a\n"),
            ("openhands/tools/b.py", "b\n"),
            ("openhands/workspace/c.py", "c\n"),
            ("openhands/agent_server/__main__.py", "d\n"),
        ] {
            checkout.write(name, content);
        }
        checkout
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn host(&self, variables: &[(&str, &str)]) -> Host {
        let (variables, directory) = (variables.iter(), self.0.path());
        Host {
            environment: variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            home_dir: None,
            current_dir: directory.to_owned(),
            cache_dir: directory.join("cache"),
            state_dir: directory.join("state"),
            registry_client: RegistryClient::new(RegistrySettings::default()).expect("no files are named"),
            archive: ArchiveSettings::default(),
        }
    }

    fn settle(&self, options: &GenerateOptions, variables: &[(&str, &str)]) -> Result<Generation> {
        Generation::settle(options, &self.host(variables))
    }

    fn settled(&self, variables: &[(&str, &str)]) -> Generation {
        self.settle(&options(), variables).expect("settled")
    }

    fn write_with(&self, variables: &[(&str, &str)]) -> Result<GeneratedContext> {
        let generation = self.settled(variables);
        generation.write(&ContextSettings::default(), &self.host(variables), &Job::silent())
    }

    /// The archive's members and contents.
    fn members(&self, generated: &GeneratedContext) -> Vec<(String, u32, String)> {
        let bytes = fs::read(self.at(&generated.archive.display().to_string())).expect("an archive");
        assert_eq!(Digest::of(&bytes), generated.digest);
        assert_eq!(bytes.len() as u64, generated.summary.packed_bytes);
        let mut reader = TarReader::new(decompress(bytes.as_slice()).expect("intact"));
        let mut members = Vec::new();
        while let Some(mut member) = reader.next_member().expect("intact") {
            let mut content = String::new();
            io::Read::read_to_string(&mut member, &mut content).expect("text");
            let name = String::from_utf8_lossy(&member.entry.path).into_owned();
            members.push((name, member.entry.mode, content));
        }
        members
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(directory)).expect("a directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn options() -> GenerateOptions {
    let recipe = Recipes::builtin().expect("valid").get("agent-server").expect("built in");
    GenerateOptions {
        recipe,
        source: ".".into(),
        target: None,
        output_dir: None,
        forced: false,
        force_option: "--force",
    }
}

#[test]
fn everything_has_a_default_and_an_empty_variable_is_none() {
    let empty =
        ["OUTPUT_DIR", "BASE_IMAGE", "TARGET", "CLEAN_OUTPUT", "CUSTOM_TAGS", "OUTPUT_NAME", "GITHUB_SHA"]
            .map(|name| (name, ""));
    let checkout = Checkout::new();
    for variables in [&[][..], &empty] {
        let settled = checkout.settled(variables);
        assert_eq!(settled.target, Target::Binary);
        assert_eq!(settled.base_image, "nikolaik/python-nodejs:python3.12-nodejs22");
        assert_eq!((settled.commit.as_str(), settled.clean), ("unknown", true));
        assert_eq!(settled.tags, ["python"]);
        assert_eq!(settled.file_name, "agent-server-unknown-python.tar.gz");
        assert_eq!(settled.archive(), Path::new("runtime-build/agent-server-unknown-python.tar.gz"));
    }
}

#[test]
fn variables_count_and_what_is_typed_goes_before_them() {
    let checkout = Checkout::new();
    let variables = [
        ("OUTPUT_DIR", "out/"),
        ("BASE_IMAGE", "debian:12"),
        ("TARGET", "source"),
        ("CLEAN_OUTPUT", "no"),
        ("CUSTOM_TAGS", " java , python,,"),
        ("GITHUB_SHA", COMMIT),
    ];
    let settled = checkout.settled(&variables);
    assert_eq!((settled.target, settled.base_image.as_str()), (Target::Source, "debian:12"));
    assert_eq!((settled.tags.join(" ").as_str(), settled.clean), ("java python", false));
    assert_eq!(settled.archive(), Path::new("out/agent-server-0123456-java.tar.gz"));
    assert_eq!(settled.image.to_string(), "docker.io/library/agent-server:0123456-java");
    let typed = GenerateOptions {
        target: Some("binary-minimal".into()),
        output_dir: Some("else".into()),
        ..options()
    };
    // A target that is not chosen may be anything.
    let settled = checkout.settle(&typed, &[("TARGET", "nonsense"), ("OUTPUT_DIR", "/")]).expect("settled");
    assert_eq!((settled.target, settled.output_dir.as_path()), (Target::BinaryMinimal, Path::new("else")));
    let typed = GenerateOptions { output_dir: Some("".into()), ..options() };
    assert_eq!(checkout.settle(&typed, &[]).expect("settled").output_dir, Path::new(DEFAULT_OUTPUT_DIR));
    for (value, clean) in [("TRUE", true), (" true", true), ("1", false), ("yes", false), ("false", false)] {
        assert_eq!(checkout.settled(&[("CLEAN_OUTPUT", value)]).clean, clean, "{value}");
    }
    assert_eq!(checkout.settled(&[("OUTPUT_NAME", "mine")]).file_name, "mine");
}

#[test]
fn git_is_read_where_the_sources_are() {
    let checkout = Checkout::new();
    checkout.write(".git/HEAD", "ref: refs/heads/main\n");
    checkout.write(".git/refs/heads/main", &format!("{COMMIT}\n"));
    checkout.write("other/.git/HEAD", &format!("{}\n", "f".repeat(40)));
    assert_eq!(checkout.settled(&[]).file_name, "agent-server-0123456-python.tar.gz");
    let elsewhere = GenerateOptions { source: "other".into(), ..options() };
    assert_eq!(checkout.settle(&elsewhere, &[]).expect("settled").commit, "f".repeat(40));
    assert_eq!(checkout.settled(&[("GITHUB_SHA", "abc")]).file_name, "agent-server-abc-python.tar.gz");
}

#[test]
fn what_cannot_be_used_is_refused() {
    let checkout = Checkout::new();
    for (variable, value, part) in [
        (
            "TARGET",
            "builder",
            "Invalid TARGET 'builder'. Must be one of: binary, binary-minimal, source, source-minimal",
        ),
        ("TARGET", "Binary", "Invalid TARGET 'Binary'"),
        ("CUSTOM_TAGS", "a b", "cannot be a tag"),
        ("CUSTOM_TAGS", "../up", "cannot be a tag"),
        ("GITHUB_SHA", "../../etc", "cannot be a tag"),
        ("GITHUB_SHA", "üüüüüüü", "cannot be a tag"),
        ("OUTPUT_NAME", "/etc/passwd", "not the name of a file"),
        ("OUTPUT_NAME", "../x", "not the name of a file"),
        ("OUTPUT_NAME", "a/b", "not the name of a file"),
        ("OUTPUT_NAME", "a/", "not the name of a file"),
        ("OUTPUT_NAME", "..", "not the name of a file"),
        ("OUTPUT_NAME", super::super::MARKER, "not the name of a file"),
    ] {
        let error = checkout.settle(&options(), &[(variable, value)]).expect_err(value);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{value}");
        assert!(error.message().contains(part), "{value}: {error}");
    }
}

#[test]
fn the_archive_has_the_layout_and_nothing_that_is_ignored() {
    let checkout = Checkout::new();
    for ignored in [
        "sdk/__pycache__/a.pyc",
        "sdk/a.pyc",
        "tools/deep/x.pyo",
        "tools/x.pyd",
        "workspace/.pytest_cache/v",
        "workspace/.coverage",
        "workspace/x.egg-info/PKG",
        "agent_server/.git/HEAD",
        "agent_server/.gitignore",
        "agent_server/node_modules/m/i.js",
        "sdk/.DS_Store",
        "sdk/Thumbs.db",
    ] {
        checkout.write(&format!("openhands/{ignored}"), "x");
    }
    checkout.write("openhands/sdk/.venv/x", "kept");
    checkout.write("openhands/sdk/.github/y", "kept");
    checkout.write("openhands/other/z.py", "not asked for");
    checkout.write("tests/t.py", "not asked for");
    fs::set_permissions(checkout.at("openhands/sdk/a.py"), fs::Permissions::from_mode(0o600)).expect("set");
    let generated = checkout.write_with(&[("TARGET", "source")]).expect("generated");
    let members = checkout.members(&generated);
    let names: Vec<&str> = members.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "Dockerfile",
            "README.mdx",
            "openhands",
            "openhands/agent_server",
            "openhands/agent_server/__main__.py",
            "openhands/sdk",
            "openhands/sdk/.github",
            "openhands/sdk/.github/y",
            "openhands/sdk/.venv",
            "openhands/sdk/.venv/x",
            "openhands/sdk/a.py",
            "openhands/tools",
            "openhands/tools/b.py",
            "openhands/tools/deep",
            "openhands/workspace",
            "openhands/workspace/c.py",
            "pyproject.toml",
            "uv.lock",
        ]
    );
    let of = |wanted: &str| members.iter().find(|(name, ..)| name == wanted).expect(wanted);
    assert_eq!(of("openhands/sdk/a.py").1, 0o644);
    assert!(of("Dockerfile").2.contains("FROM nikolaik/python-nodejs:python3.12-nodejs22 AS source\n"));
    assert!(of("Dockerfile").2.contains("--dev"));
}

#[test]
fn a_commit_does_not_leave_its_line() {
    let checkout = Checkout::new();
    let dockerfile = |commit: &str| {
        let generated = checkout.write_with(&[("GITHUB_SHA", commit)]).expect("generated");
        String::from_utf8(generated.folder.dockerfile.content.to_vec()).expect("text")
    };
    assert!(dockerfile(COMMIT).contains(&format!("ENV OPENHANDS_BUILD_GIT_SHA={COMMIT}\n")));
    assert!(!dockerfile("abcdefg\nRUN true").contains("abcdefg"));
}

#[test]
fn equal_content_gives_equal_bytes_and_targets_differ() {
    let (one, other) = (Checkout::new(), Checkout::new());
    fs::set_permissions(other.at("uv.lock"), fs::Permissions::from_mode(0o664)).expect("set");
    File::options()
        .write(true)
        .open(other.at("openhands/sdk/a.py"))
        .and_then(|file| file.set_modified(std::time::UNIX_EPOCH))
        .expect("set");
    let mut digests: Vec<Digest> = TARGETS
        .into_iter()
        .map(|target| {
            let variables = [("TARGET", target.name())];
            let digest = one.write_with(&variables).expect("generated").digest;
            assert_eq!(other.write_with(&variables).expect("generated").digest, digest);
            digest
        })
        .collect();
    digests.dedup();
    assert_eq!(digests.len(), TARGETS.len());
}

#[test]
fn the_directory_is_cleaned_or_added_to() {
    let checkout = Checkout::new();
    checkout.write_with(&[("GITHUB_SHA", "a")]).expect("generated");
    checkout.write_with(&[("GITHUB_SHA", "b"), ("CLEAN_OUTPUT", "false")]).expect("generated");
    let marker = super::super::MARKER;
    let (a, b, c) =
        ("agent-server-a-python.tar.gz", "agent-server-b-python.tar.gz", "agent-server-c-python.tar.gz");
    assert_eq!(checkout.names("runtime-build"), [marker, a, b]);
    checkout.write_with(&[("GITHUB_SHA", "c")]).expect("generated");
    assert_eq!(checkout.names("runtime-build"), [marker, c]);
    // One that is made without cleaning may be cleaned later.
    let variables = [("OUTPUT_DIR", "new/deep"), ("GITHUB_SHA", "a")];
    checkout.write_with(&[&variables[..], &[("CLEAN_OUTPUT", "0")]].concat()).expect("generated");
    checkout.write_with(&variables).expect("generated");
    assert_eq!(checkout.names("new/deep"), [marker, a]);
    // A directory of somebody else's is added to, and not cleaned.
    checkout.write("theirs/x", "x");
    let variables = [("OUTPUT_DIR", "theirs"), ("GITHUB_SHA", "a")];
    checkout.write_with(&[&variables[..], &[("CLEAN_OUTPUT", "0")]].concat()).expect("generated");
    let error = checkout.write_with(&variables).expect_err("theirs");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(checkout.names("theirs"), [a, "x"]);
    let forced = GenerateOptions { forced: true, ..options() };
    let host = checkout.host(&variables);
    let forced = Generation::settle(&forced, &host).expect("settled");
    forced.write(&ContextSettings::default(), &host, &Job::silent()).expect("forced");
    assert_eq!(checkout.names("theirs"), [marker, a]);
}

#[test]
fn dangerous_directories_are_refused_before_anything_is_written() {
    let checkout = Checkout::new();
    checkout.write(".git/HEAD", "ref: refs/heads/main\n");
    symlink(checkout.at("openhands"), checkout.at("link")).expect("a link");
    let before = checkout.names("");
    for (directory, clean, part) in [
        ("/", "true", "contains the source directory"),
        (".", "true", "contains the source directory"),
        (".", "false", "contains the source directory"),
        ("openhands", "true", "contains the source directory"),
        ("link", "true", "contains the source directory"),
        ("openhands/sdk/out", "true", "lies in the source directory"),
        ("openhands/sdk/out", "false", "lies in the source directory"),
        ("link/tools", "true", "lies in the source directory"),
        ("uv.lock", "true", "is a file"),
        ("uv.lock/x", "false", "inside a file"),
        ("tests/.git/..", "true", ""),
    ] {
        let variables = [("OUTPUT_DIR", directory), ("CLEAN_OUTPUT", clean)];
        match checkout.write_with(&variables) {
            Err(error) => assert!(!part.is_empty() && error.message().contains(part), "{directory}: {error}"),
            Ok(_) => assert_eq!(part, "", "{directory}"),
        }
    }
    fs::remove_dir_all(checkout.at("tests")).expect("the one that was fine");
    assert_eq!(checkout.names(""), before);
}

#[test]
fn what_is_missing_is_named_and_the_old_archive_stays() {
    let checkout = Checkout::new();
    let digest = checkout.write_with(&[]).expect("generated").digest;
    for (missing, part) in
        [("openhands/sdk", "Required directory not found: `openhands/sdk`"), ("uv.lock", "`uv.lock`")]
    {
        let away = checkout.at("away");
        fs::rename(checkout.at(missing), &away).expect("moved");
        let error = checkout.write_with(&[]).expect_err(missing);
        assert!(error.message().contains(part), "{error}");
        fs::rename(&away, checkout.at(missing)).expect("moved back");
    }
    let old = fs::read(checkout.at("runtime-build/agent-server-unknown-python.tar.gz")).expect("there");
    assert_eq!(Digest::of(old), digest);
    fs::remove_file(checkout.at("README.mdx")).expect("removed");
    assert!(checkout.write_with(&[]).is_ok());
}

#[test]
fn secrets_are_pointed_out() {
    #[derive(Default)]
    struct Warnings(Mutex<Vec<String>>);
    impl EventSink for Warnings {
        fn emit(&self, event: Event) {
            if let Event::Warned { message } = event {
                self.0.lock().expect("held").push(message);
            }
        }
    }
    let checkout = Checkout::new();
    checkout.write("openhands/sdk/.env", "KEY=x\n");
    checkout.write("openhands/tools/server.key", "x\n");
    let warnings = Arc::new(Warnings::default());
    let job = Job { events: Events::new(warnings.clone()), ..Job::silent() };
    let generated = checkout.settled(&[]).write(&ContextSettings::default(), &checkout.host(&[]), &job);
    let members = checkout.members(&generated.expect("generated"));
    assert!(members.iter().any(|(name, ..)| name == "openhands/sdk/.env"));
    let warnings = warnings.0.lock().expect("held").join("\n");
    assert!(warnings.contains("`openhands/sdk/.env`, `openhands/tools/server.key`"), "{warnings}");
}

#[test]
fn sizes_are_those_of_the_vectors() {
    for (bytes, text) in [
        (0, "0.0B"),
        (1023, "1023.0B"),
        (1024, "1.0KB"),
        (1536, "1.5KB"),
        (1_048_576, "1.0MB"),
        (5 << 40, "5.0TB"),
    ] {
        assert_eq!(size_text(bytes), text);
    }
}
