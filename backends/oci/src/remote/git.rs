//! A checkout of a git repository.
//!
//! The rules are those of BuildKit's `source/git`: branches go before tags of the same name; only the
//! wanted commit is fetched where the server can do that; submodules belong to it.

use std::path::Path;

use windlass_core::backend::Job;
use windlass_core::dockerfile::{GitSource, RemoteSource, is_commit, without_credentials};
use windlass_core::error::{Error, ErrorKind, Result, ResultExt};
use windlass_core::http::{Failure, RetryPolicy};

use super::git_address;
use super::git_program::{Git, Refusal};

/// Fetches only the commit, not what was before it.
const SHALLOW: &str = "--depth=1";

/// What git says when the trouble may pass.
const PASSING: &[&str] = &[
    "Could not resolve host",
    "Connection reset",
    "Connection timed out",
    "Operation too slow",
    "early EOF",
    "unexpected disconnect",
    // An ssh server that is gone without a word.
    "not responding",
    "The requested URL returned error: 429",
    "The requested URL returned error: 5",
];

/// The commit that a reference means.
struct Resolved {
    /// The full name of the branch or tag; the hash for a commit.
    name: String,
    /// The repository names its objects by sha256.
    is_sha256: bool,
}

/// Fetches a commit with its submodules into the directory of `git`.
///
/// # Errors
/// `NotFound` for a reference that the repository does not have; `BuildFailed` for another checksum and
/// for what git says; `Cancelled`.
pub(super) async fn check_out(
    git: &Git,
    source: &GitSource,
    checksum: Option<&str>,
    keep_git_dir: bool,
    retry: RetryPolicy,
    job: &Job,
) -> Result<()> {
    let checksum = checksum.or(source.checksum.as_deref());
    if let Some(bad) = checksum.filter(|text| !text.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        let message = format!("the checksum `{bad}` of a git repository is no hash of a commit");
        return Err(Error::new(ErrorKind::InvalidDockerfile, message));
    }
    let (remote, credential) = git_address::split(&source.remote)?;
    let git = &git.with_credential(credential);
    let repository = Repository { git, source, remote: &remote, retry, job };
    let resolved = repository.resolve().await?;
    let format = if resolved.is_sha256 { "--object-format=sha256" } else { "--object-format=sha1" };
    repository.run(&["init", "--quiet", format]).await?;
    repository.run(&["remote", "add", "--", "origin", &remote]).await?;
    repository.fetch(&resolved).await?;
    let commit = repository.run(&["rev-parse", &format!("{}^{{commit}}", resolved.name)]).await?;
    if let Some(checksum) = checksum {
        let named = repository.run(&["rev-parse", &resolved.name]).await?;
        if ![&named, &commit].iter().any(|hash| hash.starts_with(checksum)) {
            let message = format!("the commit is `{}`, not `{checksum}` as asked for", commit.trim());
            return Err(Error::new(ErrorKind::BuildFailed, message));
        }
    }
    repository.run(&["checkout", "--quiet", "--detach", commit.trim()]).await?;
    if !source.skip_submodules && git.directory().join(".gitmodules").symlink_metadata().is_ok() {
        repository.reach(&["submodule", "update", "--init", "--recursive", "--progress", SHALLOW]).await?;
    }
    if !keep_git_dir {
        let directory = git.directory().join(".git");
        return job.blocking(move |_| remove(&directory)).await;
    }
    repository.run(&["reflog", "expire", "--all", "--expire=now"]).await?;
    remove(&git.directory().join(".git/FETCH_HEAD"))
}

fn remove(path: &Path) -> Result<()> {
    let result = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => Ok(()),
    };
    result.or_error(ErrorKind::LocalIo, || "could not tidy up a checkout")
}

struct Repository<'a> {
    git: &'a Git,
    source: &'a GitSource,
    /// Its address without name and password.
    remote: &'a str,
    retry: RetryPolicy,
    job: &'a Job,
}

