//! What a recipe says.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::agent_server::Target;

/// How much of an earlier image a build starts from. In ascending order of what is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing: from the base image.
    Scratch,
    /// An image of the same version and base image: dependencies are brought up to date.
    Versioned,
    /// An image with the same dependencies: only sources are replaced.
    Lock,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Scratch, Self::Versioned, Self::Lock];

    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scratch => "scratch",
            Self::Versioned => "versioned",
            Self::Lock => "lock",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How runtime images of one kind are made, read and checked. `docs/recipes.md` explains every key.
///
/// Serialises with the keys of the file that it can be written in again.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Recipe {
    /// What it is called: letters, digits, `-` and `_`.
    pub name: String,
    /// One line about it; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The file that it stands in, for messages; `None` of a built-in one.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// What messages put before its keys: `recipes.NAME.`, or nothing in a file of its own.
    #[serde(skip)]
    pub(super) above: String,
    /// The Dockerfile, as a template. Serialises as its text, under `template-text`.
    #[serde(rename = "template-text")]
    pub template: Template,
    /// The repository that the images belong to, where nothing else is said.
    pub repository: String,
    /// The environment variable that names another repository. Empty counts as unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_env: Option<String>,
    /// The base image where none is typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_image: Option<String>,
    /// The source directory where none is typed, from the directory that windlass is called in.
    pub source: PathBuf,
    /// The version of the platform, where it stands in the recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The TOML file that the version is read from: `project.version`, else `tool.poetry.version`.
    /// Taken from the source directory, else from its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_from: Option<String>,
    /// The modes that there are; the first is always [`Mode::Scratch`]. Alone, nothing is ever reused but
    /// the very same image.
    pub modes: Vec<Mode>,
    /// What the dependencies hang on, in the order that the lock hash counts them.
    pub lock_files: Vec<LockFile>,
    /// The directory that the source hash is of, from the source directory: mostly `.`.
    pub hash: String,
    /// What is copied into the build folder.
    pub sources: Vec<SourceTree>,
    /// What the tags are.
    pub tags: Tags,
    /// What is added to a file of a build folder on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_file: Option<ConfigFile>,
    /// Variables of the template, with their defaults.
    pub variables: BTreeMap<String, Value>,
}

/// A template of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// How messages call it: its path, or `recipes.NAME.template-text`.
    pub name: String,
    /// Where it is; `None` where it stands in the recipe.
    pub path: Option<PathBuf>,
    /// Its text.
    pub text: String,
}

impl Serialize for Template {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// A file that the lock hash counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LockFile {
    /// Its path in the source directory, or, where it is not there, in the parent of that.
    pub path: String,
    /// Its place in the build folder, as a template of `package`.
    pub destination: String,
}

impl LockFile {
    /// Finds it: in the source directory, else in its parent. `None` where it is in neither.
    pub fn find(&self, source: &Path) -> Option<PathBuf> {
        find_beside(source, &self.path)
    }
}

/// Finds a file in a directory, else in its parent.
pub(super) fn find_beside(source: &Path, name: &str) -> Option<PathBuf> {
    [source.join(name), source.join("..").join(name)].into_iter().find(|path| path.is_file())
}

/// A directory or a file that is copied into the build folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SourceTree {
    /// Its path, from the source directory; `..` may stand at the beginning.
    pub path: String,
    /// Its place in the build folder, as a template of `package`, the name of the source directory.
    pub destination: String,
    /// What of it is left out, in the syntax of `.gitignore`.
    pub ignore: Vec<String>,
    /// It may be missing.
    pub optional: bool,
    /// The source hash counts it: it lies in the directory that is hashed.
    pub hashed: bool,
}

/// How images are tagged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Tags {
    /// Tags by the hashes of what goes in, so that earlier images are found.
    Hashes(HashTags),
    /// A scheme that is built in.
    Scheme {
        /// Which.
        scheme: Scheme,
    },
}

/// Templates of the tags by hashes. They have `version`, `base_image`, `base_slug`, `lock_hash`,
/// `recipe_hash` and `extension`; `source` has `source_hash` and `lock` too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HashTags {
    /// Same version and base image; `None` without [`Mode::Versioned`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versioned: Option<String>,
    /// Same dependencies too; `None` without [`Mode::Lock`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Same sources too.
    pub source: String,
}

/// The schemes of tags that are built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Tags by commit, branch and base image, see [`super::agent_server`]. Nothing is reused.
    AgentServer,
}

/// A file that tells scripts what was built. Each build adds to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConfigFile {
    /// Its name in the build folder.
    pub name: String,
    /// What each build adds, as a template of `repository`, `generic_tag`, `source_tag`, `lock_tag` and
    /// `versioned_tag`.
    pub text: String,
}

impl Recipe {
    /// The scheme of tags, where a built-in one is used.
    pub fn scheme(&self) -> Option<Scheme> {
        match self.tags {
            Tags::Scheme { scheme } => Some(scheme),
            Tags::Hashes(_) => None,
        }
    }

    /// Says whether a mode is one of this recipe.
    pub fn has_mode(&self, mode: Mode) -> bool {
        self.modes.contains(&mode)
    }
}

/// What a Dockerfile is rendered for.
#[derive(Clone, Copy, Debug)]
pub struct RenderInput<'a> {
    /// What the build starts from.
    pub mode: Mode,
    /// The image that the build starts from: that of the mode.
    pub base_image: &'a str,
    /// One RUN of the user's own; may be empty.
    pub extra_deps: &'a str,
    /// Whether a browser is installed.
    pub browser: bool,
    /// What is built, for [`Scheme::AgentServer`].
    pub target: Option<Target>,
    /// Variables that are not by default.
    pub variables: &'a BTreeMap<String, Value>,
}

/// What the tags by hashes are made of.
#[derive(Clone, Copy, Debug)]
pub struct TagValues<'a> {
    /// The version of the platform.
    pub version: &'a str,
    /// The base image, as it is typed.
    pub base_image: &'a str,
    /// The hash of what the dependencies hang on.
    pub lock_hash: &'a str,
    /// The hash of the sources.
    pub source_hash: &'a str,
    /// Stands for inputs that the hashes leave out; empty where there are none.
    pub extension: &'a str,
}

/// The tags by hashes, each checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HashedTags {
    /// Same version and base image; `None` without [`Mode::Versioned`].
    pub versioned: Option<String>,
    /// Same dependencies too; `None` without [`Mode::Lock`].
    pub lock: Option<String>,
    /// Same sources too.
    pub source: String,
}
