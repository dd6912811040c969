//! The build folder of a recipe: virtual, or on disk where the user wants to see it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::check;
use super::definition::{HashedTags, Recipe, SourceTree};
use super::fill::{fill, values};
use super::owned_folder::{FolderGuard, OwnedFolder};
use super::tree_hash::HashRules;
use crate::backend::Job;
use crate::context::{Context, ContextPath, ContextSettings, Entry, EntryKind, IgnoreRules, Links, Modes};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::request::DockerfileSource;

/// The Dockerfile's name in the folder.
pub(super) const DOCKERFILE: &str = "Dockerfile";

/// A single file of a recipe is held in memory, so it must not be larger than this.
const FILE_LIMIT_BYTES: u64 = 64 << 20;

/// A Dockerfile and what it copies. Nothing is on disk until it is written.
#[derive(Clone, Debug)]
pub struct BuildFolder {
    /// What COPY sees.
    pub context: Context,
    /// The rendered Dockerfile; its place in the context is `Dockerfile`.
    pub dockerfile: DockerfileSource,
}

/// Lines that are added at the end of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedLines {
    /// Its name in the build folder.
    pub file: String,
    /// The lines.
    pub text: String,
}

impl Recipe {
    /// Puts the build folder together: lock files, sources, the Dockerfile. Links are followed, as the
    /// source hash does. Reads the lock files, and of the sources nothing; blocking.
    ///
    /// # Errors
    /// `InvalidInput` for a source directory, a lock file or a source that is missing, named with the
    /// key of the recipe; `ContextUnreadable`.
    pub fn build_folder(
        &self,
        source: &Path,
        dockerfile: String,
        settings: &ContextSettings,
        job: &Job,
    ) -> Result<BuildFolder> {
        let package = package_name(source)?;
        let mut context = Context::with_settings(settings);
        for (index, file) in self.lock_files.iter().enumerate() {
            job.check()?;
            let found = file.find(source).ok_or_else(|| self.missing_lock_file(&file.path, source))?;
            let key = format!("lock-files[{index}].destination");
            let at = self.place(&key, &file.destination, &package)?;
            insert_file(&mut context, at, &found, settings)?;
        }
        for (index, tree) in self.sources.iter().enumerate() {
            let path = source.join(&tree.path);
            let key = format!("sources[{index}]");
            let at = self.place(&format!("{key}.destination"), &tree.destination, &package)?;
            match fs::metadata(&path) {
                Ok(found) if found.is_dir() => {
                    if self.is_hashed(tree) {
                        self.refuse_hidden(&tree.path)?;
                    }
                    context.mount(at, &path, self.ignore_rules(index)?, Links::Follow)?;
                }
                Ok(found) if found.is_file() => insert_file(&mut context, at, &path, settings)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound && tree.optional => {}
                found => return Err(self.unusable_source(&key, &path, found)),
            }
        }
        Ok(self.folder(context, dockerfile))
    }

    /// What of a source is not copied: what its rules say, and what the source hash leaves out, as that could
    /// change unseen.
    ///
    /// # Errors
    /// `InvalidInput` for a pattern that is none.
    ///
    /// # Panics
    /// If the recipe has no source of this number.
    pub(crate) fn ignore_rules(&self, index: usize) -> Result<IgnoreRules> {
        let tree = &self.sources[index];
        let mut lines = tree.ignore.join("\n");
        if self.is_hashed(tree) {
            lines = format!("{lines}\n{}", HashRules::DEFAULT);
        }
        let name = self.key(&format!("sources[{index}].ignore"));
        IgnoreRules::parse_git(&lines, Path::new(&name))
    }

    /// Whether the tags hang on what is in a source.
    fn is_hashed(&self, tree: &SourceTree) -> bool {
        tree.hashed && self.scheme().is_none()
    }

    /// Refuses a hidden directory as a source: the source hash leaves it out.
    fn refuse_hidden(&self, path: &str) -> Result<()> {
        let last = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
        match last.starts_with('.') && !matches!(last, "." | "..") {
            true => Err(Error::new(ErrorKind::InvalidConfig, check::unhashed(path))
                .with_detail("key", self.key("sources"))
                .with_hint(check::UNHASHED_HINT)),
            false => Ok(()),
        }
    }