impl Repository<'_> {
    /// Finds out what the reference means.
    async fn resolve(&self) -> Result<Resolved> {
        let remote = self.remote;
        let wanted = match &self.source.reference {
            Some(commit) if is_commit(commit) => {
                return Ok(Resolved { is_sha256: commit.len() == 64, name: commit.clone() });
            }
            Some(reference) => reference.clone(),
            None => {
                let listed = self.reach(&["ls-remote", "--symref", "--", remote, "HEAD"]).await?;
                let branch = listed.lines().find_map(|line| line.strip_prefix("ref: ")?.split('\t').next());
                branch.map(str::to_owned).ok_or_else(|| self.error("it has no default branch"))?
            }
        };
        let peeled = format!("{wanted}^{{}}");
        let listed = self.reach(&["ls-remote", "--", remote, &wanted, &peeled]).await?;
        let found: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
        let names = ["refs/", "refs/heads/", "refs/tags/"]
            .map(|prefix| format!("{prefix}{}", wanted.strip_prefix(prefix).unwrap_or(&wanted)));
        for name in names {
            if let Some((hash, _)) = found.iter().find(|(_, listed)| *listed == name) {
                return Ok(Resolved { name, is_sha256: hash.len() == 64 });
            }
        }
        let error = Error::new(ErrorKind::NotFound, format!("could not fetch {}", self.shown()));
        Err(error.with_source(format!("the repository has no branch or tag `{wanted}`")))
    }

    /// Fetches the commit: alone where the server gives it, else with all that it has.
    async fn fetch(&self, resolved: &Resolved) -> Result<()> {
        let name = &resolved.name;
        if !is_commit(name) {
            // The branch of the empty repository may be the one that comes.
            let mapping = format!("+{name}:{name}");
            let fetch = ["fetch", "--progress", SHALLOW, "--no-tags", "--update-head-ok", "origin", &mapping];
            return self.reach(&fetch).await.map(drop);
        }
        let alone = self.try_reach(&["fetch", "--progress", SHALLOW, "--no-tags", "origin", name]).await?;
        let refused = match alone {
            Ok(_) => return Ok(()),
            Err(refused) => refused,
        };
        let unknown =
            ["not our ref", "unadvertised object", "no such remote ref", "couldn't find remote ref"];
        if !unknown.iter().any(|words| refused.said.to_ascii_lowercase().contains(words)) {
            return Err(self.refused(&refused));
        }
        self.reach(&["fetch", "--progress", "--tags", "origin"]).await.map(drop)
    }

    /// Calls git for something that concerns this machine alone.
    async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.git.call(arguments, self.job).await?.map_err(|refusal| self.refused(&refusal))
    }

    /// Calls git for something that goes over the network.
    async fn reach(&self, arguments: &[&str]) -> Result<String> {
        self.try_reach(arguments).await?.map_err(|refusal| self.refused(&refusal))
    }

    /// The same; trouble that may pass is tried again, and without the options that a server lacks.
    async fn try_reach(&self, arguments: &[&str]) -> Result<std::result::Result<String, Refusal>> {
        let mut arguments = arguments.to_vec();
        let mut attempts = self.retry.attempts(self.shown(), self.job);
        loop {
            let refusal = match self.git.reach(&arguments, self.job).await? {
                Ok(printed) => return Ok(Ok(printed)),
                Err(refusal) => refusal,
            };
            let said = &refusal.said;
            if arguments.contains(&SHALLOW) && (said.contains("shallow") || said.contains(SHALLOW)) {
                arguments.retain(|argument| *argument != SHALLOW);
                continue;
            }
            let refused = said.contains("Connection refused") || said.contains("Couldn't connect to server");
            let passing = refusal.silent_for.is_some() || PASSING.iter().any(|words| said.contains(words));
            if !refused && !passing {
                return Ok(Err(refusal));
            }
            let error = self.refused(&refusal);
            attempts.again(Failure::Transient { error, retry_after: None, refused }).await?;
        }
    }

    fn shown(&self) -> String {
        format!("`{}`", RemoteSource::Git(self.source.clone()).shown())
    }

    fn error(&self, why: &str) -> Error {
        Error::new(ErrorKind::BuildFailed, format!("could not fetch {}", self.shown()))
            .with_source(why.to_owned())
    }

    /// What git says, without names and passwords: submodules have addresses of their own.
    fn refused(&self, refusal: &Refusal) -> Error {
        let said = without_credentials(&refusal.said);
        // Of a line that was written again and again, the last state counts.
        let lines = said.lines().filter_map(|line| line.trim_end().rsplit('\r').next());
        let lines: Vec<String> = lines.filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        let error = match refusal.silent_for {
            Some(limit) => {
                let message = format!("could not fetch {}", self.shown());
                let why = format!("git heard nothing from the server for {} s", limit.as_secs());
                Error::new(ErrorKind::TimedOut, message).with_source(why)
            }
            None => self.error(lines.last().map_or("git said nothing", String::as_str)),
        };
        error.with_log_tail(lines)
    }
}

#[cfg(test)]
mod tests;
