//! COPY and ADD

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use windlass_core::backend::Job;
use windlass_core::context::{ContextPath, IgnoreRules};
use windlass_core::digest::Digest;
use windlass_core::dockerfile::{Copy, Expander, RemoteSource, without_credentials};
use windlass_core::error::{Error, ErrorKind, Result};

use super::workdir::absolute;
use crate::change::{Change, Touched};
use crate::copy::{Pivoted, Placer, Settings, leads_out, select};
use crate::mode::ModeChange;
use crate::owner::Owner;
use crate::remote::{Fetched, Wanted};
use crate::stage::Stage;
use crate::tree::Tree;
use crate::workshop::Workshop;

/// A COPY or ADD whose words are expanded.
#[derive(Clone, Debug)]
pub(crate) struct Expanded {
    /// It is an ADD.
    pub(crate) add: bool,
    /// The sources that are paths.
    pub(crate) sources: Vec<String>,
    /// The heredocs: file name and content.
    pub(crate) heredocs: Vec<(String, String)>,
    /// The destination as it appears in the history.
    pub(crate) destination: String,
    /// `--chown`
    pub(crate) chown: Option<String>,
    /// `--chmod`
    pub(crate) chmod: Option<String>,
    /// `--exclude`, each.
    pub(crate) exclude: Vec<String>,
    /// `--parents`
    pub(crate) parents: bool,
    /// `--unpack`, or what ADD does without it.
    pub(crate) unpack: bool,
    /// Sources that are no paths are unpacked: only if `--unpack` says so.
    unpack_remote: bool,
    /// `--link`: the layer is made without a look at the stage; see [`is_linked`].
    pub(crate) link: bool,
    /// The sources that are no paths, and how they are fetched.
    pub(crate) wanted: Vec<(String, Wanted)>,
    /// What came of them.
    pub(crate) fetched: BTreeMap<String, Fetched>,
}

/// Where the files come from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The files.
    pub(crate) tree: Arc<Tree>,
    /// The number of the context, if it is one.
    pub(crate) context: Option<usize>,
    /// The stage or image in the words of `--from`; `None` for the context of the build.
    pub(crate) from: Option<String>,
}

impl Origin {
    /// No files at all.
    pub(crate) fn nothing() -> Self {
        Self { tree: Arc::default(), context: None, from: None }
    }
}

impl Expanded {
    /// Expands the words of a COPY or ADD in a stage.
    ///
    /// # Errors
    /// `InvalidDockerfile` for words that cannot be expanded; as [`remote_sources`].
    pub(crate) fn new(stage: &Stage, copy: &Copy, add: bool, expander: Expander) -> Result<Self> {
        let expand = |word: &String| stage.expand(expander, word);
        let optional = |word: &Option<String>| word.as_ref().map(expand).transpose();
        let heredoc = |heredoc: &windlass_core::dockerfile::Heredoc| {
            let content = heredoc.chomped();
            let content =
                if heredoc.expand { stage.expand(Expander::for_heredocs(), &content)? } else { content };
            Ok((heredoc.name.clone(), content))
        };
        let expanded = Self {
            add,
            sources: copy.sources.iter().map(expand).collect::<Result<_>>()?,
            heredocs: copy.heredocs.iter().map(heredoc).collect::<Result<_>>()?,
            destination: expand(&copy.destination)?,
            chown: optional(&copy.chown)?.filter(|text| !text.is_empty()),
            chmod: optional(&copy.chmod)?.filter(|text| !text.is_empty()),
            exclude: copy.exclude.iter().map(expand).collect::<Result<_>>()?,
            parents: copy.parents,
            unpack: copy.unpack.unwrap_or(add),
            unpack_remote: copy.unpack.unwrap_or(false),
            link: is_linked(copy),
            wanted: Vec::new(),
            fetched: BTreeMap::new(),
        };
        let checksum = optional(&copy.checksum)?.filter(|text| !text.is_empty());
        let wanted = remote_sources(&expanded.sources, checksum, copy.keep_git_dir, add)?;
        Ok(Self { wanted, ..expanded })
    }

    /// `COPY / /`
    pub(crate) fn everything() -> Self {
        let root = || "/".to_owned();
        Self {
            add: false,
            sources: vec![root()],
            heredocs: Vec::new(),
            destination: root(),
            chown: None,
            chmod: None,
            exclude: Vec::new(),
            parents: false,
            unpack: false,
            unpack_remote: false,
            link: false,
            wanted: Vec::new(),
            fetched: BTreeMap::new(),
        }
    }

    /// Says whether a source is a path among the files that are copied from.
    fn is_path(&self, source: &str) -> bool {
        self.wanted.iter().all(|(remote, _)| remote != source)
    }

    /// Says whether anything is copied from the context, or from what `--from` names.
    pub(crate) fn has_paths(&self) -> bool {
        self.sources.iter().any(|source| self.is_path(source))
    }

