//! Contexts of several directories.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;

fn tree(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("temporary directory");
    for (path, content) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("created");
        fs::write(path, content).expect("written");
    }
    directory
}

fn mount(context: &mut Context, at: &str, directory: &TempDir, rules: &str) {
    mount_with(context, at, directory, rules, Links::Keep);
}

fn mount_with(context: &mut Context, at: &str, directory: &TempDir, rules: &str, links: Links) {
    let rules = IgnoreRules::parse(rules.as_bytes(), Path::new("rules")).expect("valid");
    context.mount(ContextPath::from_clean(at), directory.path(), rules, links).expect("mounted");
}

/// Path and content of all files, path and target of all links, path of all directories.
fn listed(context: &Context) -> Vec<String> {
    let entries = context.list(&Job::silent()).expect("listed");
    let shown = entries.iter().map(|entry| match &entry.kind {
        EntryKind::Directory => format!("{}/", entry.path),
        EntryKind::Symlink { target } => format!("{} -> {}", entry.path, String::from_utf8_lossy(target)),
        EntryKind::File { .. } => {
            let mut content = String::new();
            context.open(entry).expect("opened").read_to_string(&mut content).expect("read");
            format!("{} {content}", entry.path)
        }
    });
    shown.collect()
}

#[test]
fn each_directory_has_its_place_and_its_rules() {
    let (code, skills) = (tree(&[("a.md", "1"), ("sub/b.pyc", "2"), ("c", "3")]), tree(&[("a.md", "4")]));
    let mut context = Context::empty();
    mount(&mut context, "code/pkg", &code, "**/*.pyc\nc");
    mount(&mut context, "code/skills", &skills, "");
    context.insert(ContextPath::from_clean("Dockerfile"), "FROM x", 0o644);
    context.insert(ContextPath::from_clean("code/lock"), "5", 0o644);
    let expected = [
        "Dockerfile FROM x",
        "code/",
        "code/lock 5",
        "code/pkg/",
        "code/pkg/a.md 1",
        "code/pkg/sub/",
        "code/skills/",
        "code/skills/a.md 4",
    ];
    assert_eq!(listed(&context), expected);
    let decision = |path: &str| context.decision(&ContextPath::from_clean(path)).map(|found| found.excluded);
    assert_eq!([decision("code/pkg/c"), decision("code/skills/c"), decision("c")], [Some(true), None, None]);
    let on_disk = context.on_disk(&ContextPath::from_clean("code/skills/a.md"));
    assert_eq!(on_disk, Some(skills.path().join("a.md")));
    assert_eq!(context.on_disk(&ContextPath::from_clean("code/lock")), None);
}

#[test]
fn directories_above_are_made_and_the_mounted_one_keeps_its_mode() {
    let directory = tree(&[("x", "")]);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o750)).expect("set");
    let mut context = Context::with_settings(&ContextSettings::default());
    mount(&mut context, "a/b", &directory, "");
    let entries = context.list(&Job::silent()).expect("listed");
    let modes: Vec<_> = entries.iter().map(|entry| (entry.path.to_string(), entry.mode)).collect();
    assert_eq!(modes[..2], [("a".to_owned(), 0o755), ("a/b".to_owned(), 0o750)]);
    let settings = ContextSettings { modes: Modes::Normalize, ..ContextSettings::default() };
    let mut context = Context::with_settings(&settings);
    mount(&mut context, "a/b", &directory, "");
    assert_eq!(context.list(&Job::silent()).expect("listed")[1].mode, 0o755);
}

#[test]
fn the_inner_one_hides_the_outer_one_and_memory_hides_both() {
    let (root, outer, inner) = (
        tree(&[("code/old", "root"), ("b", "root")]),
        tree(&[("in/x", "outer"), ("in/y", "outer"), ("in.txt", "outer"), ("z", "outer")]),
        tree(&[("x", "inner"), ("w", "inner")]),
    );
    let mut context = Context::from_dir(root.path(), None, &ContextSettings::default()).expect("a context");
    context.insert(ContextPath::from_clean("code/in/w"), "memory", 0o644);
    // In any order.
    mount(&mut context, "code/in", &inner, "");
    mount(&mut context, "code", &outer, "");
    let expected = [
        "b root",
        "code/",
        "code/in/",
        "code/in.txt outer",
        "code/in/w memory",
        "code/in/x inner",
        "code/z outer",
    ];
    assert_eq!(listed(&context), expected);
}

#[test]
fn a_mount_is_listed_after_the_first_listing_too() {
    let (root, more) = (tree(&[("a", "")]), tree(&[("b", "")]));
    let mut context = Context::from_dir(root.path(), None, &ContextSettings::default()).expect("a context");
    let before = context.clone();
    assert_eq!(context.list_once(&Job::silent()).expect("listed").len(), 1);
    mount(&mut context, "m", &more, "");
    assert_eq!(context.list_once(&Job::silent()).expect("listed").len(), 3);
    assert_eq!(before.list_once(&Job::silent()).expect("listed").len(), 1);
}

