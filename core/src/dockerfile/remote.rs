//! What ADD takes from elsewhere: addresses and git repositories.
//!
//! Source: BuildKit's `dockerfile2llb/convert_copy.go`, `dfgitutil/git_ref.go`, and `util/sshutil`.

use url::form_urlencoded;

use super::graph::expandable_values;
use super::instruction::{Copy, InstructionKind};
use super::plan::{PlanInput, StagePlan, read};
use super::redact::without_credentials;
use crate::Result;
use crate::error::{Error, ErrorKind};
use crate::platform::Platform;
use crate::request::BuildRequest;

/// The file name of an address that has none.
const UNNAMED: &str = "__unnamed__";
/// The first characters of a part of a name that an `scp`-like address may have.
const NAME_SIGNS: &str = "-_";

/// A source that is no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteSource {
    /// A file at an address, `http` or `https`.
    Address {
        /// The address as written; it may hold a password.
        url: String,
        /// The name that the file gets: the last part of the path of the address.
        file_name: String,
    },
    /// Files of a git repository.
    Git(GitSource),
}

/// Files of a git repository: `https://host/x.git#ref:directory`, `git@host:x`, and with the options in
/// a query: `https://host/x.git?tag=v1&subdir=directory`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitSource {
    /// What git gets as the address of the repository; it may hold a password.
    pub remote: String,
    /// The branch, tag or commit; the default branch if `None`.
    pub reference: Option<String>,
    /// The hash, or its beginning, that the commit must have.
    pub checksum: Option<String>,
    /// The directory whose content is taken; all of it if empty.
    pub directory: String,
    /// `.git` is kept, if the source says so itself.
    pub keep_git_dir: Option<bool>,
    /// Submodules are left out.
    pub skip_submodules: bool,
}

impl RemoteSource {
    /// Recognises a source that is no path; `None` for a path.
    ///
    /// # Errors
    /// `InvalidDockerfile` for a git repository with options that mean nothing or contradict each other.
    pub fn parse(source: &str) -> Result<Option<Self>> {
        if let Some(git) = parse_git(source)? {
            return Ok(Some(Self::Git(git)));
        }
        if !source.starts_with("http://") && !source.starts_with("https://") {
            return Ok(None);
        }
        Ok(Some(Self::Address { url: source.to_owned(), file_name: file_name(source) }))
    }

    /// The source for messages: names and passwords in it are hidden.
    pub fn shown(&self) -> String {
        match self {
            Self::Address { url, .. } => without_credentials(url),
            Self::Git(git) => match &git.reference {
                Some(reference) => format!("{}#{reference}", without_credentials(&git.remote)),
                None => without_credentials(&git.remote),
            },
        }
    }

    /// Says whether it is the same content whenever it is fetched: a checksum says so, or a commit.
    fn is_pinned(&self, checksum: Option<&str>) -> bool {
        match self {
            Self::Address { .. } => checksum.is_some(),
            Self::Git(git) => [git.reference.as_deref(), git.checksum.as_deref(), checksum]
                .into_iter()
                .flatten()
                .any(is_commit),
        }
    }
}

/// Says whether a git reference is the whole hash of a commit.
pub fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64)
        && reference.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn file_name(url: &str) -> String {
    let path = match url::Url::parse(url) {
        Ok(parsed) => percent_decoded(parsed.path()),
        Err(_) => String::new(),
    };
    match path.trim_end_matches('/').rsplit('/').next() {
        Some(name) if !matches!(name, "" | "." | "..") && !name.contains('\0') => name.to_owned(),
        _ => UNNAMED.to_owned(),
    }
}