    /// The build folder of a Dockerfile that copies nothing.
    pub fn bare_folder(&self, dockerfile: String, settings: &ContextSettings) -> BuildFolder {
        self.folder(Context::with_settings(settings), dockerfile)
    }

    fn folder(&self, mut context: Context, dockerfile: String) -> BuildFolder {
        let (content, at) = (Bytes::from(dockerfile), ContextPath::from_clean(DOCKERFILE));
        context.insert(at.clone(), content.clone(), 0o644);
        let shown = Path::new(&self.name).join(DOCKERFILE);
        let dockerfile = DockerfileSource { shown, path: None, in_context: Some(at), content };
        BuildFolder { context, dockerfile }
    }

    /// What a build adds to the configuration file of a build folder on disk; `None` without one.
    ///
    /// # Errors
    /// `InvalidConfig` for what the template does wrong.
    pub fn config_lines(
        &self,
        repository: &str,
        generic_tag: &str,
        tags: &HashedTags,
    ) -> Result<Option<AddedLines>> {
        let Some(file) = &self.config_file else { return Ok(None) };
        let known = values([
            ("repository", repository),
            ("generic_tag", generic_tag),
            ("source_tag", &tags.source),
            ("lock_tag", tags.lock.as_deref().unwrap_or_default()),
            ("versioned_tag", tags.versioned.as_deref().unwrap_or_default()),
        ]);
        let mut text = fill(&self.key("config-file.text"), &file.text, &known)?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(Some(AddedLines { file: file.name.clone(), text }))
    }

    /// A place in the folder that hangs on the name of the source directory.
    fn place(&self, key: &str, destination: &str, package: &str) -> Result<ContextPath> {
        let filled = fill(&self.key(key), destination, &values([("package", package)]))?;
        ContextPath::clean(&filled).ok_or_else(|| {
            let message = format!("`{}` leads out of the build folder: `{filled}`", self.key(key));
            Error::new(ErrorKind::InvalidConfig, message)
        })
    }

    fn missing_lock_file(&self, name: &str, source: &Path) -> Error {
        let message = format!("there is no `{name}` in `{}` or the directory above it", source.display());
        Error::new(ErrorKind::InvalidInput, message)
            .with_detail("key", self.key("lock-files"))
            .with_hint("`--source` names the directory of the sources; the lock files are in it or beside it")
    }

    fn unusable_source(&self, key: &str, path: &Path, found: io::Result<fs::Metadata>) -> Error {
        let shown = path.display();
        let key = self.key(&format!("{key}.path"));
        match found {
            Ok(_) => Error::new(ErrorKind::InvalidInput, format!("`{shown}` is neither a directory nor a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Error::new(ErrorKind::InvalidInput, format!("the source `{shown}` does not exist")).with_hint(
                    "`--source` names the directory that the sources of the recipe are in; `optional = true` lets one be missing",
                )
            }
            Err(error) => {
                Error::new(ErrorKind::ContextUnreadable, format!("could not read the source `{shown}`"))
                    .with_source(error)
            }
        }
        .with_detail("key", key)
    }
}

/// The name of the source directory.
pub(super) fn package_name(source: &Path) -> Result<String> {
    let shown = source.display();
    let real = source.canonicalize().map_err(|error| {
        let error = Error::new(ErrorKind::InvalidInput, format!("there is no source directory `{shown}`"))
            .with_source(error);
        error.with_hint("name it with `--source DIR`")
    })?;
    if !real.is_dir() {
        return Err(Error::new(ErrorKind::InvalidInput, format!("the source `{shown}` is no directory"))
            .with_hint("name the directory with `--source DIR`"));
    }
    // As it is typed: a link has the name that the user gave it.
    let named = source.file_name().or_else(|| real.file_name());
    // That of the root of the machine.
    Ok(named.map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned()))
}

