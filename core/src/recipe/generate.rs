//! The context generator: an archive that a build service makes an agent-server image of.
//!
//! Environment variables, file names and tags are those of the script that teams call in their pipelines;
//! what it leaves open or does wrong is decided here: an empty variable counts as unset, tags are trimmed,
//! only the target finally chosen is checked, and the output directory is guarded by [`OwnedFolder`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::agent_server::{Target, short_commit};
use super::definition::{Mode, Recipe, RenderInput};
use super::{BuildFolder, FolderGuard, OwnedFolder, checked_tag, checkout};
use crate::archive::{ArchiveSettings, Compression, MemberNames, PackSummary, Timestamps, pack_entries};
use crate::backend::Job;
use crate::backend_registry::Host;
use crate::context::{self, ContextSettings, Modes};
use crate::digest::{Digest, DigestWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::reference::Reference;
use crate::request::BuildRequest;
use crate::written_file::WrittenFile;

/// What can be generated. Images of the other targets have no sources.
pub const TARGETS: [Target; 4] =
    [Target::Binary, Target::BinaryMinimal, Target::Source, Target::SourceMinimal];

/// The directory that is written where nothing else is said.
pub const DEFAULT_OUTPUT_DIR: &str = "./runtime-build";
/// The tag where no other is given.
const DEFAULT_TAG: &str = "python";
/// What the images are called, before their tag.
const IMAGE: &str = "agent-server";
/// What stands for a commit that is not known.
const UNKNOWN: &str = "unknown";
/// The archive is gathered before it is written to disk, by so much.
const BUFFER_BYTES: usize = 256 << 10;

/// What is typed; everything else comes from the environment.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// The recipe of the images.
    pub recipe: Arc<Recipe>,
    /// The directory that the sources are in.
    pub source: PathBuf,
    /// Before `TARGET`.
    pub target: Option<String>,
    /// Before `OUTPUT_DIR`. An empty one counts as none.
    pub output_dir: Option<PathBuf>,
    /// An output directory that windlass did not make is emptied too.
    pub forced: bool,
    /// The option that would force it, for hints; empty where there is none.
    pub force_option: &'static str,
}

/// What will be generated: everything is settled, and nothing touched yet.
#[derive(Clone, Debug)]
pub struct Generation {
    /// What is built.
    pub target: Target,
    /// The base image.
    pub base_image: String,
    /// The commit of the sources, or `unknown`.
    pub commit: String,
    /// The tags, the main one first.
    pub tags: Vec<String>,
    /// What the image is called where the service has no prefix: `agent-server:<short>-<main tag>`.
    pub image: Reference,
    /// The directory that is written, as it was said.
    pub output_dir: PathBuf,
    /// The name of the archive in it.
    pub file_name: String,
    /// What else is in the directory goes.
    pub clean: bool,
    options: GenerateOptions,
}

/// What was generated.
#[derive(Clone, Debug)]
pub struct GeneratedContext {
    /// The archive, below the output directory as it was said.
    pub archive: PathBuf,
    /// The digest of its bytes.
    pub digest: Digest,
    /// What is in it.
    pub summary: PackSummary,
    /// What it was made of, to be built elsewhere.
    pub folder: BuildFolder,
}

