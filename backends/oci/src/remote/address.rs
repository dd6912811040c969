//! A file at an address.
//!
//! The rules are those of BuildKit's `source/http`: mode 0600, the time of `Last-Modified`, else 1970;
//! what the server compressed only for the way is undone.

use std::fs::{File, Permissions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_ENCODING, HeaderMap, LAST_MODIFIED};
use reqwest::{Client, Response, StatusCode, Url};
use windlass_core::archive::decompress;
use windlass_core::backend::Job;
use windlass_core::digest::{Digest, DigestWriter};
use windlass_core::error::{Error, ErrorKind, Result, ResultExt};
use windlass_core::events::{Step, Unit};
use windlass_core::http::{Failure, HttpSettings, describe_failure, next_piece, retry_after};
use windlass_core::registry::RegistrySettings;

const FILE_MODE: u32 = 0o600;

/// Downloads a file; it is whole, verified and has its time when this is done.
///
/// A name and password in the address go to its host alone.
///
/// # Errors
/// `NotFound`, `Denied`, `Unavailable`, `TimedOut`, `BuildFailed` as the server answers; `BuildFailed`
/// for another checksum; `LocalIo`; `Cancelled`.
pub(super) async fn download(
    url: &str,
    to: &Path,
    checksum: Option<&str>,
    network: &RegistrySettings,
    step: &Step,
    job: &Job,
) -> Result<()> {
    let url: Url = url.parse().or_error(ErrorKind::InvalidDockerfile, || "the address cannot be read")?;
    let expected: Option<Digest> = checksum.map(str::parse).transpose()?;
    let server = server_of(&url);
    let ca_file = network.hosts.get(&server).and_then(|host| host.ca_file.clone());
    let settings = HttpSettings {
        ca_files: ca_file.into_iter().collect(),
        connect_timeout: network.connect_timeout,
        ..HttpSettings::default()
    };
    let client = settings.client()?;
    let mut attempts = network.retry.attempts(format!("`{server}`"), job);
    let headers = loop {
        match job.run(async { Ok(attempt(&client, &url, to, network, step).await) }).await? {
            Ok(headers) => break headers,
            Err(failure) => attempts.again(without_hints(failure)).await?,
        }
    };
    let to = to.to_owned();
    job.blocking(move |job| finish(&to, &headers, expected, job)).await
}

/// `host`, or `host:port` where the port is not that of the scheme.
fn server_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// That registries may be told to speak plain http is no hint for an address.
fn without_hints(failure: Failure) -> Failure {
    match failure {
        Failure::Final(error) if error.hints().iter().any(|hint| hint.contains("plain-http")) => {
            let plain = Error::new(error.kind(), error.message())
                .with_hint("if the server speaks plain http, write `http://`");
            match std::error::Error::source(&error) {
                Some(source) => plain.with_source(source.to_string()).into(),
                None => plain.into(),
            }
        }
        other => other,
    }
}

/// Downloads once, from the start.
async fn attempt(
    client: &Client,
    url: &Url,
    to: &Path,
    network: &RegistrySettings,
    step: &Step,
) -> Result<HeaderMap, Failure> {
    let (server, limit) = (server_of(url), network.answer_timeout);
    let response = match tokio::time::timeout(limit, client.get(url.clone()).send()).await {
        Ok(response) => response.map_err(|error| describe_failure(&server, error))?,
        Err(_) => {
            let message = format!("`{server}` did not answer within {} s", limit.as_secs());
            return Err(Failure::transient(Error::new(ErrorKind::TimedOut, message)));
        }
    };
    // After redirects it is another one.
    let server = server_of(response.url());
    let mut response = accept(response, &server)?;
    let headers = response.headers().clone();
    let total = response.content_length();
    let failed = |error: io::Error| Failure::from(cannot_write(error));
    let mut file = File::create(to).map_err(failed)?;
    let mut written = 0;
    while let Some(piece) = next_piece(&server, &mut response, network.silence_timeout).await? {
        file.write_all(&piece).map_err(failed)?;
        written += piece.len() as u64;
        step.progress(written, total, Unit::Bytes);
    }
    Ok(headers)
}

fn cannot_write(error: io::Error) -> Error {
    Error::new(ErrorKind::LocalIo, "could not write what was downloaded").with_source(error)
}

fn accept(response: Response, server: &str) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let kind = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => ErrorKind::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        status if status.is_server_error() => ErrorKind::Unavailable,
        _ => ErrorKind::BuildFailed,
    };
    let error = Error::new(kind, format!("`{server}` answered {status}"));
    let passing = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    if !passing && !status.is_server_error() {
        return Err(error.into());
    }
    let retry_after = retry_after(response.headers(), jiff::Timestamp::now());
    Err(Failure::Transient { error, retry_after, refused: false })
}

/// Undoes the compression of the way, verifies, and gives the file its mode and time.
fn finish(file: &Path, headers: &HeaderMap, expected: Option<Digest>, job: &Job) -> Result<()> {
    let encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if encoding.eq_ignore_ascii_case("gzip") {
        let mut plain = decompress(BufReader::new(File::open(file).map_err(cannot_write)?))
            .or_error(ErrorKind::UnexpectedAnswer, || "what was downloaded cannot be decompressed")?;
        let beside = file.with_file_name(".windlass-plain");
        copy(&mut plain, &mut File::create(&beside).map_err(cannot_write)?, job)?;
        std::fs::rename(&beside, file).map_err(cannot_write)?;
    }
    if let Some(expected) = expected {
        let mut hasher = DigestWriter::new(io::sink());
        copy(&mut File::open(file).map_err(cannot_write)?, &mut hasher, job)?;
        let (_, digest, _) = hasher.finish();
        if digest != expected {
            let message = format!("what was downloaded has the checksum `{digest}`, not `{expected}`");
            return Err(Error::new(ErrorKind::BuildFailed, message)
                .with_hint("see whether the address is right; if its content changed, change `--checksum`"));
        }
    }
    let time = last_modified(headers);
    std::fs::set_permissions(file, Permissions::from_mode(FILE_MODE)).map_err(cannot_write)?;
    File::options().write(true).open(file).and_then(|file| file.set_modified(time)).map_err(cannot_write)
}

