//! What the ignore file keeps out of COPY, with exactly docker's meaning.

use windlass_core::ErrorKind;
use windlass_tests::scenario::{Scenario, only, scenario};

use crate::suite::ANY_REMOTE;

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    [patterns(), files(), traps()].concat()
}

/// Every file of the tree on which each pattern is tried, besides the Dockerfile and the ignore file.
const TREE: &[&str] = &[
    "a.log",
    "sub/a.log",
    "sub/deep/a.log",
    "node_modules/x.js",
    "sub/node_modules/x.js",
    "build/out.txt",
    "sub/build/out.txt",
    "README.md",
    "docs/README.md",
    "keep/me.txt",
    "temp1",
    "sub/temp1",
    "a/b/c.txt",
];

/// A scenario over the tree; `excluded` are the files that COPY must not see.
fn pattern(name: &'static str, ignore: &str, excluded: &[&'static str]) -> Scenario {
    let kept = || TREE.iter().copied().filter(|path| !excluded.contains(path));
    let emptied = excluded.iter().flat_map(|path| parents(path));
    // A directory stays where something in it does, or where it was its files that were excluded, not itself.
    let mut paths: Vec<&str> = kept().chain(kept().flat_map(parents)).collect();
    paths.extend(["Dockerfile", ".dockerignore"].iter().filter(|path| !excluded.contains(path)));
    paths.extend(emptied.filter(|directory| EMPTIED.contains(&(name, directory))));
    paths.sort_unstable();
    paths.dedup();
    scenario(name)
        .files(TREE)
        .file(".dockerignore", ignore)
        .dockerfile("FROM scratch\nCOPY . /\n")
        .expect(only("/", &paths))
}

/// Directories that stay although all files in them are excluded: by scenario.
const EMPTIED: &[(&str, &str)] = &[
    ("ignore_name_with_a_star_in_the_middle", "a"),
    ("ignore_name_with_a_star_in_the_middle", "a/b"),
    ("ignore_file_in_a_directory", "docs"),
    ("ignore_two_stars_within_a_name", "docs"),
];

