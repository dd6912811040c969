//! `RUN ["rm", "-rf", "--", PATH…]`: files that are taken out of a stage, without a process.
//!
//! There are two ways. Before a `COPY --link` whose files take the place of what is removed, its layer
//! says what it hides, and nobody has to know what is below: a directory comes as an opaque one. Else the
//! files of the stage are read, and what was there is hidden by whiteouts in a layer of its own, as an
//! engine does it.
//!
//! Whiteouts: OCI image-spec, `layer.md`. What `rm` does and refuses: POSIX, and GNU coreutils.

use std::collections::BTreeMap;

use windlass_core::dockerfile::{CommandLine, Run};
use windlass_core::error::{Error, ErrorKind, Result};

use crate::change::Touched;
use crate::instructions::absolute;
use crate::stage::Stage;
use crate::tree::{Content, Node, NodeKind, Tree, file_name, join, parent};

/// Where builders mount something while a program runs: it cannot be removed there.
const MOUNTED: [&str; 5] = ["proc", "sys", "dev", "etc/hosts", "etc/resolv.conf"];

/// The name of the file that hides what the layers below have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A call of `rm` that needs no process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    words: Vec<String>,
    paths: Vec<String>,
    recursive: bool,
    force: bool,
}

/// A removal whose layer is that of the COPY below it.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// What is removed, as clean paths.
    paths: Vec<Vec<u8>>,
    /// What to do if the COPY does not replace it.
    pub(crate) removal: Removal,
    /// The place of its history entry.
    pub(crate) history: usize,
    /// How its step is called.
    pub(crate) name: String,
}

impl Removal {
    /// Reads a RUN; `None` if it is anything but `rm` in the exec form, with no options other than `-r`, `-f`
    /// and `--` and with paths that mean the same to every `rm`.
    pub(crate) fn parse(run: &Run) -> Option<Self> {
        let CommandLine::Exec(words) = &run.command else { return None };
        let [program, rest @ ..] = &words[..] else { return None };
        if program != "rm" || !run.flags.is_empty() || !run.heredocs.is_empty() {
            return None;
        }
        let (mut recursive, mut force) = (false, false);
        let mut rest = rest.iter();
        let mut paths = Vec::new();
        for word in rest.by_ref() {
            match word.as_str() {
                "--" => break,
                "-r" | "-R" => recursive = true,
                "-f" => force = true,
                "-rf" | "-fr" | "-Rf" | "-fR" => (recursive, force) = (true, true),
                option if option.starts_with('-') => return None,
                path => {
                    paths.push(path.to_owned());
                    // Whether options may follow paths depends on who made `rm`.
                    let others = rest.as_slice();
                    if others.iter().any(|word| word.starts_with('-')) {
                        return None;
                    }
                    break;
                }
            }
        }
        paths.extend(rest.cloned());
        let plain = |path: &String| {
            let parts = || path.split('/');
            !path.contains('\0')
                && parts().any(|part| !matches!(part, "" | "."))
                && parts().all(|part| part != "..")
                && !matches!(path.trim_end_matches('/').rsplit('/').next(), Some("." | ""))
        };
        let removal = Self { words: words.clone(), paths, recursive, force };
        (!removal.paths.is_empty() && removal.paths.iter().all(plain)).then_some(removal)
    }

    /// The history entry, as BuildKit words it: with the arguments of the build that a program would see.
    pub(crate) fn created_by(&self, stage: &Stage) -> String {
        let mut words = Vec::new();
        if !stage.arguments.is_empty() {
            words.push(format!("|{}", stage.arguments.len()));
        }
        for name in &stage.arguments {
            let value = stage.variables.get(name).map(String::as_str).unwrap_or_default();
            words.push(format!("{name}={value}"));
        }
        words.extend(self.words.iter().cloned());
        format!("RUN {} # buildkit", words.join(" "))
    }

    /// What is removed, as clean paths of the image.
    fn paths(&self, working_dir: &str) -> Vec<Vec<u8>> {
        let clean = |path: &String| absolute(working_dir, path).trim_start_matches('/').as_bytes().to_vec();
        self.paths.iter().map(clean).collect()
    }

    /// The same to be done in the layer of a COPY; `None` if it depends on what is there whether `rm` fails.
    pub(crate) fn waiting(&self, stage: &Stage, history: usize, name: String) -> Option<Waiting> {
        let paths = self.paths(&stage.config.config.working_dir);
        let certain = self.recursive
            && self.force
            && self.paths.iter().all(|path| !path.ends_with('/'))
            && paths.iter().all(|path| !is_mounted(path));
        certain.then(|| Waiting { paths, removal: self.clone(), history, name })
    }