/// Undoes `%41`; what is no such sequence stays, as does text that would not be UTF-8.
pub fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).filter(|_| *first == b'%').and_then(|digits| str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn parse_git(source: &str) -> Result<Option<GitSource>> {
    let (rest, fragment) = source.split_once('#').unwrap_or((source, ""));
    let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
    match source.split_once("://") {
        Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            match scheme.to_ascii_lowercase().as_str() {
                "ssh" | "git" => {}
                "http" | "https" if remote.ends_with(".git") => {}
                _ => return Ok(None),
            }
        }
        _ if is_scp_like(source) => {}
        _ => return Ok(None),
    }
    let mut git = GitSource { remote: remote.to_owned(), ..GitSource::default() };
    let fragment = percent_decoded(fragment);
    let (reference, directory) = fragment.split_once(':').unwrap_or((&fragment, ""));
    git.reference = Some(reference.to_owned()).filter(|reference| !reference.is_empty());
    directory.clone_into(&mut git.directory);
    read_query(&mut git, query)?;
    Ok(Some(git))
}

/// `user@host:path`
fn is_scp_like(source: &str) -> bool {
    let Some((user, rest)) = source.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let named = |text: &str, signs: &str| {
        !text.is_empty() && text.chars().all(|sign| sign.is_ascii_alphanumeric() || signs.contains(sign))
    };
    named(user, NAME_SIGNS) && named(host, "-.")
}

fn read_query(git: &mut GitSource, query: &str) -> Result<()> {
    let error = |message: String| Error::new(ErrorKind::InvalidDockerfile, message);
    let mut seen: Vec<String> = Vec::new();
    let (mut tag, mut branch) = (None, None);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if seen.iter().any(|known| *known == key) {
            return Err(error(format!("`{key}` stands twice in the query of a git repository")));
        }
        seen.push(key.to_string());
        if value.is_empty() && !matches!(&*key, "submodules" | "keep-git-dir") {
            return Err(error(format!("`{key}` in the query of a git repository has no value")));
        }
        match &*key {
            "ref" => set(&mut git.reference, &value, "ref")?,
            "tag" => tag = Some(value),
            "branch" => branch = Some(value),
            "subdir" if git.directory.is_empty() => git.directory = value.into_owned(),
            "subdir" if git.directory == value => {}
            "subdir" => {
                let message = format!("a git repository has two directories: `{}`, `{value}`", git.directory);
                return Err(error(message));
            }
            "checksum" | "commit" => git.checksum = Some(value.into_owned()),
            "keep-git-dir" => git.keep_git_dir = Some(switch(&key, &value)?),
            "submodules" => git.skip_submodules = !switch(&key, &value)?,
            _ => {
                let known = "ref, tag, branch, subdir, checksum, commit, keep-git-dir, submodules";
                return Err(error(format!("unknown `{key}` in the query of a git repository"))
                    .with_hint(format!("known are: {known}")));
            }
        }
    }
    match (tag, branch) {
        (Some(_), Some(_)) => return Err(error("a git repository has a tag and a branch".to_owned())),
        (Some(tag), None) => set(&mut git.reference, &prefixed("refs/tags/", &tag), "tag")?,
        (None, Some(branch)) => set(&mut git.reference, &prefixed("refs/heads/", &branch), "branch")?,
        (None, None) => {}
    }
    if git.reference.is_none() {
        git.reference.clone_from(&git.checksum);
    }
    Ok(())
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn set(reference: &mut Option<String>, value: &str, key: &str) -> Result<()> {
    match reference {
        Some(known) if known != value => {
            let message = format!("the {key} of a git repository contradicts: `{known}`, `{value}`");
            Err(Error::new(ErrorKind::InvalidDockerfile, message))
        }
        _ => {
            *reference = Some(value.to_owned());
            Ok(())
        }
    }
}

/// A boolean as Go reads it; without a value it is true.
fn switch(key: &str, value: &str) -> Result<bool> {
    match value {
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => {
            let message = format!("`{key}` in the query of a git repository is true or false, not `{value}`");
            Err(Error::new(ErrorKind::InvalidDockerfile, message))
        }
    }
}