impl Generation {
    /// Settles everything. Reads git's files where the sources are; blocking.
    ///
    /// Variables: `OUTPUT_DIR`, `BASE_IMAGE`, `TARGET`, `CLEAN_OUTPUT`, `CUSTOM_TAGS`, `OUTPUT_NAME`,
    /// `GITHUB_SHA`.
    ///
    /// # Errors
    /// `InvalidInput` for a target, tag, commit or file name that cannot be used.
    pub fn settle(options: &GenerateOptions, host: &Host) -> Result<Self> {
        let target = target(options.target.as_deref().or(host.variable("TARGET")))?;
        let base_image = host.variable("BASE_IMAGE").map(str::to_owned);
        let Some(base_image) = base_image.or_else(|| options.recipe.base_image.clone()) else {
            let message = format!("the recipe `{}` has no base image", options.recipe.name);
            return Err(Error::new(ErrorKind::InvalidInput, message).with_hint("set BASE_IMAGE"));
        };
        let commit = match host.variable("GITHUB_SHA") {
            Some(commit) => commit.to_owned(),
            None => {
                let checkout = checkout(&host.current_dir.join(&options.source));
                checkout.commit.unwrap_or_else(|| UNKNOWN.to_owned())
            }
        };
        let tags = tags(host.variable("CUSTOM_TAGS").unwrap_or(DEFAULT_TAG));
        let tag = checked_tag(format!("{}-{}", short_commit(&commit), tags[0]))
            .map_err(|error| error.with_hint("it is made of GITHUB_SHA and the first of CUSTOM_TAGS"))?;
        let file_name = match host.variable("OUTPUT_NAME") {
            Some(name) => plain_name(name)?,
            None => format!("{IMAGE}-{tag}.tar.gz"),
        };
        let typed = options.output_dir.clone().filter(|typed| !typed.as_os_str().is_empty());
        let output_dir = typed
            .or_else(|| host.variable("OUTPUT_DIR").map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(DEFAULT_OUTPUT_DIR));
        let clean =
            host.variable("CLEAN_OUTPUT").is_none_or(|value| value.trim().eq_ignore_ascii_case("true"));
        let image = format!("{IMAGE}:{tag}").parse()?;
        let options = options.clone();
        Ok(Self { target, base_image, commit, tags, image, output_dir, file_name, clean, options })
    }

    /// The archive, below the output directory as it was said.
    pub fn archive(&self) -> PathBuf {
        without_dot(&self.output_dir).join(&self.file_name)
    }

    /// Puts the context together and writes the archive: whole, or not at all, and with
    /// [`Generation::clean`] alone in its directory. Equal content gives equal bytes: permission bits are
    /// 0755 or 0644, times one and the same. Warns about files that look like secrets. Blocking.
    ///
    /// # Errors
    /// `NotFound` for a source directory that is missing; `InvalidInput` for a lock file that is missing and an
    /// output directory that must not be written, see [`OwnedFolder`]; `ContextUnreadable`, `LocalIo`,
    /// `Cancelled`.
    pub fn write(&self, settings: &ContextSettings, host: &Host, job: &Job) -> Result<GeneratedContext> {
        let folder = self.folder(settings, host, job)?;
        let output = self.claim(&folder, host)?;
        let entries = folder.context.list_once(job)?;
        context::warnings(&folder.context, &entries, job)?;
        let archive = ArchiveSettings {
            compression: match host.archive.compression {
                gzip @ Compression::Gzip { .. } => gzip,
                Compression::None | Compression::Zstd { .. } => Compression::gzip(),
            },
            timestamps: Timestamps::Fixed,
            ..host.archive
        };
        let pack = |out: &mut File| {
            let mut out = DigestWriter::new(BufWriter::with_capacity(BUFFER_BYTES, out));
            let summary =
                pack_entries(&folder.context, &entries, MemberNames::Plain, &archive, job, &mut out)?;
            let (mut out, digest, _) = out.finish();
            out.flush().map_err(|error| self.unwritten(error))?;
            Ok((summary, digest))
        };
        let (summary, digest) = if self.clean || !output.has_content() {
            output.replace(job, |fresh| {
                let file = File::create_new(fresh.join(&self.file_name));
                pack(&mut file.map_err(|error| self.unwritten(error))?)
            })?
        } else {
            let mut file = WrittenFile::create(&output.path().join(&self.file_name))?;
            let packed = pack(file.writer())?;
            job.check()?;
            file.keep()?;
            packed
        };
        Ok(GeneratedContext { archive: self.archive(), digest, summary, folder })
    }

    /// The request that builds the image of what was generated.
    pub fn request(&self, generated: &GeneratedContext) -> BuildRequest {
        BuildRequest {
            tags: vec![self.image.clone()],
            ..BuildRequest::new(generated.folder.context.clone(), generated.folder.dockerfile.clone())
        }
    }

