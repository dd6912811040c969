//! A checkout of a git repository.
//!
//! The rules are those of BuildKit's `source/git`: branches go before tags of the same name; only the
//! wanted commit is fetched where the server can do that; submodules belong to it.

use std::path::Path;

use windlass_core::backend::Job;
use windlass_core::dockerfile::{GitSource, RemoteSource, is_commit};
use windlass_core::error::{Error, ErrorKind, Result, ResultExt};
use windlass_core::http::{Failure, RetryPolicy};

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
    let repository = Repository { git, source, retry, job };
    let resolved = repository.resolve().await?;
    let format = if resolved.is_sha256 { "--object-format=sha256" } else { "--object-format=sha1" };
    repository.run(&["init", "--quiet", format]).await?;
    repository.run(&["remote", "add", "--", "origin", &source.remote]).await?;
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
        repository.reach(&["submodule", "update", "--init", "--recursive", SHALLOW]).await?;
    }
    if !keep_git_dir {
        let directory = git.directory().join(".git");
        return job.blocking(move |_| remove(&directory)).await;
    }
    let shown = RemoteSource::Git(GitSource { reference: None, ..source.clone() }).shown();
    repository.run(&["remote", "set-url", "--", "origin", &shown]).await?;
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
    retry: RetryPolicy,
    job: &'a Job,
}