fn parents(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// The table of patterns that docker and git read differently, and more of docker's.
fn patterns() -> Vec<Scenario> {
    vec![
        pattern("ignore_star_is_anchored", "*.log\n", &["a.log"]),
        pattern("ignore_name_is_anchored", "node_modules\n", &["node_modules/x.js"]),
        pattern("ignore_trailing_slash", "build/\n", &["build/out.txt"]),
        pattern("ignore_leading_slash", "/build\n", &["build/out.txt"]),
        pattern("ignore_negated_again", "*.md\n!README.md\n", &[]),
        pattern("ignore_two_stars", "**/temp?\n", &["temp1", "sub/temp1"]),
        pattern(
            "ignore_everything_but_one_directory",
            "*\n!keep\n",
            &[
                "Dockerfile",
                ".dockerignore",
                "a.log",
                "sub/a.log",
                "sub/deep/a.log",
                "node_modules/x.js",
                "sub/node_modules/x.js",
                "build/out.txt",
                "sub/build/out.txt",
                "README.md",
                "docs/README.md",
                "temp1",
                "sub/temp1",
                "a/b/c.txt",
            ],
        ),
        pattern("ignore_name_with_a_star_in_the_middle", "a/*/c.txt\n", &["a/b/c.txt"]),
        pattern("ignore_dot_slash", "./build\n", &["build/out.txt"]),
        pattern("ignore_dot_dot", "sub/../build\n", &["build/out.txt"]),
        pattern("ignore_file_in_a_directory", "docs//README.md\n", &["docs/README.md"]),
        pattern("ignore_two_stars_within_a_name", "**.md\n", &["README.md", "docs/README.md"]),
        pattern("ignore_class", "temp[0-9]\nsub/temp[^0-9]\n", &["temp1"]),
        pattern("ignore_escaped", "sub\\/temp1\n", &["sub/temp1"]),
        scenario("ignore_escaped_star")
            .files(&["star*", "starlet"])
            .file(".dockerignore", "star\\*\nDockerfile\n.dockerignore\n")
            .dockerfile("FROM scratch\nCOPY . /\n")
            .expect(only("/", &["starlet"])),
    ]
}

/// Which file is read, and how.
fn files() -> Vec<Scenario> {
    vec![
        scenario("ignore_file_of_the_dockerfile_wins")
            .files(&["one", "two"])
            .file(".dockerignore", "one\n")
            .file("deploy/app.Dockerfile.dockerignore", "two\ndeploy\n")
            .dockerfile_at("deploy/app.Dockerfile", "FROM scratch\nCOPY . /\n")
            .expect(only("/", &[".dockerignore", "one"])),
        scenario("ignore_with_byte_order_mark_and_crlf")
            .files(&["one", "two", "three"])
            .file(".dockerignore", "\u{feff}one\r\ntwo\r\n")
            .dockerfile("FROM scratch\nCOPY . /\n")
            .expect(only("/", &[".dockerignore", "Dockerfile", "three"])),
        scenario("ignore_comments_blanks_and_white_space")
            .files(&["one", "two", "#three", "four"])
            .file(".dockerignore", "# one\n\n   \n  two  \n  #three\n!   four\n")
            .dockerfile("FROM scratch\nCOPY . /\n")
            .expect(only("/", &[".dockerignore", "Dockerfile", "four", "one"])),
        scenario("ignored_dockerfile_is_read_but_not_copied")
            .files(&["one"])
            .file(".dockerignore", "Dockerfile\n.dockerignore\n")
            .dockerfile("FROM scratch\nCOPY . /\n")
            .expect(only("/", &["one"])),
        scenario("empty_ignore_file")
            .files(&["one"])
            .file(".dockerignore", "")
            .dockerfile("FROM scratch\nCOPY . /\n")
            .expect(only("/", &[".dockerignore", "Dockerfile", "one"])),
    ]
}

/// Where implementations go wrong.
fn traps() -> Vec<Scenario> {
    vec![
        scenario("ignore_last_match_wins")
            .files(&["d/a", "d/b", "d/c"])
            .file(".dockerignore", "d\n!d/a\n!d/b\nd/b\nDockerfile\n.dockerignore\n")
            .dockerfile("FROM scratch\nCOPY . /\n")
            .expect(only("/", &["d", "d/a"])),
        scenario("ignore_lets_deep_files_back_in")
            .files(&["x/y/z/keep", "x/y/z/drop", "x/y/other", "w"])
            .directory("x")
            .mode(0o700)
            .file(".dockerignore", "**\n!x/y/z/keep\n")
            .dockerfile("FROM scratch\nCOPY . /\n")
            .expect(only("/", &["x", "x/y", "x/y/z", "x/y/z/keep"])),
        scenario("ignore_lets_back_in_by_wildcard")
            .files(&["src/a.rs", "src/a.txt", "src/deep/b.rs", "target/c.rs"])
            .file(".dockerignore", "*\n!src/**/*.rs\n")
            .dockerfile("FROM scratch\nCOPY . /\n")
            .expect(only("/", &["src", "src/a.rs", "src/deep", "src/deep/b.rs"])),
        scenario("ignore_does_not_follow_links")
            .files(&["real/file"])
            .symlink("alias", "real")
            .file(".dockerignore", "real\nDockerfile\n.dockerignore\n")
            .dockerfile("FROM scratch\nCOPY . /\n")
            .expect(only("/", &["alias"])),
        scenario("ignore_is_case_sensitive")
            .files(&["Readme", "README"])
            .file(".dockerignore", "readme\nReadme\nDockerfile\n.dockerignore\n")
            .dockerfile("FROM scratch\nCOPY . /\n")
            .expect(only("/", &["README"])),
        scenario("wildcard_source_sees_only_what_is_not_ignored")
            .files(&["a.txt", "b.txt"])
            .file(".dockerignore", "b.txt\n")
            .dockerfile("FROM scratch\nCOPY *.txt /d/\n")
            .expect(only("/d", &["a.txt"])),
        scenario("ignored_source_names_file_and_line")
            .files(&["secret.txt", "other"])
            .file(".dockerignore", "# nothing of this\nother\n*.txt\n")
            .dockerfile("FROM scratch\nCOPY secret.txt /\n")
            .fails_on(
                "oci",
                ErrorKind::InvalidDockerfile,
                &["secret.txt", ".dockerignore", ".dockerignore:3", "*.txt", "COPY secret.txt /"],
            )
            // The service sees the ignore file, and not what was left out for it.
            .fails_on(ANY_REMOTE, ErrorKind::BuildFailed, &["secret.txt", "COPY secret.txt /"])
            .fails_on(
                "docker",
                ErrorKind::InvalidDockerfile,
                &["secret.txt", "line 3 of `.dockerignore`", "*.txt"],
            ),
        scenario("invalid_ignore_pattern_names_its_line")
            .files(&["one"])
            .file(".dockerignore", "two\n[a-\n")
            .dockerfile("FROM scratch\nCOPY . /\n")
            .fails(ErrorKind::InvalidInput, &[".dockerignore", "2", "[a-"]),
        scenario("lone_negation_names_its_line")
            .files(&["one"])
            .file(".dockerignore", "two\n\n!\n")
            .dockerfile("FROM scratch\nCOPY . /\n")
            .fails(ErrorKind::InvalidInput, &[".dockerignore", "3", "!"]),
    ]
}