    /// The history entry, as BuildKit words it, names and passwords of addresses hidden.
    pub(crate) fn created_by(&self) -> String {
        let mut text = if self.add { "ADD" } else { "COPY" }.to_owned();
        if self.parents {
            text.push_str(" --parents");
        }
        for (flag, value) in [("chown", &self.chown), ("chmod", &self.chmod)] {
            if let Some(value) = value {
                text.push_str(&format!(" --{flag}={value}"));
            }
        }
        for source in &self.sources {
            // BuildKit leaves a password in it for all who get the image to see.
            text.push_str(&format!(" {}", without_credentials(source)));
        }
        for (name, _) in &self.heredocs {
            text.push_str(&format!(" <<{name}"));
        }
        format!("{text} {} # buildkit", self.destination)
    }

    /// The destination as an absolute path; a slash at the end says that it is a directory.
    fn place(&self, working_dir: &str) -> String {
        let place = absolute(working_dir, &self.destination);
        let directory = self.destination.ends_with('/') || matches!(self.destination.as_str(), "" | ".");
        if directory && !place.ends_with('/') { format!("{place}/") } else { place }
    }
}

/// Says whether the layer of a COPY is made without a look at the stage. As for BuildKit, `--chmod` undoes
/// `--link`.
pub(crate) fn is_linked(copy: &Copy) -> bool {
    copy.link && copy.chmod.is_none()
}

/// The sources that are no paths.
///
/// # Errors
/// `InvalidDockerfile` for such a source of COPY, for a checksum that nothing can have, and for options
/// that contradict each other.
pub(crate) fn remote_sources(
    sources: &[String],
    checksum: Option<String>,
    keep_git_dir: Option<bool>,
    add: bool,
) -> Result<Vec<(String, Wanted)>> {
    let error = |message: String| Err(Error::new(ErrorKind::InvalidDockerfile, message));
    let mut wanted = Vec::new();
    for text in sources {
        let Some(source) = RemoteSource::parse(text)? else { continue };
        let shown = source.shown();
        let mut keep = keep_git_dir;
        match &source {
            RemoteSource::Address { .. } if !add => {
                let message = format!("COPY cannot take an address: `{shown}`");
                return Err(Error::new(ErrorKind::InvalidDockerfile, message).with_hint("use ADD"));
            }
            RemoteSource::Git(_) if !add => {
                let message = format!("COPY cannot take a git repository: `{shown}`");
                return Err(Error::new(ErrorKind::InvalidDockerfile, message).with_hint("use ADD"));
            }
            RemoteSource::Address { .. } => {
                if let Some(Err(why)) = checksum.as_deref().map(str::parse::<Digest>) {
                    let message = format!("invalid `--checksum` for `{shown}`");
                    return Err(Error::new(ErrorKind::InvalidDockerfile, message).with_source(why));
                }
            }
            RemoteSource::Git(git) => {
                if keep.is_some() && git.keep_git_dir.is_some() && keep != git.keep_git_dir {
                    return error(format!("`--keep-git-dir` contradicts `{shown}`"));
                }
                if checksum.is_some() && git.checksum.is_some() && checksum != git.checksum {
                    return error(format!("`--checksum` contradicts `{shown}`"));
                }
                keep = git.keep_git_dir.or(keep);
            }
        }
        let keep_git_dir = keep.unwrap_or(false);
        wanted.push((text.clone(), Wanted { source, checksum: checksum.clone(), keep_git_dir }));
    }
    match checksum {
        Some(_) if sources.len() != 1 => error("`--checksum` is for one source alone".to_owned()),
        Some(_) if wanted.is_empty() => {
            error("`--checksum` is for addresses and git repositories".to_owned())
        }
        _ => Ok(wanted),
    }
}