fn insert_file(
    context: &mut Context,
    at: ContextPath,
    path: &Path,
    settings: &ContextSettings,
) -> Result<()> {
    let unreadable = || format!("could not read `{}`", path.display());
    let file = File::open(path).or_error(ErrorKind::ContextUnreadable, unreadable)?;
    let mode = file.metadata().or_error(ErrorKind::ContextUnreadable, unreadable)?.permissions().mode();
    let mut content = Vec::new();
    file.take(FILE_LIMIT_BYTES + 1)
        .read_to_end(&mut content)
        .or_error(ErrorKind::ContextUnreadable, unreadable)?;
    if content.len() as u64 > FILE_LIMIT_BYTES {
        let message = format!("`{}` is larger than 64 MiB", path.display());
        return Err(Error::new(ErrorKind::InvalidInput, message)
            .with_hint("put it into a directory, and name the directory in the recipe"));
    }
    let mode = match settings.modes {
        Modes::Keep => mode & 0o7777,
        Modes::Normalize if mode & 0o100 != 0 => 0o755,
        Modes::Normalize => 0o644,
    };
    context.insert(at, content, mode);
    Ok(())
}

impl BuildFolder {
    /// Writes the folder to a directory that is new, empty, or was written by windlass before: whole, or
    /// not at all. `added` goes to the end of what its file held before. Blocking.
    ///
    /// The sources are guarded by themselves, whatever `guard` says of them.
    ///
    /// # Errors
    /// `InvalidInput` for a directory that windlass may not replace; `ContextUnreadable`, `LocalIo`,
    /// `Cancelled`.
    pub fn write(
        &self,
        directory: &Path,
        guard: FolderGuard<'_>,
        added: Option<&AddedLines>,
        job: &Job,
    ) -> Result<()> {
        let sources: Vec<PathBuf> = self.context.directories().map(Path::to_owned).collect();
        let folder = OwnedFolder::claim(directory, &FolderGuard { sources: &sources, ..guard })?;
        folder.replace(job, |fresh| {
            self.fill(fresh, job)?;
            let Some(added) = added else { return Ok(()) };
            folder.carry_over(&added.file, fresh)?;
            append(&fresh.join(&added.file), &added.text)
        })
    }

    fn fill(&self, directory: &Path, job: &Job) -> Result<()> {
        let entries = self.context.list(job)?;
        for entry in &entries {
            job.check()?;
            self.write_entry(&directory.join(entry.path.as_path()), entry)?;
        }
        // Only now: nothing could be put into one that must not be written to.
        for entry in entries.iter().rev().filter(|entry| entry.is_directory()) {
            let path = directory.join(entry.path.as_path());
            let mode = Permissions::from_mode(entry.mode);
            fs::set_permissions(&path, mode).or_error(ErrorKind::LocalIo, || unwritable(entry))?;
        }
        Ok(())
    }

    fn write_entry(&self, path: &Path, entry: &Entry) -> Result<()> {
        let failed = || unwritable(entry);
        match &entry.kind {
            EntryKind::Directory => fs::create_dir(path).or_error(ErrorKind::LocalIo, failed),
            EntryKind::Symlink { target } => {
                use std::os::unix::ffi::OsStrExt;
                symlink(std::ffi::OsStr::from_bytes(target), path).or_error(ErrorKind::LocalIo, failed)
            }
            EntryKind::File { .. } => {
                let mut content = self.context.open(entry)?;
                let mut file = File::create_new(path).or_error(ErrorKind::LocalIo, failed)?;
                io::copy(&mut content, &mut file).map_err(|error| match error.downcast::<Error>() {
                    Ok(unreadable) => unreadable,
                    Err(error) => Error::new(ErrorKind::LocalIo, failed()).with_source(error),
                })?;
                file.set_permissions(Permissions::from_mode(entry.mode)).or_error(ErrorKind::LocalIo, failed)
            }
        }
    }
}

fn unwritable(entry: &Entry) -> String {
    format!("could not write `{}` of the build folder", entry.path)
}

fn append(path: &Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .or_error(ErrorKind::LocalIo, || format!("could not write `{}`", path.display()))
}

#[cfg(test)]
mod tests;