    fn folder(&self, settings: &ContextSettings, host: &Host, job: &Job) -> Result<BuildFolder> {
        let (recipe, source) = (&self.options.recipe, host.current_dir.join(&self.options.source));
        for tree in recipe.sources.iter().filter(|tree| !tree.optional) {
            if fs::metadata(source.join(&tree.path)).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                // In the words, and the letters, that pipelines look for.
                let missing = without_dot(&self.options.source).join(&tree.path);
                let message = format!("Required directory not found: `{}`", missing.display());
                return Err(Error::new(ErrorKind::NotFound, message)
                    .with_hint("generate where the sources are, or name their directory: `--source DIR`"));
            }
        }
        // It is text of a Dockerfile there: what is no name of a commit must not end its line.
        let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let known = [("git_sha", self.commit.as_str())];
        let known = known.into_iter().filter(|(name, value)| {
            let takes = recipe.variables.get(*name).is_some_and(serde_json::Value::is_string);
            takes && *value != UNKNOWN && is_name(value)
        });
        let variables: BTreeMap<_, _> =
            known.map(|(name, value)| (name.to_owned(), serde_json::Value::from(value))).collect();
        let dockerfile = recipe.render(&RenderInput {
            mode: Mode::Scratch,
            base_image: &self.base_image,
            extra_deps: "",
            browser: true,
            target: Some(self.target),
            variables: &variables,
        })?;
        // The umask of whoever made the checkout must not show in the archive.
        let settings = ContextSettings { modes: Modes::Normalize, ..settings.clone() };
        recipe.build_folder(&source, dockerfile, &settings, job)
    }

    fn claim(&self, folder: &BuildFolder, host: &Host) -> Result<OwnedFolder> {
        // As short as they can be said; relative ones start where the guard's do.
        let shown = |path: &Path| path.strip_prefix(&host.current_dir).unwrap_or(path).to_owned();
        let sources: Vec<PathBuf> = folder.context.directories().map(shown).collect();
        let guard = FolderGuard {
            home_dir: host.home_dir.as_deref(),
            sources: &sources,
            forced: self.options.forced,
            force_option: self.options.force_option,
            ..FolderGuard::new(&host.current_dir)
        };
        match self.clean {
            true => OwnedFolder::claim(&self.output_dir, &guard),
            false => OwnedFolder::claim_to_add(&self.output_dir, &guard),
        }
    }

    fn unwritten(&self, error: io::Error) -> Error {
        let message = format!("could not write `{}`", self.archive().display());
        Error::new(ErrorKind::LocalIo, message).with_source(error)
    }
}

fn target(chosen: Option<&str>) -> Result<Target> {
    let Some(name) = chosen else { return Ok(Target::Binary) };
    TARGETS.into_iter().find(|target| target.name() == name).ok_or_else(|| {
        let known = TARGETS.map(Target::name).join(", ");
        // In the words, and the letters, that pipelines look for.
        Error::new(ErrorKind::InvalidInput, format!("Invalid TARGET '{name}'. Must be one of: {known}"))
    })
}

/// A path without a `./` that says nothing.
fn without_dot(path: &Path) -> &Path {
    path.strip_prefix(".").unwrap_or(path)
}

/// At least one.
fn tags(list: &str) -> Vec<String> {
    let tags = list.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    let tags: Vec<String> = tags.map(str::to_owned).collect();
    if tags.is_empty() { vec![DEFAULT_TAG.to_owned()] } else { tags }
}

/// The name of a file in the output directory, which must not lead out of it.
fn plain_name(name: &str) -> Result<String> {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    if plain && !name.ends_with('/') && name != super::MARKER && !name.contains('\0') {
        return Ok(name.to_owned());
    }
    Err(Error::new(ErrorKind::InvalidInput, format!("OUTPUT_NAME `{name}` is not the name of a file"))
        .with_hint("the directory is OUTPUT_DIR or `--output-dir`"))
}

/// A size for people, in steps of 1024: `1.5KB`.
pub fn size_text(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if size < 1024.0 {
            return format!("{size:.1}{unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.1}TB")
}

#[cfg(test)]
mod tests;
