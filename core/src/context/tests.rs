//! Contexts on a real disk.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::*;
use crate::events::{Event, EventSink, Events};

fn tree(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("temporary directory");
    for (path, content) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("created");
        fs::write(path, content).expect("written");
    }
    directory
}

fn context(root: &Path) -> Context {
    Context::from_dir(root, None, &ContextSettings::default()).expect("a context")
}

fn paths(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.path.to_string()).collect()
}

fn listed(context: &Context) -> Vec<String> {
    paths(&context.list(&Job::silent()).expect("listed"))
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl EventSink for Warnings {
    fn emit(&self, event: Event) {
        if let Event::Warned { message } = event {
            self.0.lock().expect("not poisoned").push(message);
        }
    }
}

pub(super) fn with_warnings(work: impl FnOnce(&Job)) -> Vec<String> {
    let sink = Arc::new(Warnings::default());
    work(&Job { events: Events::new(sink.clone()), ..Job::silent() });
    std::mem::take(&mut *sink.0.lock().expect("not poisoned"))
}

#[test]
fn lists_in_the_order_of_the_bytes() {
    let root = tree(&[("a/b", ""), ("a.txt", ""), ("B", ""), ("a/b.c/d", ""), ("é", "")]);
    assert_eq!(listed(&context(root.path())), ["B", "a", "a.txt", "a/b", "a/b.c", "a/b.c/d", "é"]);
}

#[test]
fn what_is_reincluded_comes_with_the_directories_above() {
    let root = tree(&[
        (".dockerignore", "*\n!src/*/keep.rs\n"),
        ("src/a/keep.rs", ""),
        ("src/a/drop.rs", ""),
        ("src/b/drop.rs", ""),
        ("other/x", ""),
    ]);
    let context = context(root.path());
    assert_eq!(listed(&context), ["src", "src/a", "src/a/keep.rs"]);
    let sent = context.list_to_send(&Job::silent()).expect("listed");
    assert_eq!(paths(&sent), [".dockerignore", "src", "src/a", "src/a/keep.rs"]);
}

#[test]
fn an_excluded_directory_is_not_walked_unless_something_may_come_back() {
    let root = tree(&[(".dockerignore", "locked\n!keep\n"), ("locked/x", ""), ("keep", "")]);
    let locked = root.path().join("locked");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).expect("set");
    assert_eq!(listed(&context(root.path())), [".dockerignore", "keep"]);
    fs::write(root.path().join(".dockerignore"), "locked\n!locked/x\n").expect("written");
    let found = listed(&context(root.path()));
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).expect("set");
    // The super-user may read everything.
    assert!(found == [".dockerignore", "keep"] || found == [".dockerignore", "keep", "locked", "locked/x"]);
}

#[test]
fn the_ignore_file_of_the_dockerfile_goes_first() {
    let root = tree(&[
        (".dockerignore", "a\n"),
        ("deploy/Dockerfile", ""),
        ("deploy/Dockerfile.dockerignore", "b\ndeploy\n"),
        ("a", ""),
        ("b", ""),
    ]);
    let dockerfile = root.path().join("deploy/Dockerfile");
    let context =
        Context::from_dir(root.path(), Some(&dockerfile), &ContextSettings::default()).expect("a context");
    assert_eq!(listed(&context), [".dockerignore", "a"]);
    let sent = context.list_to_send(&Job::silent()).expect("listed");
    assert_eq!(
        paths(&sent),
        [".dockerignore", "a", "deploy", "deploy/Dockerfile", "deploy/Dockerfile.dockerignore"]
    );
    let decision = context.ignore().decision(&ContextPath::from_clean("b")).expect("decided");
    assert_eq!(decision.file, Path::new("deploy/Dockerfile.dockerignore"));
    let off = ContextSettings { ignore: false, ..ContextSettings::default() };
    let context = Context::from_dir(root.path(), Some(&dockerfile), &off).expect("a context");
    assert_eq!(context.list(&Job::silent()).expect("listed").len(), 6);
}

#[test]
fn links_are_never_followed_but_the_root_may_be_one() {
    let root = tree(&[("dir/file", "")]);
    for (target, link) in [("..", "dir/up"), ("nowhere", "dangling"), ("loop", "loop"), ("dir", "to-dir")] {
        symlink(target, root.path().join(link)).expect("linked");
    }
    let elsewhere = tempfile::tempdir().expect("temporary directory");
    symlink(root.path(), elsewhere.path().join("root")).expect("linked");
    let context = context(&elsewhere.path().join("root"));
    assert_eq!(listed(&context), ["dangling", "dir", "dir/file", "dir/up", "loop", "to-dir"]);
    let entries = context.list(&Job::silent()).expect("listed");
    assert_eq!(entries[0].kind, EntryKind::Symlink { target: b"nowhere".to_vec() });
}

#[test]
fn unusual_names_come_through() {
    let root = tree(&[]);
    let names: [&[u8]; 5] = [b"\xff\xfe", b"a\nb", b" ", b"-rf", b"\\"];
    for name in names {
        fs::write(root.path().join(OsStr::from_bytes(name)), name).expect("written");
    }
    let context = context(root.path());
    let entries = context.list(&Job::silent()).expect("listed");
    let mut expected: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).to_vec();
    expected.sort();
    assert_eq!(entries.iter().map(|entry| entry.path.as_bytes().to_vec()).collect::<Vec<_>>(), expected);
    for entry in &entries {
        let mut content = Vec::new();
        context.open(entry).expect("opened").append_to(&mut content).expect("read");
        assert_eq!(content, entry.path.as_bytes());
    }
}