/// Copies the files into the stage; the change becomes one layer.
pub(crate) fn apply(
    stage: &mut Stage,
    copy: &Expanded,
    origin: &Origin,
    owner: Option<Owner>,
    workshop: &Workshop,
    job: &Job,
) -> Result<Change> {
    let epoch = workshop.epoch();
    let settings = Settings {
        owner,
        mode: copy.chmod.as_deref().map(ModeChange::parse).transpose()?,
        exclude: exclude_rules(&copy.exclude)?,
        made_mtime: epoch,
        mtime: workshop.mtime(origin.context.is_some()),
        unpacked_mtime: workshop.explicit_epoch(),
        unpack: copy.unpack,
    };
    let place = copy.place(&stage.config.config.working_dir);
    let heredocs = workshop.add_heredocs(&copy.heredocs, job)?;
    // With `--link` the layer is that of an empty stage; what it hides is seen when all layers are
    // laid over each other again.
    let mut tree = if copy.link { Arc::default() } else { stage.tree.take().expect("it was read before") };
    let root = Arc::make_mut(&mut tree);
    let mut touched = Touched::default();
    for source in &copy.sources {
        if let Some(fetched) = copy.fetched.get(source) {
            let mtime = if fetched.has_time { workshop.mtime(false) } else { Some(epoch) };
            let settings = Settings { unpack: copy.unpack_remote, mtime, ..settings.clone() };
            let listed = workshop.sources.context(fetched.context);
            if listed.tree.get(&listed.tree.resolve(&fetched.path)?).is_none() {
                let path = String::from_utf8_lossy(&fetched.path);
                let message = format!("`{path}` does not exist in what was fetched");
                return Err(Error::new(ErrorKind::NotFound, message)
                    .with_detail("source", without_credentials(source)));
            }
            let mut placer = Placer::new(root, &mut touched, &workshop.sources, &settings, job);
            placer.copy(&listed.tree, &fetched.path, &place)?;
            continue;
        }
        let mut placer = Placer::new(root, &mut touched, &workshop.sources, &settings, job);
        let found = if copy.parents {
            copy_with_parents(&mut placer, source, origin, workshop, &place)?
        } else {
            copy_selected(&mut placer, source, origin, workshop, &place)?
        };
        if !found {
            job.events.warn(format!("`{source}` matches nothing"));
        }
    }
    if let Some(context) = heredocs {
        let settings = Settings { unpack: false, mtime: Some(epoch), ..settings };
        let listed = workshop.sources.context(context);
        let mut placer = Placer::new(root, &mut touched, &workshop.sources, &settings, job);
        for (name, _) in &copy.heredocs {
            placer.copy(&listed.tree, name.as_bytes(), &place)?;
        }
    }
    Ok(Change { tree, touched, created_by: copy.created_by(), whole: !copy.link })
}

/// Copies what a source means, and says whether that was anything.
fn copy_selected(
    placer: &mut Placer<'_>,
    source: &str,
    origin: &Origin,
    workshop: &Workshop,
    place: &str,
) -> Result<bool> {
    let selected = select(&origin.tree, source)?;
    for path in &selected.paths {
        if origin.tree.get(&origin.tree.resolve(path)?).is_none() {
            return Err(missing(source, path, origin, workshop));
        }
        placer.copy(&origin.tree, path, place)?;
    }
    Ok(!selected.paths.is_empty())
}

/// The same for `--parents`.
fn copy_with_parents(
    placer: &mut Placer<'_>,
    source: &str,
    origin: &Origin,
    workshop: &Workshop,
    place: &str,
) -> Result<bool> {
    let pivoted = Pivoted::parse(&origin.tree, source)?;
    let mut found = false;
    for base in &pivoted.bases {
        found |= placer.copy_with_parents(&origin.tree, base, &pivoted, place)?;
    }
    if !found && !pivoted.has_wildcards {
        let path = ContextPath::clean(source.trim_start_matches('/')).unwrap_or_default();
        return Err(missing(source, path.as_bytes(), origin, workshop));
    }
    Ok(found)
}

/// The patterns of `--exclude` as rules; they have the meaning of those in an ignore file.
fn exclude_rules(patterns: &[String]) -> Result<Option<IgnoreRules>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    IgnoreRules::parse(patterns.join("\n").as_bytes(), Path::new("--exclude")).map(Some)
}

/// Why a source is not there: outside the context, left out by the ignore file, or just missing.
fn missing(source: &str, path: &[u8], origin: &Origin, workshop: &Workshop) -> Error {
    let error = |message: String| Error::new(ErrorKind::InvalidDockerfile, message);
    if let Some(from) = &origin.from {
        return error(format!("`{source}` does not exist in `{from}`"));
    }
    if leads_out(source) {
        return error(format!("`{source}` is outside of the build context"))
            .with_hint("only files below the context can be copied; give a directory further up as the context, or `--build-context`");
    }
    let Some(number) = origin.context else { return error(format!("`{source}` does not exist")) };
    let listed = workshop.sources.context(number);
    let context = &listed.context;
    let path = ContextPath::from_clean(path);
    let on_disk = context.on_disk(&path).is_some_and(|file| file.symlink_metadata().is_ok());
    match context.decision(&path).filter(|decision| decision.excluded && on_disk) {
        Some(decision) => error(format!("`{source}` is excluded from the build context"))
            .with_detail(
                "excluded by",
                format!("{}:{}: `{}`", decision.file.display(), decision.line, decision.pattern),
            )
            .with_hint(format!(
                "take it out of `{}`, or add the line `!{path}` at its end",
                decision.file.display()
            )),
        None => match workshop.link_target(number, path.as_bytes()).filter(|_| on_disk) {
            Some(target) => {
                error(format!("`{path}` is a link to `{target}`, which is not in the build context"))
            }
            None => error(format!("`{source}` does not exist in the build context")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_become_history() {
        let sources = ["https://me:secret@h/x.git#v1:src", "https://token@h/@a/x?y=1", "https://h/@a", "f"];
        let sources = sources.map(str::to_owned).to_vec();
        let copy = Expanded { add: true, sources, ..Expanded::everything() };
        assert_eq!(
            copy.created_by(),
            "ADD https://xxxxx:xxxxx@h/x.git#v1:src https://xxxxx@h/@a/x?y=1 https://h/@a f / # buildkit"
        );
    }
}
