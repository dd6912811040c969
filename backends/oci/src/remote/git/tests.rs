use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// Nobody waits so long.
const PATIENCE: Duration = Duration::from_secs(600);

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
        let git = Git::locate(&environment(), dir.path(), PATIENCE).expect("git").at(dir.path());
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

    async fn check_out(&self, source: &GitSource, checksum: Option<&str>, keep: bool) -> Result<Checkout> {
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
    let (tag, commit) = (repo.run(&["rev-parse", "v1"]).await, repo.run(&["rev-parse", "v1^{commit}"]).await);
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
async fn a_fetch_that_is_stopped_leaves_no_process() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let remote = format!("git://{}/x", server.local_addr().expect("address"));
    let dir = tempfile::tempdir().expect("temporary directory");
    let git = Git::locate(&environment(), dir.path(), PATIENCE).expect("git").at(dir.path());
    let (source, job) = (GitSource { remote, ..GitSource::default() }, Job::silent());
    let stop = async {
        let (mut connection, _) = server.accept().await.expect("git comes");
        job.cancel.cancel();
        // It ends when the last process that has it open is gone.
        let mut said = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut connection, &mut said).await;
    };
    let fetched = check_out(&git, &source, None, false, RetryPolicy::default(), &job);
    let (result, ()) = tokio::join!(fetched, stop);
    assert_eq!(result.expect_err("stopped").kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let empty = BTreeMap::from([("PATH".to_owned(), "/nonexistent".to_owned())]);
    let error = Git::locate(&empty, Path::new("/"), PATIENCE).expect_err("not there");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("`git`"));
}

/// Repositories that a server gives to who shows the name `me` and the password `s3cret`.
struct Published {
    root: tempfile::TempDir,
    server: String,
}

impl Published {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let server = listener.local_addr().expect("address").to_string();
        let from = root.path().to_owned();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| give(stream, &from)));
        Self { root, server }
    }

    /// Publishes a repository with a file of its own name, and perhaps a submodule `s` beside it.
    async fn add(&self, name: &str, submodule: Option<(&str, &str)>) -> String {
        let repo = Repo::new().await;
        std::fs::write(repo.dir.path().join(name), name).expect("write");
        repo.run(&["add", name]).await;
        if let Some((name, commit)) = submodule {
            let text = format!("[submodule \"s\"]\n\tpath = s\n\turl = ../{name}.git\n");
            std::fs::write(repo.dir.path().join(".gitmodules"), text).expect("write");
            repo.run(&["add", ".gitmodules"]).await;
            repo.run(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},s")]).await;
        }
        repo.run(&["commit", "-q", "-m", name]).await;
        let bare = self.root.path().join(format!("{name}.git")).display().to_string();
        repo.run(&["clone", "--quiet", "--bare", ".", &bare]).await;
        repo.run(&["-C", &bare, "update-server-info"]).await;
        repo.run(&["rev-parse", "HEAD"]).await
    }

    fn source(&self, who: &str, name: &str) -> GitSource {
        let remote = format!("http://{who}@{}/{name}.git", self.server);
        GitSource { remote, reference: Some("master".to_owned()), ..GitSource::default() }
    }

    async fn check_out(&self, source: &GitSource) -> Result<Checkout> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let git = Git::locate(&environment(), dir.path(), PATIENCE).expect("git").at(dir.path());
        check_out(&git, source, None, true, RetryPolicy::default(), &Job::silent()).await?;
        Ok(Checkout(dir))
    }
}

/// Answers one request with a file.
fn give(mut stream: std::net::TcpStream, root: &Path) {
    let lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
    let head: Vec<String> =
        lines.map_while(std::result::Result::ok).take_while(|line| !line.is_empty()).collect();
    let path = head.first().and_then(|line| line.split([' ', '?']).nth(1)).unwrap_or_default();
    let may = head.iter().any(|line| line.eq_ignore_ascii_case("authorization: Basic bWU6czNjcmV0"));
    let (status, content) = match std::fs::read(root.join(path.trim_start_matches('/'))) {
        _ if !may => ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"", Vec::new()),
        Ok(content) => ("200 OK", content),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let length = content.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content));
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in dir.read_dir().into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(files_below(&path)),
            path => files.push(path),
        }
    }
    files
}

#[tokio::test]
async fn a_password_is_in_no_file_of_a_checkout() {
    let published = Published::new();
    let leaf = published.add("leaf", None).await;
    let middle = published.add("middle", Some(("leaf", &leaf))).await;
    published.add("app", Some(("middle", &middle))).await;
    let checkout = published.check_out(&published.source("me:s3%63ret", "app")).await.expect("checked out");
    assert_eq!(checkout.read("s/s/leaf"), "leaf");
    for file in files_below(checkout.0.path()) {
        let content = String::from_utf8_lossy(&std::fs::read(&file).expect("readable")).into_owned();
        assert!(!content.contains("s3cret") && !content.contains("s3%63ret"), "{}", file.display());
    }
    let bare = format!("url = http://{}/", published.server);
    assert!(checkout.read(".git/config").contains(&bare));
    assert!(checkout.read(".git/modules/s/modules/s/config").contains(&bare));
}

#[tokio::test]
async fn a_password_is_in_no_message() {
    let published = Published::new();
    let nothing = "0".repeat(39) + "1";
    published.add("app", Some(("gone", &nothing))).await;
    for who in ["me:s3%63ret", "me:s3%63ret-no-more", "s3%63ret"] {
        let error = published.check_out(&published.source(who, "app")).await.expect_err("no submodule");
        let said = format!("{error:?} {:?}", error.log_tail());
        assert!(!said.contains("s3%63ret") && !said.contains("s3cret"), "{said}");
    }
}

#[tokio::test]
async fn who_asks_without_a_password_that_is_needed_is_refused() {
    let published = Published::new();
    published.add("app", None).await;
    let error = published.check_out(&published.source("me", "app")).await.expect_err("not let in");
    assert_eq!(error.kind(), ErrorKind::BuildFailed);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let server = TcpListener::bind("127.0.0.1:0").expect("bind");
    let host = server.local_addr().expect("address");
    let dir = tempfile::tempdir().expect("temporary directory");
    for remote in [format!("git://{host}/x"), format!("http://{host}/x.git")] {
        let git = Git::locate(&environment(), dir.path(), Duration::from_millis(200)).expect("git");
        let source = GitSource { remote, ..GitSource::default() };
        let retry =
            RetryPolicy { retries: 1, first_wait: Duration::from_millis(1), ..RetryPolicy::default() };
        let checked_out = check_out(&git, &source, None, false, retry, &Job::silent()).await;
        let error = checked_out.expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
        for _ in 0..2 {
            server.accept().expect("tried, and once again");
        }
    }
}
