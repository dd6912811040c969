use std::fs::{self, File};
use std::os::unix::fs::symlink;

use rustix::fs::{FlockOperation, flock};

use super::*;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with(files: &[&str]) -> Self {
        let place = Self::new();
        for name in files {
            let path = place.at(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, *name).expect("written");
        }
        place
    }

    fn guard(&self) -> FolderGuard<'_> {
        FolderGuard::new(self.0.path())
    }

    fn claim(&self, typed: &str) -> Result<OwnedFolder> {
        OwnedFolder::claim(Path::new(typed), &self.guard())
    }

    fn refusal(&self, typed: &str, guard: &FolderGuard<'_>) -> String {
        let error = OwnedFolder::claim(Path::new(typed), guard).expect_err(typed);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{typed}: {error}");
        error.message().to_owned()
    }

    /// What lies in a directory, marker and all.
    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(directory)).expect("a directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn put(name: &'static str) -> impl FnOnce(&Path) -> Result<()> {
    move |fresh| fs::write(fresh.join(name), name).or_error(ErrorKind::LocalIo, || "written")
}

#[test]
fn new_and_empty_directories_and_our_own_are_taken() {
    let place = Place::new();
    for name in ["bare", "empty"] {
        fs::create_dir(place.at(name)).expect("made");
    }
    for typed in ["new", "above/and/new", "empty", "bare/", "./gone/../other/."] {
        let folder = place.claim(typed).expect(typed);
        assert!(!folder.has_content(), "{typed}");
        folder.replace(&Job::silent(), put("a")).expect(typed);
        let again = place.claim(typed).expect(typed);
        assert!(again.has_content(), "{typed}");
        again.replace(&Job::silent(), put("b")).expect(typed);
        // The system would look for `gone`.
        assert_eq!(place.names(&again.path().display().to_string()), [MARKER, "b"], "{typed}");
    }
    assert_eq!(place.names(""), ["above", "bare", "empty", "new", "other"]);
}

#[test]
fn what_windlass_did_not_make_is_left_alone_unless_forced() {
    let place = Place::with(&["theirs/a", "theirs/b", "theirs/c", "theirs/d"]);
    let guard = FolderGuard { force_option: "--yes", ..place.guard() };
    let message = place.refusal("theirs", &guard);
    assert_eq!(
        message,
        "`theirs` is not emptied: windlass did not make it, and it holds `a`, `b`, `c` and 1 more"
    );
    let error = OwnedFolder::claim(Path::new("theirs"), &guard).expect_err("theirs");
    assert_eq!(error.hints().last().map(String::as_str), Some("`--yes` empties it all the same"));
    // A directory of that name, a link, and another text are no markers.
    fs::create_dir(place.at("theirs").join(MARKER)).expect("made");
    assert!(place.claim("theirs").is_err());
    fs::remove_dir(place.at("theirs").join(MARKER)).expect("removed");
    fs::write(place.at("theirs").join(MARKER), "mine").expect("written");
    assert!(place.claim("theirs").is_err());
    assert!(fs::read(place.at("theirs/a")).is_ok());

    let forced = FolderGuard { forced: true, ..guard };
    let folder = OwnedFolder::claim(Path::new("theirs"), &forced).expect("forced");
    folder.replace(&Job::silent(), put("x")).expect("replaced");
    assert_eq!(place.names("theirs"), [MARKER, "x"]);
    place.claim("theirs").expect("ours now");
}

