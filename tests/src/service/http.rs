//! Just enough of HTTP/1.1 to misbehave exactly: on threads, byte by byte. A framework would mend what we break.
//!
//! Not for real use: requests have a `Content-Length` or no body, and an answer is held in memory where its length is
//! not known.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The longest line of a head; ours are below 4 KiB.
const LINE_LIMIT_BYTES: u64 = 64 << 10;
/// The longest a connection of a test lies idle.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// The first line and the headers of a request or of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The three words of the first line; the last may have spaces.
    pub start: [String; 3],
    /// Names are as they came.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Reads a head; `None` if the other side has nothing more to say.
    ///
    /// # Errors
    /// As the connection; `InvalidData` for what is no head.
    pub fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(first) = line(stream)? else { return Ok(None) };
        let mut words = first.splitn(3, ' ').map(str::to_owned);
        let start = [(); 3].map(|()| words.next().unwrap_or_default());
        let mut head = Self { start, headers: Vec::new() };
        loop {
            let header = line(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if header.is_empty() {
                return Ok(Some(head));
            }
            let (name, value) = header.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            head.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Puts a header in the place of those of its name.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
    }

    /// How many bytes follow; `None` if it does not say.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Writes it, with the empty line.
    ///
    /// # Errors
    /// As the connection.
    pub fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.start.join(" ").trim_end());
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        stream.write_all((text + "\r\n").as_bytes())
    }
}

fn line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut text = String::new();
    if stream.take(LINE_LIMIT_BYTES).read_line(&mut text)? == 0 {
        return Ok(None);
    }
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// An answer of our own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// 200.
    pub status: u16,
    /// Beside `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// All of it.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer without headers and body.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// An error in the form of the distribution specification.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let document = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        Self::new(status).body(document.to_string()).header("Content-Type", "application/json")
    }

    /// The same with a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same with a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Writes it; to a HEAD without the body.
    ///
    /// # Errors
    /// As the connection.
    pub fn write(&self, stream: &mut impl Write, to_head: bool) -> io::Result<()> {
        let mut head = Head {
            start: ["HTTP/1.1".into(), self.status.to_string(), String::new()],
            headers: self.headers.clone(),
        };
        head.set("Content-Length", self.body.len().to_string());
        head.write(stream)?;
        if to_head { Ok(()) } else { stream.write_all(&self.body) }
    }
}

/// Copies up to `limit` bytes as they come, and says how many there were.
///
/// # Errors
/// As the connections.
pub(super) fn copy(from: &mut impl Read, to: &mut impl Write, limit: u64) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0;
    while copied < limit {
        let room = buffer.len().min(usize::try_from(limit - copied).unwrap_or(usize::MAX));
        let read = from.read(&mut buffer[..room])?;
        if read == 0 {
            break;
        }
        to.write_all(&buffer[..read])?;
        copied += read as u64;
    }
    Ok(copied)
}

/// Listens on a loopback port and lets `serve` answer request after request of each connection until it says `false`.
/// The threads end with the process. Gives `127.0.0.1:PORT`.
///
/// # Errors
/// If no port can be had.
pub fn listen(
    serve: impl Fn(Head, &mut BufReader<TcpStream>, &mut TcpStream) -> io::Result<bool> + Send + Sync + 'static,
) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || connection(stream, &*serve));
        }
    });
    Ok(address)
}

fn connection(
    mut stream: TcpStream,
    serve: &impl Fn(Head, &mut BufReader<TcpStream>, &mut TcpStream) -> io::Result<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_LIMIT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(head) = Head::read(&mut reader)? {
        if !serve(head, &mut reader, &mut stream)? {
            break;
        }
    }
    stream.shutdown(std::net::Shutdown::Both)
}