#[test]
fn sockets_and_fifos_are_left_out_with_a_warning() {
    let root = tree(&[("a", "")]);
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).expect("bound");
    let warnings = with_warnings(|job| {
        assert_eq!(paths(&context(root.path()).list(job).expect("listed")), ["a"]);
    });
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("`socket`"), "{warnings:?}");
}

#[test]
fn entries_in_memory_lie_over_those_on_disk() {
    let root = tree(&[(".dockerignore", "x\n"), ("a", "disk"), ("b/c", "")]);
    let mut context = context(root.path());
    context.insert(ContextPath::from_clean("a"), "memory", 0o600);
    context.insert(ContextPath::from_clean("x/y/z"), "new", 0o755);
    context.insert_symlink(ContextPath::from_clean("l"), "a");
    assert_eq!(listed(&context), [".dockerignore", "a", "b", "b/c", "l", "x", "x/y", "x/y/z"]);
    let entries = context.list(&Job::silent()).expect("listed");
    let mut content = Vec::new();
    context.open(&entries[1]).expect("opened").append_to(&mut content).expect("read");
    assert_eq!((content.as_slice(), entries[1].mode, entries[1].mtime), (&b"memory"[..], 0o600, 0));
}

#[test]
fn a_context_may_live_in_memory_alone() {
    let mut context = Context::empty();
    context.insert(ContextPath::from_clean("Dockerfile"), "FROM scratch\n", 0o644);
    assert_eq!(listed(&context), ["Dockerfile"]);
    assert!(context.root().is_none());
}

#[test]
fn modes_are_those_on_disk_or_normal_ones() {
    let root = tree(&[("d/plain", ""), ("d/run", "")]);
    for (path, mode) in [("d", 0o700), ("d/plain", 0o640), ("d/run", 0o4711)] {
        fs::set_permissions(root.path().join(path), fs::Permissions::from_mode(mode)).expect("set");
    }
    for (modes, expected) in
        [(Modes::Keep, [0o700, 0o640, 0o4711]), (Modes::Normalize, [0o755, 0o644, 0o755])]
    {
        let settings = ContextSettings { modes, ..ContextSettings::default() };
        let context = Context::from_dir(root.path(), None, &settings).expect("a context");
        let entries = context.list(&Job::silent()).expect("listed");
        assert_eq!(entries.iter().map(|entry| entry.mode).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn refuses_a_root_that_is_no_directory() {
    let root = tree(&[("file", "")]);
    for name in ["file", "missing", "file/x"] {
        let path = root.path().join(name);
        assert!(Context::from_dir(&path, None, &ContextSettings::default()).is_err(), "{name}");
    }
}

#[test]
fn a_wrong_pattern_shows_its_line() {
    let root = tree(&[(".dockerignore", "ok\n[z-\n")]);
    let error = Context::from_dir(root.path(), None, &ContextSettings::default()).expect_err("wrong");
    let line = error.source_line().expect("has a line");
    assert_eq!((line.file.as_path(), line.line, line.text.as_str()), (Path::new(".dockerignore"), 2, "[z-"));
}

#[test]
fn stopping_ends_the_walk() {
    let root = tree(&[("a", "")]);
    let job = Job::silent();
    job.cancel.cancel();
    let error = context(root.path()).list(&job).expect_err("stopped");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn warns_of_secrets_and_size_as_the_settings_say() {
    let root = tree(&[(".env", "A=1"), (".env.example", ""), ("keys/id_rsa", ""), ("src/main.rs", "12345")]);
    let warn = |settings: ContextSettings| {
        let context = Context::from_dir(root.path(), None, &settings).expect("a context");
        with_warnings(|job| {
            let entries = context.list(job).expect("listed");
            warnings(&context, &entries, job).expect("warned");
        })
    };
    let by_default = warn(ContextSettings::default());
    assert_eq!(by_default.len(), 1);
    assert!(by_default[0].contains("`.env`, `keys/id_rsa`;"), "{by_default:?}");
    let settings = ContextSettings {
        secret_patterns: vec!["src".into()],
        warn_size_bytes: Some(7),
        ..ContextSettings::default()
    };
    let changed = warn(settings);
    assert!(changed[0].contains("`src/main.rs` (5 B)"), "{changed:?}");
    assert!(changed[1].contains("`src/main.rs`;"), "{changed:?}");
    let off = ContextSettings { warn_secrets: false, warn_size_bytes: None, ..ContextSettings::default() };
    assert!(warn(off).is_empty());
}

#[test]
fn a_listing_is_shared_until_something_is_added() {
    let directory = tempfile::tempdir().expect("temporary directory");
    std::fs::write(directory.path().join("a"), "a").expect("written");
    let context = Context::from_dir(directory.path(), None, &ContextSettings::default()).expect("a context");
    let (clone, job) = (context.clone(), Job::silent());
    assert_eq!(context.list_once(&job).expect("listed").len(), 1);
    std::fs::write(directory.path().join("b"), "b").expect("written");
    assert_eq!(clone.list_once(&job).expect("known").len(), 1);
    assert_eq!(clone.list(&job).expect("listed again").len(), 2);
    let mut other = clone.clone();
    other.insert(ContextPath::from_clean("c"), "c", 0o644);
    assert_eq!(other.list_once(&job).expect("another").len(), 3);
    assert_eq!(clone.list_once(&job).expect("known").len(), 1);
}