#[test]
fn root_home_current_directory_and_what_they_lie_in_are_refused_even_when_forced() {
    let place = Place::with(&["users/me/src/file"]);
    let (home, current) = (place.at("users/me"), place.at("users/me/src"));
    symlink(&home, place.at("link")).expect("a link");
    let guard = FolderGuard { home_dir: Some(&home), forced: true, ..FolderGuard::new(&current) };
    let link = place.at("link").display().to_string();
    for (typed, part) in [
        ("/", "root of the file system"),
        ("//", "root of the file system"),
        ("/nowhere/..", "root of the file system"),
        ("/proc/self/root", "root of the file system"),
        ("..", "home directory"),
        ("../", "home directory"),
        ("../../me/.", "home directory"),
        (&link, "home directory"),
        (&format!("{link}/"), "home directory"),
        ("../..", "the home directory lies in it"),
        (".", "current directory"),
        ("../src/", "current directory"),
        (&format!("{link}/src"), "current directory"),
    ] {
        assert!(place.refusal(typed, &guard).contains(part), "{typed}: {}", place.refusal(typed, &guard));
    }
    // A home that is a link is the directory that it leads to.
    let by_link = place.at("link");
    let guard = FolderGuard { home_dir: Some(&by_link), ..place.guard() };
    assert!(place.refusal("users/me", &guard).contains("home directory"));
    OwnedFolder::claim(Path::new("users/me/out"), &guard).expect("below home is fine");
}

#[test]
fn repositories_and_mount_points_are_refused_even_when_forced() {
    let place = Place::with(&["a/.git/HEAD", "b/.git", "c/.hg/x", "d/HEAD", "d/objects/x", "d/refs/x"]);
    let guard = FolderGuard { forced: true, ..place.guard() };
    for name in ["a", "b", "c", "d"] {
        assert!(place.refusal(name, &guard).contains("repository"), "{name}");
    }
    // Our marker does not help.
    fs::write(place.at("a").join(MARKER), MARKER_TEXT).expect("written");
    assert!(place.refusal("a", &guard).contains("`.git`"));
    OwnedFolder::claim(Path::new("a/out"), &guard).expect("inside of one is fine");
    assert!(place.refusal("/proc", &guard).contains("mount point"));
}

#[test]
fn sources_are_neither_inside_nor_outside() {
    let place = Place::with(&["repo/pkg/sdk/a.py", "repo/pkg/tools/b.py"]);
    let sources = [PathBuf::from("repo/pkg/sdk"), PathBuf::from("repo/pkg/missing")];
    symlink(place.at("repo/pkg/sdk"), place.at("link")).expect("a link");
    let guard = FolderGuard { sources: &sources, forced: true, ..place.guard() };
    for (typed, part) in [
        ("repo/pkg/sdk", "lies in"),
        ("repo/pkg/sdk/out/deep", "lies in"),
        ("repo/pkg/tools/../sdk/out", "lies in"),
        ("link/out", "lies in"),
        ("repo", "contains"),
        ("repo/pkg/", "contains"),
    ] {
        let message = place.refusal(typed, &guard);
        assert!(message.contains(part) && message.contains("repo/pkg/sdk"), "{typed}: {message}");
        let absolute = [place.at("repo/pkg/sdk").join(".")];
        let same = place.refusal(typed, &FolderGuard { sources: &absolute, ..guard });
        assert!(same.ends_with("the source directory `repo/pkg/sdk`"), "{typed}: {same}");
        let added = OwnedFolder::claim_to_add(Path::new(typed), &guard).expect_err(typed);
        assert_eq!(added.message(), message);
    }
    for typed in ["repo/out", "repo/pkg/sdk-out", "repo/pkg/missing", "repo/pkg/tools/out"] {
        OwnedFolder::claim(Path::new(typed), &guard).expect(typed);
    }
}

#[test]
fn files_and_links_to_nowhere_are_refused() {
    let place = Place::with(&["file"]);
    symlink("nowhere", place.at("dangling")).expect("a link");
    symlink("file", place.at("to-file")).expect("a link");
    let guard = FolderGuard { forced: true, ..place.guard() };
    for (typed, part) in [
        ("", "empty"),
        ("file", "is a file"),
        ("file/", "is a file"),
        ("to-file", "is a file"),
        ("file/below", "inside a file"),
        ("dangling", "leads nowhere"),
        ("dangling/below", "leads nowhere"),
    ] {
        assert!(place.refusal(typed, &guard).contains(part), "{typed}: {}", place.refusal(typed, &guard));
    }
    assert_eq!(fs::read(place.at("file")).expect("there"), b"file");
}