    /// Removes the files from a tree.
    ///
    /// # Errors
    /// `BuildFailed` for what `rm` would fail at.
    pub(crate) fn apply(&self, tree: &mut Tree, working_dir: &str, mtime: i64) -> Result<Touched> {
        let mut touched = Touched::default();
        for (path, written) in self.paths(working_dir).iter().zip(&self.paths) {
            let failed = |why: &str| {
                Err(Error::new(ErrorKind::BuildFailed, format!("`rm` cannot remove `{written}`: {why}")))
            };
            let path = tree.resolve_parent(path)?;
            match tree.get(&path) {
                _ if path.is_empty() || is_mounted(&path) => {
                    return failed("something is mounted there while a build runs");
                }
                None if self.force => continue,
                None => return failed("it does not exist"),
                Some(node) if written.ends_with('/') && !node.is_directory() => {
                    return failed("it is no directory");
                }
                Some(node) if node.is_directory() && !self.recursive => {
                    return failed("it is a directory");
                }
                Some(_) => {}
            }
            tree.remove(&path);
            touched.hide(&path, mtime);
        }
        Ok(touched)
    }
}

impl Waiting {
    /// What is removed, as clean paths.
    pub(crate) fn paths(&self) -> &[Vec<u8>] {
        &self.paths
    }

    /// Hides what is removed in a layer that has these files and knows nothing of those below, and says
    /// whether that is possible: the layer must have what is removed, or the directory it is in.
    pub(crate) fn hide(&self, tree: &Tree, touched: &mut Touched, mtime: i64) -> bool {
        self.paths.iter().all(|path| match (tree.get(path), tree.get(parent(path))) {
            (Some(node), _) if node.is_directory() => {
                touched.hide_below(path, mtime);
                true
            }
            // Everything but a directory replaces whatever is there.
            (Some(_), _) => true,
            (None, Some(directory)) if directory.is_directory() => {
                touched.hide(path, mtime);
                true
            }
            (None, _) => false,
        })
    }
}

/// Says whether programs run as the super-user, as far as the image config tells.
pub(crate) fn is_root(user: &str) -> bool {
    matches!(user.split(':').next(), Some("" | "0" | "root"))
}

/// Says whether a clean path is where something is mounted, or above or below that.
fn is_mounted(path: &[u8]) -> bool {
    let within = |path: &[u8], directory: &[u8]| {
        path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    MOUNTED.iter().any(|place| within(path, place.as_bytes()) || within(place.as_bytes(), path))
}

/// What stands in a layer for what is hidden, by the directory it is in.
#[derive(Debug)]
pub(crate) struct Whiteouts(BTreeMap<Vec<u8>, Vec<(Vec<u8>, Node)>>);

impl Whiteouts {
    /// Those of a change, in each directory the one that hides all of it first.
    pub(crate) fn of(touched: &Touched) -> Self {
        let mut all: BTreeMap<Vec<u8>, Vec<(Vec<u8>, Node)>> = BTreeMap::new();
        for (path, mtime) in &touched.whiteouts {
            let of_directory = all.entry(parent(path).to_vec()).or_default();
            let place = if file_name(path) == OPAQUE { 0 } else { of_directory.len() };
            of_directory.insert(place, (path.clone(), node(*mtime)));
        }
        Self(all)
    }

    /// Takes those of a directory.
    pub(crate) fn take(&mut self, directory: &[u8]) -> Vec<(Vec<u8>, Node)> {
        self.0.remove(directory).unwrap_or_default()
    }
}

/// An empty file, whose content nobody asks for.
fn node(mtime: i64) -> Node {
    let content = Content::Entry { context: usize::MAX, entry: usize::MAX };
    let kind = NodeKind::File { size_bytes: 0, content };
    Node { kind, mode: 0, uid: 0, gid: 0, mtime, xattrs: BTreeMap::new() }
}

/// The path whose presence in a layer hides a path of the layers below.
pub(crate) fn whiteout(path: &[u8]) -> Vec<u8> {
    join(parent(path), &[b".wh.", file_name(path)].concat())
}

/// The path whose presence in a layer hides what the layers below have in a directory.
pub(crate) fn opaque(directory: &[u8]) -> Vec<u8> {
    join(directory, OPAQUE)
}
