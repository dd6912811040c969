//! A registry that answers what a test tells it to: for what real ones do not do on request.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// `GET /v2/…?…`
    pub(super) line: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// How many requests with the same line came before.
    pub(super) before: usize,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Says whether the request line begins like this.
    pub(super) fn is(&self, start: &str) -> bool {
        self.line.starts_with(start)
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    cut_after: Option<usize>,
    /// Close the connection after so many bytes of the request's body, without an answer.
    hang_up_after: Option<usize>,
}

pub(super) fn reply(status: u16) -> Reply {
    Reply { status, ..Reply::default() }
}

impl Reply {
    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(super) fn cut_after(mut self, bytes: usize) -> Self {
        self.cut_after = Some(bytes);
        self
    }

    pub(super) fn hang_up_after(mut self, bytes: usize) -> Self {
        self.hang_up_after = Some(bytes);
        self
    }
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

/// The server; ends with the test's runtime.
pub(super) struct Fake {
    /// `127.0.0.1:PORT`
    pub(super) host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    /// Starts one. `answer` is asked once the head of a request is there, its body not yet read.
    pub(super) async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let host = listener.local_addr().expect("address").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (record, answer): (_, Arc<Answer>) = (seen.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, record.clone(), answer.clone()));
            }
        });
        Self { host, seen }
    }

    /// Starts one that says the same to everybody, whatever they say; gives back `127.0.0.1:PORT`.
    pub(super) async fn start_raw(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let host = listener.local_addr().expect("address").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer).await;
            }
        });
        host
    }

    /// The request lines so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.seen.lock().expect("lock").iter().map(|seen| seen.line.clone()).collect()
    }

    /// The requests so far whose line begins like this.
    pub(super) fn seen(&self, start: &str) -> Vec<Seen> {
        self.seen.lock().expect("lock").iter().filter(|seen| seen.is(start)).cloned().collect()
    }
}

async fn serve(mut stream: TcpStream, record: Arc<Mutex<Vec<Seen>>>, answer: Arc<Answer>) -> Option<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut seen = Seen::default();
    let mut line = String::new();
    reader.read_line(&mut line).await.ok()?;
    seen.line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        seen.headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length: usize = seen.header("content-length").map_or(0, |length| length.parse().expect("number"));
    seen.before = record.lock().expect("lock").iter().filter(|known| known.line == seen.line).count();
    let reply = answer(&seen);
    let wanted = reply.hang_up_after.unwrap_or(length).min(length);
    (&mut reader).take(wanted as u64).read_to_end(&mut seen.body).await.ok()?;
    let is_head = seen.is("HEAD ");
    record.lock().expect("lock").push(seen);
    if reply.hang_up_after.is_some() {
        return None;
    }
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if reply.headers.iter().all(|(name, _)| name != "Content-Length") {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    writer.write_all((head + "\r\n").as_bytes()).await.ok()?;
    let end = if is_head { 0 } else { reply.cut_after.unwrap_or(reply.body.len()) };
    writer.write_all(&reply.body[..end]).await.ok()?;
    writer.shutdown().await.ok()
}