#[test]
fn a_link_stays_and_its_directory_is_replaced() {
    let place = Place::new();
    fs::create_dir(place.at("real")).expect("made");
    symlink("real", place.at("link")).expect("a link");
    let folder = place.claim("link/").expect("empty");
    assert_eq!(folder.path(), fs::canonicalize(place.at("real")).expect("real"));
    folder.replace(&Job::silent(), put("a")).expect("replaced");
    assert!(place.at("link").is_symlink());
    assert_eq!(place.names("real"), [MARKER, "a"]);
}

#[test]
fn what_fails_or_is_stopped_leaves_what_was_there() {
    let place = Place::new();
    place.claim("out").expect("new").replace(&Job::silent(), put("old")).expect("written");
    let fails = |fresh: &Path| {
        put("half")(fresh)?;
        Err::<(), _>(Error::new(ErrorKind::BuildFailed, "no"))
    };
    for typed in ["out", "not/yet/there"] {
        let folder = place.claim(typed).expect(typed);
        assert_eq!(folder.replace(&Job::silent(), fails).expect_err("fails").kind(), ErrorKind::BuildFailed);
        let stopped = Job::silent();
        stopped.cancel.cancel();
        assert_eq!(folder.replace(&stopped, put("b")).expect_err("stopped").kind(), ErrorKind::Cancelled);
    }
    assert_eq!(place.names(""), ["out"]);
    assert_eq!(place.names("out"), [MARKER, "old"]);
}

#[test]
fn what_came_in_between_is_not_lost() {
    let place = Place::new();
    fs::create_dir(place.at("out")).expect("made");
    for typed in ["out", "new"] {
        let folder = place.claim(typed).expect(typed);
        let theirs = place.at(typed).join("theirs");
        let error = folder
            .replace(&Job::silent(), |fresh| {
                fs::create_dir_all(place.at(typed)).expect("made");
                fs::write(&theirs, "x").expect("written");
                put("ours")(fresh)
            })
            .expect_err("theirs");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(place.names(typed), ["theirs"]);
    }
    assert_eq!(place.names(""), ["new", "out"]);
}

#[test]
fn a_file_is_carried_over_and_modes_stay() {
    let place = Place::new();
    place.claim("out").expect("new").replace(&Job::silent(), put("config.sh")).expect("written");
    fs::set_permissions(place.at("out"), fs::Permissions::from_mode(0o750)).expect("set");
    let folder = place.claim("out").expect("ours");
    folder
        .replace(&Job::silent(), |fresh| {
            folder.carry_over("config.sh", fresh)?;
            folder.carry_over("absent", fresh)
        })
        .expect("replaced");
    assert_eq!(place.names("out"), [MARKER, "config.sh"]);
    assert_eq!(fs::read(place.at("out/config.sh")).expect("there"), b"config.sh");
    assert_eq!(fs::metadata(place.at("out")).expect("there").mode() & 0o777, 0o750);
}

#[test]
fn files_are_added_beside_those_of_others() {
    let place = Place::with(&["theirs/a"]);
    let folder = OwnedFolder::claim_to_add(Path::new("theirs"), &place.guard()).expect("may be added to");
    assert!(folder.has_content());
    // Adding is no leave to replace.
    let error = folder.replace(&Job::silent(), put("b")).expect_err("theirs");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(place.names("theirs"), ["a"]);
}

/// What a killed program leaves is nobody's; what somebody writes at the moment, or did not come from
/// us, stays.
#[test]
fn leftovers_of_killed_programs_go_with_the_next_write() {
    let place = Place::with(&[".windlass-folder-theirs/a"]);
    for name in [".windlass-folder-killed", ".windlass-folder-busy"] {
        fs::create_dir(place.at(name)).expect("made");
        fs::write(place.at(name).join(MARKER), MARKER_TEXT).expect("written");
        fs::write(place.at(name).join("half"), "x").expect("written");
    }
    fs::create_dir(place.at(".windlass-folder-early")).expect("made");
    let busy = File::open(place.at(".windlass-folder-busy")).expect("opened");
    flock(&busy, FlockOperation::LockExclusive).expect("held");
    place.claim("out").expect("new").replace(&Job::silent(), put("a")).expect("written");
    assert_eq!(place.names(""), [".windlass-folder-busy", ".windlass-folder-theirs", "out"]);
}
