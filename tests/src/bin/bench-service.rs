//! A build service for `tests/bench`, as fast as it can be: takes uploads without looking at them, and logs whatever it is asked for.
//!
//! ```text
//! bench-service LINES MILLISECONDS LINES_OF_A_CHUNK
//! ```
//!
//! Speaks the Runtime API and the image-builder's protocol on one loopback port. A build ends so many milliseconds after
//! it was taken, on the image-builder after its log of so many lines was sent, in chunks of so many. Tells on stdout, a line each: its address,
//! `took BYTES` of an upload that is whole, `done NANOSECONDS` (since 1970) when a build ends. Ends with its stdin.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::json;
use windlass_tests::service::http::listen;
use windlass_tests::service::{Answer, Head};

/// Uploads are read in pieces of up to this size.
const PIECE_BYTES: usize = 256 << 10;
/// The one build that there is.
const BUILD_ID: &str = "build-1";
const IMAGE: &str = "registry.example.com/bench/image:latest";

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().ok());
    let [Some(Some(lines)), Some(Some(milliseconds)), Some(Some(together))] =
        [(); 3].map(|()| arguments.next())
    else {
        let usage = "usage: bench-service LINES MILLISECONDS LINES_OF_A_CHUNK";
        return Err(io::Error::new(ErrorKind::InvalidInput, usage));
    };
    let service = Service {
        events: log(lines, together, "data: ", "\n\n"),
        text: log(lines, together, "", "\n"),
        duration: Duration::from_millis(milliseconds),
        done: Arc::default(),
    };
    let address = listen(move |head, reader, stream| service.serve(&head, reader, stream))?;
    tell(&format!("http://{address}"))?;
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

fn tell(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// A log as the chunks of an answer.
fn log(lines: u64, together: u64, before: &str, after: &str) -> Vec<u8> {
    let mut log = Vec::new();
    let mut chunk = String::new();
    for number in 1..=lines {
        let step = number % 90;
        chunk += &format!("{before}#{step} Collecting package-{number} (from -r requirements.txt){after}");
        if number % together == 0 || number == lines {
            append_chunk(&mut log, &chunk);
            chunk.clear();
        }
    }
    log
}

fn append_chunk(log: &mut Vec<u8>, chunk: &str) {
    log.extend_from_slice(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes());
}

struct Service {
    /// The log as events, and as lines.
    events: Vec<u8>,
    text: Vec<u8>,
    duration: Duration,
    done: Arc<AtomicBool>,
}

impl Service {
    fn serve(
        &self,
        head: &Head,
        reader: &mut BufReader<TcpStream>,
        stream: &mut TcpStream,
    ) -> io::Result<bool> {
        let [method, path, _] = &head.start;
        let path = path.split('?').next().unwrap_or_default();
        let path: Vec<&str> = path.split('/').skip(1).collect();
        let answer = match (method.as_str(), path.as_slice()) {
            ("POST", ["build" | "builds"]) => {
                let bytes = drain(head, reader)?;
                tell(&format!("took {bytes}"))?;
                self.begin(path[0] == "build");
                document(202, &json!({ "build_id": BUILD_ID }))
            }
            ("GET", ["registry_prefix"]) => {
                document(200, &json!({ "registry_prefix": "registry.example.com/bench" }))
            }
            ("GET", ["build_status"]) => document(200, &json!({ "status": self.word(), "image": IMAGE })),
            ("GET", ["builds", _]) => document(200, &json!({ "status": self.word(), "image_ref": IMAGE })),
            ("GET", ["build_logs", _]) => return self.log(stream, false).map(|()| false),
            ("GET", ["builds", _, "logs"]) => return self.log(stream, true).map(|()| false),
            _ => document(404, &json!({ "error": "no such thing" })),
        };
        answer.write(stream, false).map(|()| true)
    }

    fn word(&self) -> &'static str {
        if self.done.load(Ordering::SeqCst) { "success" } else { "running" }
    }

    /// A build that nobody reads the log of ends by itself.
    fn begin(&self, by_itself: bool) {
        self.done.store(false, Ordering::SeqCst);
        if by_itself {
            let (done, duration) = (self.done.clone(), self.duration);
            thread::spawn(move || {
                thread::sleep(duration);
                end(&done)
            });
        }
    }

    /// Sends the log: as events, at the end of which the build ends; or as plain text.
    fn log(&self, stream: &mut TcpStream, events: bool) -> io::Result<()> {
        let content_type = if events { "text/event-stream" } else { "text/plain" };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )?;
        let mut last = Vec::new();
        if events {
            stream.write_all(&self.events)?;
            thread::sleep(self.duration);
            end(&self.done)?;
            append_chunk(&mut last, "data: {\"done\": true}\n\n");
        } else {
            stream.write_all(&self.text)?;
        }
        append_chunk(&mut last, "");
        stream.write_all(&last)
    }
}

fn end(done: &AtomicBool) -> io::Result<()> {
    done.store(true, Ordering::SeqCst);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
    tell(&format!("done {}", now.as_nanos()))
}

fn document(status: u16, value: &serde_json::Value) -> Answer {
    Answer::new(status).header("Content-Type", "application/json").body(value.to_string())
}

/// Reads a body and forgets it; says how long it was.
fn drain(head: &Head, reader: &mut BufReader<TcpStream>) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE_BYTES];
    if let Some(length) = head.length() {
        return skip(reader, length, &mut buffer);
    }
    let mut total = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(|_| ErrorKind::InvalidData)?;
        // The line end that follows counts with it.
        total += skip(reader, size + 2, &mut buffer)? - 2;
        if size == 0 {
            return Ok(total);
        }
    }
}

fn skip(reader: &mut BufReader<TcpStream>, length: u64, buffer: &mut [u8]) -> io::Result<u64> {
    let mut left = length;
    while left > 0 {
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match reader.read(&mut buffer[..room])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => left -= read as u64,
        }
    }
    Ok(length)
}
