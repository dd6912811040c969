//! What git says of a source tree, read from its files: no program is run, and none has to be installed.

use std::fs;
use std::path::{Path, PathBuf};

/// The commit and branch that a directory is checked out at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkout {
    /// The whole id of the commit; `None` where there is none yet, or no repository.
    pub commit: Option<String>,
    /// The branch, without `refs/heads/`; `None` where a commit is checked out without one.
    pub branch: Option<String>,
}

/// More symbolic references in a row are a circle.
const LINKS: usize = 5;

/// Reads the checkout that a directory lies in. What cannot be read is not known: images are built outside
/// of repositories too.
///
/// As `git rev-parse HEAD` and `git symbolic-ref --short HEAD` of git's loose and packed references;
/// linked worktrees and submodules included, the reftable format not.
pub fn checkout(directory: &Path) -> Checkout {
    read(directory).unwrap_or_default()
}

fn read(directory: &Path) -> Option<Checkout> {
    // Absolute, or the directories above could not be told.
    let directory = fs::canonicalize(directory).ok()?;
    let git = directory.ancestors().find_map(git_directory)?;
    // A worktree has its own HEAD, and everything else in the repository that it belongs to.
    let common = match fs::read_to_string(git.join("commondir")) {
        Ok(path) => git.join(path.trim()),
        Err(_) => git.clone(),
    };
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let Some(name) = head.trim().strip_prefix("ref:").map(str::trim) else {
        return Some(Checkout { commit: commit_id(&head), branch: None });
    };
    let branch = name.strip_prefix("refs/heads/").unwrap_or(name).to_owned();
    // What the reftable format puts there for those who do not know it.
    let branch = Some(branch).filter(|branch| branch != ".invalid");
    Some(Checkout { commit: resolve(&git, &common, name, LINKS), branch })
}

/// The directory of a repository: `.git`, or where a file of that name points to.
fn git_directory(directory: &Path) -> Option<PathBuf> {
    let dot_git = directory.join(".git");
    if dot_git.is_dir() {
        return Some(dot_git);
    }
    let text = fs::read_to_string(dot_git).ok()?;
    Some(directory.join(text.strip_prefix("gitdir:")?.trim()))
}

/// The commit of a reference: its own file, else a line among the packed ones.
fn resolve(git: &Path, common: &Path, name: &str, links: usize) -> Option<String> {
    // A name is a path below the repository, whatever is written there.
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return None;
    }
    let loose = [git, common].into_iter().find_map(|place| fs::read_to_string(place.join(name)).ok());
    if let Some(text) = loose {
        return match text.trim().strip_prefix("ref:") {
            Some(next) if links > 0 => resolve(git, common, next.trim(), links - 1),
            Some(_) => None,
            None => commit_id(&text),
        };
    }
    let packed = fs::read_to_string(common.join("packed-refs")).ok()?;
    let mut lines = packed.lines().filter_map(|line| line.split_once(' '));
    commit_id(lines.find(|(_, packed)| *packed == name)?.0)
}

/// SHA-1 or SHA-256, in hexadecimal digits.
fn commit_id(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (digits && matches!(text.len(), 40 | 64)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn with(files: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().expect("a directory"));
            for (name, content) in files {
                let path = tree.0.path().join(name);
                fs::create_dir_all(path.parent().expect("a parent")).expect("made");
                fs::write(path, content).expect("written");
            }
            tree
        }

        fn at(&self, name: &str) -> (Option<String>, Option<String>) {
            let Checkout { commit, branch } = checkout(&self.0.path().join(name));
            (commit, branch)
        }
    }

    fn known(commit: &str, branch: &str) -> (Option<String>, Option<String>) {
        (Some(commit.to_owned()), Some(branch.to_owned()).filter(|branch| !branch.is_empty()))
    }

    #[test]
    fn a_branch_has_a_file_or_a_line_of_its_own() {
        let packed = format!("# pack-refs with: peeled fully-peeled sorted\n{B} refs/heads/a/b\n^{A}\n");
        let tree = Tree::with(&[
            (".git/HEAD", "ref: refs/heads/a/b\n"),
            (".git/packed-refs", &packed),
            ("deep/down/file", ""),
        ]);
        assert_eq!(tree.at("deep/down"), known(B, "a/b"));
        let tree = Tree::with(&[
            (".git/HEAD", "ref: refs/heads/a/b\n"),
            (".git/packed-refs", &packed),
            (".git/refs/heads/a/b", &format!("{A}\n")),
        ]);
        assert_eq!(tree.at(""), known(A, "a/b"));
    }

    #[test]
    fn a_commit_may_be_checked_out_without_a_branch_and_a_branch_be_empty() {
        assert_eq!(Tree::with(&[(".git/HEAD", &format!("{A}\n"))]).at(""), known(A, ""));
        let unborn = Tree::with(&[(".git/HEAD", "ref: refs/heads/main\n")]);
        assert_eq!(unborn.at(""), (None, Some("main".to_owned())));
    }

    #[test]
    fn worktrees_share_the_references() {
        let tree = Tree::with(&[
            ("tree/.git", "gitdir: ../main/.git/worktrees/tree\n"),
            ("main/.git/HEAD", "ref: refs/heads/main\n"),
            ("main/.git/refs/heads/main", &format!("{A}\n")),
            ("main/.git/refs/heads/other", &format!("{B}\n")),
            ("main/.git/worktrees/tree/HEAD", "ref: refs/heads/other\n"),
            ("main/.git/worktrees/tree/commondir", "../..\n"),
        ]);
        assert_eq!(tree.at("tree"), known(B, "other"));
        assert_eq!(tree.at("main"), known(A, "main"));
    }

    #[test]
    fn what_cannot_be_read_is_not_known() {
        for files in [
            &[("a", "")][..],
            &[(".git/HEAD", "ref: refs/heads/.invalid\n")],
            &[(".git", "gitdir: nowhere\n")],
            &[(".git/HEAD", "nonsense\n")],
        ] {
            assert_eq!(Tree::with(files).at(""), (None, None), "{files:?}");
        }
        let circle = [(".git/HEAD", "ref: refs/heads/a\n"), (".git/refs/heads/a", "ref: refs/heads/a\n")];
        assert_eq!(Tree::with(&circle).at(""), (None, Some("a".to_owned())));
        let outside = [(".git/HEAD", "ref: ../../secret\n"), ("secret", A)];
        assert_eq!(Tree::with(&outside).at("").0, None);
    }
}