/// The sources of ADD in the stages that the target of a request needs whose content may be another
/// one tomorrow: addresses without `--checksum`, branches of git repositories. As written.
///
/// Where a source is a variable, what it might hold decides: an address is assumed if any value
/// looks like one.
///
/// # Errors
/// As [`super::plan`].
pub fn unpinned_sources(request: &BuildRequest) -> Result<Vec<String>> {
    let Some(dockerfile) = read(request)? else { return Ok(Vec::new()) };
    let host = Platform::host();
    let platform = request.platforms.first().unwrap_or(&host);
    let plan = StagePlan::new(&dockerfile, &PlanInput::of(request, platform, &host))?;
    let values = expandable_values(&dockerfile, request);
    let addresses = values.iter().any(|value| value.contains("://") || is_scp_like(value));
    let mut found = Vec::new();
    for (stage, _) in dockerfile.stages.iter().zip(&plan.stages).filter(|(_, resolved)| resolved.needed) {
        for instruction in &stage.instructions {
            if let InstructionKind::Add(add) = &instruction.kind {
                found.extend(unpinned(add, addresses).cloned());
            }
        }
    }
    Ok(found)
}

fn unpinned(add: &Copy, addresses_in_variables: bool) -> impl Iterator<Item = &String> {
    add.sources.iter().filter(move |source| match RemoteSource::parse(source) {
        Ok(Some(remote)) => !remote.is_pinned(add.checksum.as_deref()),
        _ => source.starts_with(['$', '"', '\'']) && addresses_in_variables && add.checksum.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(source: &str) -> GitSource {
        match RemoteSource::parse(source) {
            Ok(Some(RemoteSource::Git(git))) => git,
            other => panic!("{source}: {other:?}"),
        }
    }

    #[test]
    fn paths_addresses_and_repositories_are_told_apart() {
        for path in ["x", "./git@host:x", "github.com/a/b.git", "ftp://x/y", "a@b", "@host:x", "http:/x"] {
            assert_eq!(RemoteSource::parse(path).expect(path), None, "{path}");
        }
        for repository in [
            "git@host:x",
            "u-1@h.org:a/b.git#x",
            "ssh://h/x",
            "GIT://h/x",
            "https://h/x.git",
            "http://h/x.git?ref=a",
        ] {
            assert!(!git(repository).remote.is_empty());
        }
        for (url, name) in [
            ("http://h/a/b.txt?x#y", "b.txt"),
            ("https://h/a%20b/", "a b"),
            ("https://h/x.git/y", "y"),
            ("https://h", UNNAMED),
            ("https://h/", UNNAMED),
        ] {
            let expected = RemoteSource::Address { url: url.to_owned(), file_name: name.to_owned() };
            assert_eq!(RemoteSource::parse(url).expect(url), Some(expected));
        }
    }

    #[test]
    fn a_fragment_and_a_query_say_the_same() {
        let short = git("https://h/x.git#refs/tags/v1:a/b");
        assert_eq!(short, git("https://h/x.git?tag=v1&subdir=a/b"));
        assert_eq!(
            short,
            GitSource {
                remote: "https://h/x.git".to_owned(),
                reference: Some("refs/tags/v1".to_owned()),
                directory: "a/b".to_owned(),
                ..GitSource::default()
            }
        );
        let commit = git("git@h:x.git?commit=0123abc&keep-git-dir&submodules=false");
        assert_eq!(commit.remote, "git@h:x.git");
        assert_eq!(
            (commit.reference.as_deref(), commit.checksum.as_deref()),
            (Some("0123abc"), Some("0123abc"))
        );
        assert_eq!((commit.keep_git_dir, commit.skip_submodules), (Some(true), true));
        for bad in
            ["ref=a#b", "tag=a&branch=a", "x=1", "ref=", "ref=a&ref=a", "submodules=maybe", "subdir=a#:b"]
        {
            assert!(RemoteSource::parse(&format!("https://h/x.git?{bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_passwords_are_not_shown() {
        let shown = |source: &str| RemoteSource::parse(source).expect(source).expect(source).shown();
        assert_eq!(shown("https://u:secret@h/x"), "https://xxxxx:xxxxx@h/x");
        assert_eq!(shown("https://token@h/x.git#main"), "https://xxxxx@h/x.git#main");
        assert_eq!(shown("https://token:x-oauth-basic@h/x.git"), "https://xxxxx:xxxxx@h/x.git");
        assert_eq!(shown("ssh://git@h/x"), "ssh://git@h/x");
        assert_eq!(shown("git@h:x"), "git@h:x");
    }
}