impl Repository<'_> {
    /// Finds out what the reference means.
    async fn resolve(&self) -> Result<Resolved> {
        let remote = &self.source.remote;
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
            let fetch = ["fetch", SHALLOW, "--no-tags", "--update-head-ok", "origin", &mapping];
            return self.reach(&fetch).await.map(drop);
        }
        let alone = self.try_reach(&["fetch", SHALLOW, "--no-tags", "origin", name]).await?;
        let refused = match alone {
            Ok(_) => return Ok(()),
            Err(refused) => refused,
        };
        let unknown =
            ["not our ref", "unadvertised object", "no such remote ref", "couldn't find remote ref"];
        if !unknown.iter().any(|words| refused.said.to_ascii_lowercase().contains(words)) {
            return Err(self.refused(&refused));
        }
        self.reach(&["fetch", "--tags", "origin"]).await.map(drop)
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
            let refusal = match self.git.call(&arguments, self.job).await? {
                Ok(printed) => return Ok(Ok(printed)),
                Err(refusal) => refusal,
            };
            let said = &refusal.said;
            if arguments.contains(&SHALLOW) && (said.contains("shallow") || said.contains(SHALLOW)) {
                arguments.retain(|argument| *argument != SHALLOW);
                continue;
            }
            let refused = said.contains("Connection refused") || said.contains("Couldn't connect to server");
            if !refused && !PASSING.iter().any(|words| said.contains(words)) {
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

    /// What git says, without the password that may be in the address.
    fn refused(&self, refusal: &Refusal) -> Error {
        let hidden = RemoteSource::Git(GitSource { reference: None, ..self.source.clone() }).shown();
        let said = refusal.said.replace(&self.source.remote, &hidden);
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        self.error(lines.last().copied().unwrap_or("git said nothing"))
            .with_log_tail(lines.iter().map(|line| (*line).to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn environment() -> BTreeMap<String, String> {
        let path = std::env::var("PATH").expect("PATH");
        BTreeMap::from([("PATH".to_owned(), path)])
    }

    struct Repo {
        dir: tempfile::TempDir,
        git: Git,
    }

    impl Repo {
        /// A repository with the branches `master` and `other`, the tag `v1`, and a directory.
        async fn new() -> Self {
            let dir = tempfile::tempdir().expect("temporary directory");
            let git = Git::locate(&environment(), dir.path()).expect("git").at(dir.path());
            let repo = Self { dir, git };
            repo.run(&["init", "-q"]).await;
            repo.commit("a", "1").await;
            repo.run(&["tag", "-a", "-m", "first", "v1"]).await;
            repo.commit("d/b", "2").await;
            repo.run(&["branch", "other"]).await;
            repo.commit("a", "3").await;
            repo
        }

        async fn run(&self, arguments: &[&str]) -> String {
            let name = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
            let arguments: Vec<&str> = name.iter().chain(arguments).copied().collect();
            let called = self.git.call(&arguments, &Job::silent()).await.expect("started");
            called.unwrap_or_else(|refusal| panic!("{}", refusal.said)).trim().to_owned()
        }

        async fn commit(&self, name: &str, content: &str) {
            let path = self.dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("make");
            std::fs::write(&path, content).expect("write");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
            self.run(&["add", "."]).await;
            self.run(&["commit", "-q", "-m", name]).await;
        }

        fn source(&self, reference: Option<&str>) -> GitSource {
            let remote = format!("file://{}", self.dir.path().display());
            GitSource { remote, reference: reference.map(str::to_owned), ..GitSource::default() }
        }

        async fn check_out(
            &self,
            source: &GitSource,
            checksum: Option<&str>,
            keep: bool,
        ) -> Result<Checkout> {
            let dir = tempfile::tempdir().expect("temporary directory");
            let git = self.git.at(dir.path());
            check_out(&git, source, checksum, keep, RetryPolicy::default(), &Job::silent()).await?;
            Ok(Checkout(dir))
        }
    }

    #[derive(Debug)]
    struct Checkout(tempfile::TempDir);

    impl Checkout {
        fn read(&self, name: &str) -> String {
            std::fs::read_to_string(self.0.path().join(name)).expect(name)
        }

        fn names(&self) -> BTreeSet<String> {
            let entries = self.0.path().read_dir().expect("a directory").flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        }
    }

    #[tokio::test]
    async fn branches_tags_and_commits_are_found() {
        let repo = Repo::new().await;
        let first = repo.run(&["rev-parse", "v1^{commit}"]).await;
        for (reference, content) in [
            (None, "3"),
            (Some("other"), "1"),
            (Some("v1"), "1"),
            (Some("refs/tags/v1"), "1"),
            (Some("heads/master"), "3"),
            (Some(first.as_str()), "1"),
        ] {
            let checkout = repo.check_out(&repo.source(reference), None, false).await.expect("checked out");
            assert_eq!(checkout.read("a"), content, "{reference:?}");
            assert!(!checkout.names().contains(".git"));
            let mode = checkout.0.path().join("a").metadata().expect("a file").permissions().mode();
            assert_eq!(mode & 0o7777, 0o644);
        }
        let error = repo.check_out(&repo.source(Some("missing")), None, false).await.expect_err("none");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_checksum_is_that_of_the_commit_or_its_tag() {
        let repo = Repo::new().await;
        let (tag, commit) =
            (repo.run(&["rev-parse", "v1"]).await, repo.run(&["rev-parse", "v1^{commit}"]).await);
        for good in [&tag[..], &commit, &commit[..8]] {
            repo.check_out(&repo.source(Some("v1")), Some(good), false).await.expect("right");
        }
        let error = repo.check_out(&repo.source(None), Some(&commit), false).await.expect_err("wrong");
        assert!(error.message().contains(&commit), "{error:?}");
        let error = repo.check_out(&repo.source(None), Some("--x"), false).await.expect_err("no hash");
        assert_eq!(error.kind(), ErrorKind::InvalidDockerfile);
    }

    #[tokio::test]
    async fn what_was_asked_for_is_kept_and_nothing_of_where_it_came_from() {
        let repo = Repo::new().await;
        let checkout = repo.check_out(&repo.source(Some("other")), None, true).await.expect("checked out");
        assert!(checkout.names().contains(".git"));
        assert!(!checkout.0.path().join(".git/FETCH_HEAD").exists());
        let git = repo.git.at(checkout.0.path());
        let status = git.call(&["status", "--porcelain"], &Job::silent()).await.expect("started");
        assert_eq!(status.expect("a repository"), "");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let empty = BTreeMap::from([("PATH".to_owned(), "/nonexistent".to_owned())]);
        let error = Git::locate(&empty, Path::new("/")).expect_err("not there");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("`git`"));
    }
}
