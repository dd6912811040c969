//! What counts, what does not, and when the cache is believed.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::context::{ContextSettings, DiskState, EntrySource, Modes};
use crate::request::DockerfileSource;

const FILES: &[(&str, &str)] = &[("Dockerfile", "FROM scratch\n"), ("src/a", "a"), ("src/b", "b")];

fn tree() -> TempDir {
    let root = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(root.path().join("src")).expect("created");
    fs::set_permissions(root.path().join("src"), fs::Permissions::from_mode(0o755)).expect("set");
    for (path, content) in FILES {
        fs::write(root.path().join(path), content).expect("written");
        fs::set_permissions(root.path().join(path), fs::Permissions::from_mode(0o644)).expect("set");
    }
    symlink("a", root.path().join("src/link")).expect("linked");
    root
}

fn request(root: &Path) -> BuildRequest {
    let settings = ContextSettings::default();
    let context = Context::from_dir(root, None, &settings).expect("a context");
    let dockerfile = DockerfileSource {
        shown: "Dockerfile".into(),
        path: None,
        in_context: None,
        content: "FROM scratch\n".into(),
    };
    BuildRequest::new(context, dockerfile)
}

fn compute(request: &BuildRequest, cache: &StatCache) -> Fingerprint {
    let job = Job::silent();
    let entries = request.context.list(&job).expect("listed");
    fingerprint(request, &entries, &BTreeMap::new(), cache, &job).expect("computed")
}

fn digest(request: &BuildRequest) -> Digest {
    compute(request, &StatCache::disabled()).digest()
}

#[test]
fn never_changes() {
    let root = tree();
    let request = request(root.path());
    let fingerprint = compute(&request, &StatCache::disabled());
    assert_eq!(fingerprint.tag(), "fp-61b77d3ad8ea5e30116fe4ac3fdfef37");
    assert!(fingerprint.digest().hex().starts_with(&fingerprint.tag()[3..]));
    let entries = request.context.list(&Job::silent()).expect("listed");
    let digest = context_digest(&request.context, &entries, &StatCache::disabled(), &Job::silent());
    assert_eq!(
        digest.expect("computed").hex(),
        "de9cd629ee5a14f16cd12fe3b32329b8a930e2155be4e4984e29cfec12af89f1"
    );
}

#[test]
fn times_and_order_do_not_count() {
    let (one, two) = (tree(), tempfile::tempdir().expect("temporary directory"));
    fs::create_dir(two.path().join("src")).expect("created");
    fs::set_permissions(two.path().join("src"), fs::Permissions::from_mode(0o755)).expect("set");
    symlink("a", two.path().join("src/link")).expect("linked");
    for (path, content) in FILES.iter().rev() {
        fs::write(two.path().join(path), content).expect("written");
        fs::set_permissions(two.path().join(path), fs::Permissions::from_mode(0o644)).expect("set");
        let file = File::options().write(true).open(two.path().join(path)).expect("opened");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("set");
    }
    assert_eq!(digest(&request(one.path())), digest(&request(two.path())));
}

#[test]
fn everything_in_the_tree_counts() {
    type Edit = fn(&Path);
    let changes: &[(&str, Edit)] = &[
        ("content", |root| fs::write(root.join("src/a"), "A").expect("written")),
        ("a new empty directory", |root| fs::create_dir(root.join("new")).expect("created")),
        ("a name", |root| fs::rename(root.join("src/a"), root.join("src/c")).expect("renamed")),
        ("a place", |root| fs::rename(root.join("src/a"), root.join("a")).expect("renamed")),
        ("permissions", |root| {
            fs::set_permissions(root.join("src/a"), fs::Permissions::from_mode(0o755)).expect("set");
        }),
        ("permissions of a directory", |root| {
            fs::set_permissions(root.join("src"), fs::Permissions::from_mode(0o700)).expect("set");
        }),
        ("a link target", |root| {
            fs::remove_file(root.join("src/link")).expect("removed");
            symlink("b", root.join("src/link")).expect("linked");
        }),
        ("a type", |root| {
            fs::remove_file(root.join("src/b")).expect("removed");
            symlink("b", root.join("src/b")).expect("linked");
        }),
        ("contents exchanged", |root| {
            fs::write(root.join("src/a"), "b").expect("written");
            fs::write(root.join("src/b"), "a").expect("written");
        }),
    ];
    let mut seen = vec![digest(&request(tree().path()))];
    for (name, change) in changes {
        let root = tree();
        change(root.path());
        let digest = digest(&request(root.path()));
        assert!(!seen.contains(&digest), "{name}");
        seen.push(digest);
    }
}

