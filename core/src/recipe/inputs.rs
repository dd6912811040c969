//! What the names of a runtime image are made of: version, lock files, sources, commit.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::agent_server::Target;
use super::definition::find_beside;
use super::openhands::LockHash;
use super::options::RuntimeOptions;
use super::{HashRules, Tags, git, short_hash, tree_hash};
use crate::backend::Job;
use crate::backend_registry::Host;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::fingerprint::StatCache;

const PIECE_BYTES: usize = 64 * 1024;

/// What the names are made of and is read at once, before anything that takes time.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    pub(super) version: Option<String>,
    /// Where the sources are; those of a recipe without hashes may be missing.
    source: PathBuf,
    hashed: PathBuf,
    lock_files: Vec<PathBuf>,
    base_image: String,
    browser: bool,
    by_hashes: bool,
    /// What is known of the contents of the sources.
    cache: StatCache,
    /// The commit of the sources, for tags that have it.
    pub(super) commit: Option<String>,
    /// Their branch or git reference, for tags that have it.
    pub(super) git_reference: Option<String>,
}

/// The hashes of a recipe; both empty where its tags are not by hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hashes {
    pub(super) lock: String,
    pub(super) source: String,
}

impl Inputs {
    /// Finds everything, and refuses what is missing.
    pub(super) async fn read(options: &RuntimeOptions, host: &Host, job: &Job) -> Result<Self> {
        options.check()?;
        let (options, host) = (options.clone(), host.clone());
        job.blocking(move |_| Self::find(&options, &host)).await
    }

    fn find(options: &RuntimeOptions, host: &Host) -> Result<Self> {
        let (recipe, source) = (&options.recipe, options.source_dir(host));
        let by_hashes = matches!(recipe.tags, Tags::Hashes(_));
        let needs_sources = by_hashes || options.target.unwrap_or(Target::Binary).needs_sources();
        if needs_sources && !source.is_dir() {
            let message = format!("there is no source directory `{}`", options.source.display());
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .with_detail("recipe", recipe.name.as_str())
                .with_hint("name it: `--source DIR`"));
        }
        let hashed = source.join(&recipe.hash);
        let mut lock_files = Vec::new();
        if by_hashes {
            if !hashed.is_dir() {
                let message = format!("there is no directory `{}` to hash", hashed.display());
                return Err(Error::new(ErrorKind::InvalidInput, message)
                    .with_detail("recipe", format!("{}, key `hash`", recipe.name)));
            }
            lock_files = find_lock_files(options, &source)?;
        }
        let checkout = if by_hashes { git::Checkout::default() } else { git::checkout(&source) };
        let first = |names: &[&str], of_git| {
            let set = names.iter().find_map(|name| host.variable(name)).map(str::to_owned);
            set.or(of_git).filter(|_| !by_hashes)
        };
        Ok(Self {
            version: version(options, &source)?,
            commit: first(&["SDK_SHA", "GITHUB_SHA"], checkout.commit),
            git_reference: first(&["SDK_REF", "GITHUB_REF"], checkout.branch),
            base_image: options.base_image.clone(),
            browser: options.browser,
            source,
            hashed,
            lock_files,
            by_hashes,
            cache: StatCache::open(&host.cache_dir),
        })
    }

    /// The source directory, absolute.
    pub(super) fn source(&self) -> &Path {
        &self.source
    }

    /// Computes the hashes.
    pub(super) async fn hashes(&self, job: &Job) -> Result<Hashes> {
        if !self.by_hashes {
            return Ok(Hashes::default());
        }
        let inputs = self.clone();
        job.blocking(move |job| {
            let lock = inputs.lock_hash(job)?;
            let source = short_hash(&tree_hash(&inputs.hashed, &HashRules::default(), &inputs.cache, job)?)
                .unwrap_or_default();
            Ok(Hashes { lock, source })
        })
        .await
    }

    fn lock_hash(&self, job: &Job) -> Result<String> {
        let mut hash = LockHash::new(&self.base_image, self.browser);
        let mut piece = vec![0; PIECE_BYTES];
        for path in &self.lock_files {
            let unreadable = || format!("could not read the lock file `{}`", path.display());
            let mut file = File::open(path).or_error(ErrorKind::ContextUnreadable, unreadable)?;
            loop {
                job.check()?;
                match file.read(&mut piece).or_error(ErrorKind::ContextUnreadable, unreadable)? {
                    0 => break,
                    read => hash.update(&piece[..read]),
                }
            }
        }
        Ok(hash.finish())
    }
}

/// All lock files, or every one that is missing.
fn find_lock_files(options: &RuntimeOptions, source: &Path) -> Result<Vec<PathBuf>> {
    let files = &options.recipe.lock_files;
    let missing: Vec<String> = files
        .iter()
        .filter(|file| file.find(source).is_none())
        .map(|file| format!("`{}`", file.path))
        .collect();
    if missing.is_empty() {
        return Ok(files.iter().filter_map(|file| file.find(source)).collect());
    }
    let word = if missing.len() == 1 { "lock file" } else { "lock files" };
    let message = format!(
        "the {word} {} is neither in `{}` nor in the directory above it",
        missing.join(" and "),
        options.source.display()
    );
    let message = if missing.len() == 1 { message } else { message.replacen(" is ", " are ", 1) };
    Err(Error::new(ErrorKind::InvalidInput, message)
        .with_detail("recipe", options.recipe.name.as_str())
        .with_hint("the hash of the dependencies counts it; name the sources with `--source DIR`"))
}

/// The version: typed, in the recipe, or read; `None` where no tag has it.
fn version(options: &RuntimeOptions, source: &Path) -> Result<Option<String>> {
    let recipe = &options.recipe;
    let given = [&options.version, &recipe.version].into_iter().flatten().find(|text| !text.is_empty());
    if let Some(version) = given {
        return Ok(Some(version.clone()));
    }
    let wanted = match &recipe.tags {
        Tags::Hashes(tags) => {
            let templates = [Some(&tags.source), tags.lock.as_ref(), tags.versioned.as_ref()];
            templates.into_iter().flatten().any(|template| template.contains("version"))
        }
        Tags::Scheme { .. } => options.release_tags,
    };
    if !wanted {
        return Ok(None);
    }
    let unknown = |message: String| {
        Error::new(ErrorKind::InvalidInput, message)
            .with_detail("recipe", recipe.name.as_str())
            .with_hint("say it: `--version VERSION`")
    };
    let Some(name) = &recipe.version_from else {
        return Err(unknown("nothing says which version of the platform this is".to_owned()));
    };
    let Some(path) = find_beside(source, name) else {
        return Err(unknown(format!(
            "the version is in `{name}`, which is neither in `{}` nor in the directory above it",
            options.source.display()
        )));
    };
    let shown = path.display();
    let text = std::fs::read_to_string(&path)
        .or_error(ErrorKind::ContextUnreadable, || format!("could not read `{shown}`"))?;
    let table: toml::Table = text
        .parse()
        .map_err(|source: toml::de::Error| unknown(format!("`{shown}` is no TOML")).with_source(source))?;
    let at = |keys: &[&str]| {
        let (last, above) = keys.split_last()?;
        let mut place = &table;
        for key in above {
            place = place.get(*key)?.as_table()?;
        }
        place.get(*last)?.as_str().filter(|version| !version.is_empty()).map(str::to_owned)
    };
    match at(&["project", "version"]).or_else(|| at(&["tool", "poetry", "version"])) {
        Some(version) => Ok(Some(version)),
        None => Err(unknown(format!(
            "`{shown}` has neither `project.version` nor `tool.poetry.version`, as a text"
        ))),
    }
}