#[test]
fn one_place_takes_one_directory() {
    let directory = tree(&[("a", "")]);
    let (none, keep) = (IgnoreRules::default, Links::Keep);
    let mut context =
        Context::from_dir(directory.path(), None, &ContextSettings::default()).expect("a context");
    mount(&mut context, "m", &directory, "");
    for at in ["m", ""] {
        let error = context.mount(ContextPath::from_clean(at), directory.path(), none(), keep);
        let error = error.expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().starts_with("two directories are given for `"), "{error}");
    }
    for missing in ["missing", "a"] {
        let missing = directory.path().join(missing);
        let error = context.mount(ContextPath::from_clean("n"), &missing, none(), keep).expect_err("refused");
        assert!(error.message().contains(&missing.display().to_string()), "{error}");
    }
}

#[test]
fn links_stay_links() {
    let directory = tree(&[("a", "1")]);
    symlink("a", directory.path().join("to-a")).expect("linked");
    symlink("nowhere", directory.path().join("dangling")).expect("linked");
    symlink("..", directory.path().join("up")).expect("linked");
    let mut context = Context::empty();
    mount(&mut context, "m", &directory, "");
    assert_eq!(listed(&context), ["m/", "m/a 1", "m/dangling -> nowhere", "m/to-a -> a", "m/up -> .."]);
}

#[test]
fn links_are_followed_on_request() {
    let (directory, other) =
        (tree(&[("a", "1"), ("sub/b", "2")]), tree(&[("out/c", "3"), ("out/d.log", "4")]));
    symlink("a", directory.path().join("to-a")).expect("linked");
    symlink("sub", directory.path().join("to-sub")).expect("linked");
    symlink(other.path().join("out"), directory.path().join("to-out")).expect("linked");
    symlink("nowhere", directory.path().join("dangling")).expect("linked");
    symlink("..", directory.path().join("ignored")).expect("linked");
    let mut context = Context::empty();
    mount_with(&mut context, "m", &directory, "ignored\n**/*.log", Links::Follow);
    let expected = [
        "m/",
        "m/a 1",
        "m/sub/",
        "m/sub/b 2",
        "m/to-a 1",
        "m/to-out/",
        "m/to-out/c 3",
        "m/to-sub/",
        "m/to-sub/b 2",
    ];
    assert_eq!(listed(&context), expected);
}

#[test]
fn a_circle_of_links_that_are_followed_is_an_error_that_names_it() {
    for (target, name) in [("..", "sub/up"), ("self", "self"), (".", "sub/here")] {
        let directory = tree(&[("a", "1"), ("sub/b", "2")]);
        symlink(target, directory.path().join(name)).expect("linked");
        let mut context = Context::empty();
        mount_with(&mut context, "m", &directory, "", Links::Follow);
        let error = context.list(&Job::silent()).expect_err("a circle");
        assert_eq!(error.kind(), ErrorKind::ContextUnreadable);
        assert!(error.message().contains(&format!("`m/{name}`")), "{error}");
    }
}

#[test]
fn a_link_above_the_directory_and_one_through_a_file_are_named_themselves() {
    for (target, said) in
        [("../..", "leads to a directory that it is in"), ("../a/x", "leads through a file")]
    {
        let parent = tree(&[("p/a", "1"), ("p/sub/b", "2")]);
        symlink(target, parent.path().join("p/sub/up")).expect("linked");
        let mut context = Context::empty();
        let at = ContextPath::from_clean("m");
        context.mount(at, &parent.path().join("p"), IgnoreRules::default(), Links::Follow).expect("mounted");
        let error = context.list(&Job::silent()).expect_err("refused");
        assert!(error.message().contains("the link `m/sub/up`") && error.message().contains(said), "{error}");
    }
}

#[test]
fn what_cannot_be_read_is_named_by_its_place() {
    let directory = tree(&[("a", "1")]);
    let mut context = Context::empty();
    mount(&mut context, "m", &directory, "");
    let entries = context.list(&Job::silent()).expect("listed");
    fs::remove_file(directory.path().join("a")).expect("removed");
    let error = context.open(&entries[1]).expect_err("gone");
    assert!(error.message().contains("`m/a`"), "{error}");
}

#[test]
fn a_secret_of_a_mounted_directory_is_left_out_where_its_rules_are() {
    let directory = tree(&[("id_rsa", "1")]);
    let mut context = Context::empty();
    mount(&mut context, "m", &directory, "");
    let said = tests::with_warnings(|job| {
        let entries = context.list(job).expect("listed");
        warnings(&context, &entries, job).expect("valid patterns");
    });
    assert!(said[0].contains("`m/id_rsa`") && said[0].contains("the `ignore` of its source"), "{said:?}");
}