#[test]
fn everything_in_the_request_counts() {
    let root = tree();
    let named = tree();
    let set = |text: &str| BTreeMap::from([("x".to_owned(), text.to_owned())]);
    let base = request(root.path());
    let mut requests = vec![base.clone()];
    let mut with = |change: &dyn Fn(&mut BuildRequest)| {
        let mut request = base.clone();
        change(&mut request);
        requests.push(request);
    };
    with(&|request| request.dockerfile.content = "FROM scratch\n\n".into());
    with(&|request| request.target = Some("x".into()));
    with(&|request| request.platforms = vec!["linux/arm64".parse().expect("a platform")]);
    with(&|request| request.build_args = set("1"));
    with(&|request| request.build_args = set("2"));
    with(&|request| request.labels = set("1"));
    with(&|request| request.annotations = set("1"));
    with(&|request| request.source_date_epoch = Some(1));
    with(&|request| {
        request.build_contexts.insert("x".into(), NamedContext::Directory(named.path().to_owned()));
    });
    with(&|request| {
        request.build_contexts.insert("x".into(), NamedContext::Other("target:a".into()));
    });
    let digests: std::collections::BTreeSet<Digest> = requests.iter().map(digest).collect();
    assert_eq!(digests.len(), requests.len());

    let job = Job::silent();
    let entries = base.context.list(&job).expect("listed");
    let bases = BTreeMap::from([("debian:12".to_owned(), Digest::of(b"x"))]);
    let known = fingerprint(&base, &entries, &bases, &StatCache::disabled(), &job).expect("computed");
    assert!(!digests.contains(&known.digest()));
}

#[test]
fn normal_modes_leave_the_umask_out() {
    let (one, two) = (tree(), tree());
    fs::set_permissions(two.path().join("src/a"), fs::Permissions::from_mode(0o600)).expect("set");
    let normal = |root: &Path| {
        let settings = ContextSettings { modes: Modes::Normalize, ..ContextSettings::default() };
        let mut request = request(root);
        request.context = Context::from_dir(root, None, &settings).expect("a context");
        digest(&request)
    };
    assert_eq!(normal(one.path()), normal(two.path()));
    assert_ne!(digest(&request(one.path())), digest(&request(two.path())));
}

/// The file that the cache wrote, or `None`.
fn cache_file(cache_dir: &Path) -> Option<std::path::PathBuf> {
    let mut files = fs::read_dir(cache_dir.join("stat")).ok()?.map(|file| file.expect("read").path());
    let file = files.next();
    assert!(files.next().is_none(), "nothing temporary is left behind");
    file
}

/// Waits until files have rested so long that their hashes are kept; the clock of a file system
/// cannot be passed in.
fn entries_at_rest(request: &BuildRequest) -> Vec<Entry> {
    let mut entries = request.context.list(&Job::silent()).expect("listed");
    for entry in &mut entries {
        if let EntrySource::Disk(state) = &mut entry.source {
            state.ctime_ns -= 3_600_000_000_000;
        }
    }
    entries
}

fn age(root: &Path) {
    for (path, _) in FILES {
        let file = File::options().write(true).open(root.join(path)).expect("opened");
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("set");
    }
}

#[test]
fn a_known_file_is_not_read_again() {
    let (root, cache_dir) = (tree(), tempfile::tempdir().expect("temporary directory"));
    age(root.path());
    let (request, cache, job) = (request(root.path()), StatCache::open(cache_dir.path()), Job::silent());
    let entries = entries_at_rest(&request);
    let first = hash_files(&request.context, &entries, &cache, &job).expect("hashed");
    assert!(cache_file(cache_dir.path()).is_some());
    // Were it read, it would be missed.
    fs::remove_file(root.path().join("src/a")).expect("removed");
    assert_eq!(hash_files(&request.context, &entries, &cache, &job).expect("hashed"), first);
    assert!(hash_files(&request.context, &entries, &StatCache::disabled(), &job).is_err());
}

#[test]
fn any_difference_in_its_state_has_a_file_read_again() {
    let (root, cache_dir) = (tree(), tempfile::tempdir().expect("temporary directory"));
    age(root.path());
    let (request, cache, job) = (request(root.path()), StatCache::open(cache_dir.path()), Job::silent());
    let entries = entries_at_rest(&request);
    hash_files(&request.context, &entries, &cache, &job).expect("hashed");
    fs::remove_file(root.path().join("src/a")).expect("removed");
    let changes: [fn(&mut DiskState); 5] = [
        |state| state.size_bytes += 1,
        |state| state.mtime_ns += 1,
        |state| state.ctime_ns += 1,
        |state| state.inode += 1,
        |state| state.device += 1,
    ];
    for change in changes {
        let mut entries = entries.clone();
        let entry = entries.iter_mut().find(|entry| entry.path.as_bytes() == b"src/a").expect("listed");
        if let EntrySource::Disk(state) = &mut entry.source {
            change(state);
        }
        assert!(hash_files(&request.context, &entries, &cache, &job).is_err());
    }
}

