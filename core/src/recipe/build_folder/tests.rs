use std::os::unix::fs::symlink;
use std::sync::Arc;

use tempfile::TempDir;

use super::super::Recipes;
use super::*;

/// A checkout: the package `agents`, what lies beside it, and a place for build folders.
struct Checkout(TempDir);

impl Checkout {
    fn new() -> Self {
        let checkout = Self(tempfile::tempdir().expect("a directory"));
        for (path, content) in [
            ("pyproject.toml", "[project]\nversion = \"1\"\n"),
            ("poetry.lock", "# lock\n"),
            ("skills/one.md", "# one\n"),
            ("skills/.hidden/x", "x"),
            ("agents/__init__.py", ""),
            ("agents/main.py", "print(1)\n"),
            ("agents/.env", "X=1\n"),
            ("agents/README.md", "# read me\n"),
            ("agents/main.pyc", "x"),
            ("agents/sub/__pycache__/main.cpython.pyc", "x"),
            ("agents/sub/deep.txt", "deep\n"),
            ("agents/.git/config", "x"),
        ] {
            checkout.put(path, content);
        }
        checkout
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn folder(&self) -> Result<BuildFolder> {
        let dockerfile = "FROM scratch\nCOPY code/ /code/\n".to_owned();
        let settings = ContextSettings::default();
        runtime().build_folder(&self.at("agents"), dockerfile, &settings, &Job::silent())
    }
}

fn runtime() -> Arc<Recipe> {
    Recipes::builtin().expect("valid").get("openhands-runtime").expect("built in")
}

/// The files of a folder with their content, by path.
fn files(folder: &BuildFolder) -> Vec<(String, String)> {
    let entries = folder.context.list(&Job::silent()).expect("listed");
    let files = entries.iter().filter(|entry| !entry.is_directory()).map(|entry| {
        let mut content = Vec::new();
        folder.context.open(entry).expect("opened").append_to(&mut content).expect("read");
        (entry.path.to_string(), String::from_utf8(content).expect("text"))
    });
    files.collect()
}

fn names(folder: &BuildFolder) -> Vec<String> {
    files(folder).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn the_folder_holds_lock_files_package_and_skills() {
    let checkout = Checkout::new();
    let folder = checkout.folder().expect("put together");
    let all = folder.context.list(&Job::silent()).expect("listed");
    assert!(!all.iter().any(|entry| entry.path.to_string().contains("/.git")), "nor an empty one");
    assert_eq!(
        names(&folder),
        [
            "Dockerfile",
            "code/agents/.env",
            "code/agents/__init__.py",
            "code/agents/main.py",
            "code/agents/sub/deep.txt",
            "code/poetry.lock",
            "code/pyproject.toml",
            "code/skills/one.md",
        ]
    );
    assert_eq!(folder.dockerfile.in_context, Some(ContextPath::from_clean("Dockerfile")));
    assert_eq!(folder.dockerfile.shown, Path::new("openhands-runtime/Dockerfile"));
    // Skills may be missing, and a lock file in the package stands before that beside it.
    fs::remove_dir_all(checkout.at("skills")).expect("removed");
    checkout.put("agents/poetry.lock", "# package\n");
    let all = files(&checkout.folder().expect("put together"));
    let lock = all.iter().find(|(name, _)| name == "code/poetry.lock").expect("there");
    assert_eq!(lock.1, "# package\n");
    assert!(!all.iter().any(|(name, _)| name.starts_with("code/skills")));
}

#[test]
fn links_give_what_they_lead_to() {
    let checkout = Checkout::new();
    checkout.put("outside/data.txt", "outside\n");
    symlink("main.py", checkout.at("agents/link.py")).expect("a link");
    symlink("../outside", checkout.at("agents/linked")).expect("a link");
    symlink("nowhere", checkout.at("agents/dangling")).expect("a link");
    let all = files(&checkout.folder().expect("put together"));
    let content =
        |name: &str| all.iter().find(|(found, _)| found == name).map(|(_, content)| content.as_str());
    assert_eq!(content("code/agents/link.py"), Some("print(1)\n"));
    assert_eq!(content("code/agents/linked/data.txt"), Some("outside\n"));
    assert_eq!(content("code/agents/dangling"), None);
    // The package has the name that it is called by.
    symlink("agents", checkout.at("other")).expect("a link");
    let of = |source: &Path| {
        let settings = ContextSettings::default();
        names(
            &runtime().build_folder(source, String::new(), &settings, &Job::silent()).expect("put together"),
        )
    };
    assert!(of(&checkout.at("other")).contains(&"code/other/main.py".to_owned()));
    assert!(of(&checkout.at("agents/sub/..")).contains(&"code/agents/main.py".to_owned()));
    symlink("..", checkout.at("agents/sub/up")).expect("a link");
    let circle = checkout.folder().expect("nothing is listed yet").context.list(&Job::silent());
    assert_eq!(circle.expect_err("a circle").kind(), ErrorKind::ContextUnreadable);
}

#[test]
fn what_is_missing_is_named_with_its_key() {
    let checkout = Checkout::new();
    fs::remove_file(checkout.at("poetry.lock")).expect("removed");
    let error = checkout.folder().expect_err("no lock file");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let directory = checkout.at("agents");
    let message = format!("there is no `poetry.lock` in `{}` or the directory above it", directory.display());
    assert_eq!(
        (error.message(), error.details()),
        (message.as_str(), &[("key", "lock-files".to_owned())][..])
    );

    fs::remove_dir_all(&directory).expect("removed");
    let error = checkout.folder().expect_err("no source");
    assert_eq!(error.message(), format!("there is no source directory `{}`", directory.display()));
    fs::write(&directory, "").expect("written");
    assert!(checkout.folder().expect_err("a file").message().ends_with("is no directory"));

    let server = Recipes::builtin().expect("valid").get("agent-server").expect("built in");
    let checkout = Checkout::new();
    checkout.put("uv.lock", "");
    for (made, missing) in [("sdk", "tools"), ("tools", "workspace"), ("workspace", "agent_server")] {
        checkout.put(&format!("openhands/{made}/x.py"), "");
        let settings = ContextSettings::default();
        let error = server
            .build_folder(checkout.0.path(), String::new(), &settings, &Job::silent())
            .expect_err(missing);
        assert!(error.message().ends_with(&format!("openhands/{missing}` does not exist")), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.details()[0].1.starts_with("sources["), "{error:?}");
    }
    checkout.put("openhands/agent_server/.env", "");
    checkout.put("openhands/agent_server/x.egg-info/y", "");
    checkout.put("README.mdx", "");
    let folder = server
        .build_folder(checkout.0.path(), String::new(), &ContextSettings::default(), &Job::silent())
        .expect("put together");
    assert_eq!(
        names(&folder),
        [
            "Dockerfile",
            "README.mdx",
            "openhands/agent_server/.env",
            "openhands/sdk/x.py",
            "openhands/tools/x.py",
            "openhands/workspace/x.py",
            "pyproject.toml",
            "uv.lock",
        ]
    );
    let bare = server.bare_folder("FROM scratch\n".to_owned(), &ContextSettings::default());
    assert_eq!(names(&bare), ["Dockerfile"]);
}

#[test]
fn a_written_folder_is_whole_and_adds_to_its_configuration() {
    let checkout = Checkout::new();
    fs::set_permissions(checkout.at("agents/main.py"), Permissions::from_mode(0o755)).expect("set");
    let folder = checkout.folder().expect("put together");
    let tags = HashedTags {
        versioned: Some("oh_v1_debian".to_owned()),
        lock: Some("oh_v1_lock".to_owned()),
        source: "oh_v1_lock_source".to_owned(),
    };
    let added = runtime().config_lines("ghcr.io/a/b", "oh_v1_image_debian_tag_11", &tags).expect("filled in");
    let added = added.expect("it has one");
    let (current_dir, job) = (checkout.at("work"), Job::silent());
    fs::create_dir(&current_dir).expect("made");
    let written = current_dir.join("folder");
    let lines = "\nDOCKER_IMAGE_TAG=oh_v1_image_debian_tag_11\nDOCKER_IMAGE_SOURCE_TAG=oh_v1_lock_source\n";
    for times in 1..=2 {
        folder
            .write(Path::new("folder"), FolderGuard::new(&current_dir), Some(&added), &job)
            .expect("written");
        let config = fs::read_to_string(written.join("config.sh")).expect("readable");
        assert_eq!(config, lines[1..].repeat(times));
        for (name, content) in files(&folder) {
            assert_eq!(fs::read_to_string(written.join(&name)).expect("readable"), content, "{name}");
        }
        let mode = fs::metadata(written.join("code/agents/main.py")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }
    // What has disappeared from the sources disappears from the folder.
    fs::remove_file(checkout.at("agents/main.py")).expect("removed");
    checkout
        .folder()
        .expect("put together")
        .write(&written, FolderGuard::new(&current_dir), None, &job)
        .expect("written");
    assert!(!written.join("code/agents/main.py").exists() && written.join("Dockerfile").exists());
}

#[test]
fn a_folder_that_cannot_be_written_leaves_what_was_there() {
    let checkout = Checkout::new();
    let (current_dir, job) = (checkout.at("work"), Job::silent());
    fs::create_dir(&current_dir).expect("made");
    let folder = checkout.folder().expect("put together");
    folder.write(Path::new("folder"), FolderGuard::new(&current_dir), None, &job).expect("written");
    let stopped = Job::silent();
    stopped.cancel.cancel();
    let error = folder
        .write(Path::new("folder"), FolderGuard::new(&current_dir), None, &stopped)
        .expect_err("stopped");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    symlink("..", checkout.at("agents/sub/up")).expect("a link");
    let broken = checkout.folder().expect("put together");
    broken.write(Path::new("folder"), FolderGuard::new(&current_dir), None, &job).expect_err("a circle");
    assert!(current_dir.join("folder/code/agents/main.py").exists());
    assert_eq!(fs::read_dir(&current_dir).expect("readable").count(), 1);

    checkout.put("work/foreign/precious.txt", "x");
    for refused in ["foreign", "../agents", "../agents/inside", ".", "..", "/"] {
        let error =
            folder.write(Path::new(refused), FolderGuard::new(&current_dir), None, &job).expect_err(refused);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{refused}: {error:?}");
    }
    assert!(checkout.at("work/foreign/precious.txt").exists() && checkout.at("agents/main.py").exists());
}

#[test]
fn what_is_not_hashed_is_not_copied() {
    let checkout = Checkout::new();
    let text = "template-text = \"FROM a\"\nrepository = \"a/b\"\n\
                sources = [{ path = \".\", destination = \"code\" }, \
                { path = \"../skills\", destination = \"skills\", hashed = false }]\n\
                [tags]\nsource = \"{{ lock_hash }}{{ extension }}{{ source_hash }}\"\n";
    checkout.put("acme.toml", text);
    let recipe = Recipes::builtin().expect("valid").read_file(&checkout.at("acme.toml")).expect("valid");
    let settings = ContextSettings::default();
    let folder = recipe.build_folder(&checkout.at("agents"), String::new(), &settings, &Job::silent());
    assert_eq!(
        names(&folder.expect("put together")),
        [
            "Dockerfile",
            "code/.env",
            "code/README.md",
            "code/__init__.py",
            "code/main.py",
            "code/sub/deep.txt",
            "skills/.hidden/x",
            "skills/one.md",
        ]
    );
    let hidden = text.replace("path = \".\"", "path = \".git\"");
    checkout.put("acme.toml", &hidden);
    let recipe = Recipes::builtin().expect("valid").read_file(&checkout.at("acme.toml")).expect("valid");
    let refused = recipe.build_folder(&checkout.at("agents"), String::new(), &settings, &Job::silent());
    assert!(refused.expect_err("hidden").message().starts_with("the source hash leaves `.git` out"));
}