fn copy(from: &mut impl io::Read, to: &mut impl Write, job: &Job) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        job.check()?;
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read]).map_err(cannot_write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let message = "what was downloaded cannot be read";
                return Err(Error::new(ErrorKind::UnexpectedAnswer, message).with_source(error));
            }
        }
    }
}

/// `Last-Modified` in the form that RFC 9110 prefers; 1970 without it.
fn last_modified(headers: &HeaderMap) -> SystemTime {
    let text = headers.get(LAST_MODIFIED).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim());
    let seconds = parsed.map_or(0, |time| time.as_second());
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each request with what the function makes of its head and of how many came before.
    async fn serve(answer: impl Fn(&str, usize) -> Vec<u8> + Send + Sync + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let host = listener.local_addr().expect("address").to_string();
        let (answer, count) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                // What begins so is TLS, which this does not speak.
                while !head.ends_with(b"\r\n\r\n") && head != [0x16] {
                    head.push(stream.read_u8().await.expect("a request"));
                }
                let answer = answer(&String::from_utf8_lossy(&head), count.fetch_add(1, Ordering::Relaxed));
                stream.write_all(&answer).await.expect("an answer");
            }
        });
        host
    }

    fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    async fn get(url: &str, checksum: Option<&str>) -> Result<(Vec<u8>, u32, i64)> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (to, job) = (dir.path().join("x"), Job::silent());
        let mut network = RegistrySettings::default();
        network.retry.first_wait = Duration::from_millis(1);
        let step = job.events.step("fetching");
        let done = download(url, &to, checksum, &network, &step, &job).await;
        step.end(done)?;
        let metadata = to.metadata().expect("a file");
        Ok((std::fs::read(&to).expect("read"), metadata.mode() & 0o7777, metadata.mtime()))
    }

    #[tokio::test]
    async fn a_file_has_the_time_of_the_server_and_no_mode() {
        let time = "Last-Modified: Sun, 09 Sep 2001 01:46:40 GMT\r\n";
        let host = serve(move |head, _| match head.split(' ').nth(1) {
            Some("/moved") => reply("302 Found", "Location: /x\r\n", b""),
            _ => reply("200 OK", time, b"hello"),
        })
        .await;
        let expected = (b"hello".to_vec(), 0o600, 1_000_000_000);
        assert_eq!(get(&format!("http://{host}/moved"), None).await.expect("fetched"), expected);
        let good = Digest::of(b"hello").to_string();
        assert_eq!(get(&format!("http://{host}/x"), Some(&good)).await.expect("fetched"), expected);
        let bad = Digest::of(b"other").to_string();
        let error = get(&format!("http://{host}/x"), Some(&bad)).await.expect_err("another file");
        assert_eq!(error.kind(), ErrorKind::BuildFailed);
        assert!(error.message().contains(&good) && error.message().contains(&bad), "{error:?}");
    }

    #[tokio::test]
    async fn trouble_that_passes_is_tried_again_and_all_else_is_said() {
        let host = serve(|_, before| match before {
            0 => reply("503 Service Unavailable", "Retry-After: 0\r\n", b""),
            // Cut in the middle.
            1 => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel".to_vec(),
            _ => reply("200 OK", "", b"whole"),
        })
        .await;
        assert_eq!(
            get(&format!("http://{host}/x"), None).await.expect("in the end"),
            (b"whole".to_vec(), 0o600, 0)
        );
        let host = serve(|_, before| match before {
            0 => reply("404 Not Found", "", b""),
            _ => reply("200 OK", "", b""),
        })
        .await;
        let error = get(&format!("http://{host}/x"), None).await.expect_err("not there");
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::NotFound, &*format!("`{host}` answered 404 Not Found"))
        );
        let error = get(&format!("https://{host}/x"), None).await.expect_err("no TLS");
        assert!(error.hints()[0].contains("write `http://`"), "{error:?}");
    }

    #[tokio::test]
    async fn a_password_goes_to_its_host_alone() {
        let other = serve(|head, _| {
            let told = head.to_ascii_lowercase().contains("authorization");
            reply("200 OK", "", if told { b"told" } else { b"asked" })
        })
        .await;
        let to = format!("Location: http://localhost:{}/y\r\n", other.rsplit(':').next().expect("port"));
        let host = serve(move |head, _| match head.contains("authorization: Basic dTpw") {
            true => reply("302 Found", &to, b""),
            false => reply("401 Unauthorized", "", b""),
        })
        .await;
        assert_eq!(get(&format!("http://u:p@{host}/x"), None).await.expect("fetched").0, b"asked");
    }

    #[tokio::test]
    async fn compression_for_the_way_is_undone() {
        let gzip = [
            0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 7, 0, 0x86, 0xa6, 0x10, 0x36,
            5, 0, 0, 0,
        ];
        let host = serve(move |_, _| reply("200 OK", "Content-Encoding: gzip\r\n", &gzip)).await;
        let checksum = Digest::of(b"hello").to_string();
        assert_eq!(get(&format!("http://{host}/x"), Some(&checksum)).await.expect("fetched").0, b"hello");
    }
}