/// Same size, same times: only the rule about files that were just written tells them apart.
#[test]
fn a_file_that_was_just_written_is_not_believed() {
    let (root, cache_dir) = (tree(), tempfile::tempdir().expect("temporary directory"));
    let (request, cache) = (request(root.path()), StatCache::open(cache_dir.path()));
    let first = compute(&request, &cache).digest();
    let file = root.path().join("src/a");
    let modified = fs::metadata(&file).expect("stat").modified().expect("has a time");
    fs::write(&file, "A").expect("written");
    File::options().write(true).open(&file).expect("opened").set_modified(modified).expect("set");
    assert_ne!(compute(&request, &cache).digest(), first);
    // Nothing of these files is remembered yet.
    let kept = cache_file(cache_dir.path()).map_or(0, |file| fs::metadata(file).expect("stat").len());
    assert!(kept < 100, "{kept}");
}

#[test]
fn a_damaged_cache_is_rebuilt() {
    let (root, cache_dir) = (tree(), tempfile::tempdir().expect("temporary directory"));
    age(root.path());
    let (request, cache, job) = (request(root.path()), StatCache::open(cache_dir.path()), Job::silent());
    let entries = entries_at_rest(&request);
    let good = hash_files(&request.context, &entries, &cache, &job).expect("hashed");
    let file = cache_file(cache_dir.path()).expect("written");
    let intact = fs::read(&file).expect("read");
    for index in (0..intact.len()).step_by(7) {
        let mut damaged = intact.clone();
        damaged[index] ^= 1;
        fs::write(&file, damaged).expect("written");
        assert_eq!(hash_files(&request.context, &entries, &cache, &job).expect("hashed"), good);
        assert_eq!(fs::read(&file).expect("read"), intact);
    }
    for length in [0, 1, 40, intact.len() - 1] {
        fs::write(&file, &intact[..length]).expect("written");
        assert_eq!(hash_files(&request.context, &entries, &cache, &job).expect("hashed"), good);
    }
}

#[test]
fn a_cache_that_cannot_be_written_harms_nobody() {
    let (root, file) = (tree(), tempfile::NamedTempFile::new().expect("temporary file"));
    let request = request(root.path());
    let cache = StatCache::open(&file.path().join("below a file"));
    assert_eq!(compute(&request, &cache).digest(), digest(&request));
}

#[test]
fn processes_that_run_at_the_same_time_agree() {
    let (root, cache_dir) = (tree(), tempfile::tempdir().expect("temporary directory"));
    age(root.path());
    let request = request(root.path());
    let expected = digest(&request);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert_eq!(compute(&request, &StatCache::open(cache_dir.path())).digest(), expected);
                }
            });
        }
    });
}

#[test]
fn a_record_says_what_changed() {
    let (root, state_dir) = (tree(), tempfile::tempdir().expect("temporary directory"));
    let fingerprint = |request: &BuildRequest| compute(request, &StatCache::disabled());
    let record = |request: &BuildRequest| Record::of(&fingerprint(request));
    let mut request = request(root.path());
    request.build_args.insert("TOKEN".into(), "hunter2".into());
    let dockerfile = Path::new("Dockerfile");
    assert_eq!(Record::load(state_dir.path(), root.path(), dockerfile), None);
    let keep = |request: &BuildRequest| {
        Record::keep(&fingerprint(request), state_dir.path(), root.path(), dockerfile).expect("kept");
        Record::load(state_dir.path(), root.path(), dockerfile).expect("there")
    };
    let before = keep(&request);
    assert_eq!(before, record(&request));
    assert!(!format!("{before:?}").contains("hunter2"));
    assert!(record(&request).changes_since(&before).is_empty());

    fs::write(root.path().join("src/a"), "changed").expect("written");
    fs::set_permissions(root.path().join("src/b"), fs::Permissions::from_mode(0o755)).expect("set");
    fs::write(root.path().join("new"), "").expect("written");
    fs::remove_file(root.path().join("src/link")).expect("removed");
    request.target = Some("test".into());
    request.build_args.insert("TOKEN".into(), "hunter3".into());
    let changes: Vec<String> =
        record(&request).changes_since(&before).iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            "build argument TOKEN: changed",
            "file new: new",
            "file src/a: content changed",
            "file src/b: permissions 0644 → 0755",
            "link src/link: gone",
            "target stage: new",
        ]
    );
    assert_eq!(keep(&request), record(&request));
    // The same again is not written again.
    let kept = || {
        let directory = fs::read_dir(state_dir.path().join("fingerprints")).expect("listed");
        let files: Vec<_> = directory.map(|entry| entry.expect("entry").metadata().expect("stat")).collect();
        files.iter().map(MetadataExt::ino).collect::<Vec<u64>>()
    };
    let file = kept();
    keep(&request);
    assert_eq!(kept(), file);
}
