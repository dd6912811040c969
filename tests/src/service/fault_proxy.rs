//! A proxy in front of a real registry that breaks what it is told to break, and notes every request.
//!
//! It is also what programs find in `HTTP_PROXY`: whatever host they ask it for, it asks its registry.
//!
//! ```no_run
//! use windlass_tests::service::{Act, Answer, Fault, FaultProxy};
//!
//! let busy = Answer::new(429).header("Retry-After", "1");
//! let proxy = FaultProxy::start("127.0.0.1:5000", vec![Fault::on("PUT", "/blobs/").times(2).then(Act::Answer(busy))])?;
//! // … push to `proxy.address()` …
//! assert_eq!(proxy.seen("PUT", "/blobs/").len(), 3);
//! # Ok::<(), std::io::Error>(())
//! ```

use std::fmt;
use std::io::{self, BufReader, Read as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::http::{Answer, Head, copy, listen};

/// What is done with a request.
pub enum Act {
    /// It is answered so; the registry is not asked. Its body is read first, as front ends do.
    Answer(Answer),
    /// It waits for this long.
    Delay(Duration),
    /// It is read and never answered.
    Silence,
    /// The connection breaks after so many bytes of its body have reached the registry.
    CutRequest(u64),
    /// The registry has all of it, and the connection breaks before the answer.
    LoseAnswer,
    /// The connection breaks after so many bytes of the answer's body.
    CutAnswer(u64),
    /// After so many bytes of the answer's body nothing comes any more.
    StallAnswer(u64),
    /// One bit of this byte of its body is turned.
    FlipRequest(u64),
    /// One bit of this byte of the answer's body is turned.
    FlipAnswer(u64),
    /// The registry is told first to delete what the request is about: an upload that goes on.
    DeleteBefore,
    /// The head of the answer is changed.
    Change(Box<dyn Fn(&mut Head) + Send + Sync>),
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Act")
    }
}

type Condition = Box<dyn Fn(&Head) -> bool + Send + Sync>;

/// A rule: which requests, how many of them, and what is done.
pub struct Fault {
    method: &'static str,
    path: String,
    condition: Option<Condition>,
    skip: u32,
    times: u32,
    met: AtomicU32,
    act: Act,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fault({} {})", self.method, self.path)
    }
}

impl Fault {
    /// About requests of this method (empty: any) whose path and query contain a text. They pass until
    /// [`then`](Self::then) says otherwise.
    pub fn on(method: &'static str, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            condition: None,
            skip: 0,
            times: u32::MAX,
            met: AtomicU32::new(0),
            act: Act::Delay(Duration::ZERO),
        }
    }

    /// Only where this is so.
    pub fn when(mut self, condition: impl Fn(&Head) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Box::new(condition));
        self
    }

    /// Only for so many requests. Default: all.
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Not for the first so many.
    pub fn skip(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// What is done.
    pub fn then(mut self, act: Act) -> Self {
        self.act = act;
        self
    }

    fn meets(&self, head: &Head) -> bool {
        let [method, path, _] = &head.start;
        let is_meant = (self.method.is_empty() || self.method == method)
            && path.contains(&self.path)
            && self.condition.as_ref().is_none_or(|condition| condition(head));
        if !is_meant {
            return false;
        }
        let number = self.met.fetch_add(1, Ordering::SeqCst);
        number >= self.skip && number - self.skip < self.times
    }
}

/// A request that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// As it came.
    pub head: Head,
    /// So much of its body.
    pub body_bytes: u64,
    /// What was answered; 0 for nothing.
    pub status: u16,
}

impl Seen {
    /// `PUT`.
    pub fn method(&self) -> &str {
        &self.head.start[0]
    }

    /// With the query.
    pub fn path(&self) -> &str {
        &self.head.start[1]
    }
}

/// A running proxy. Its threads end with the process.
#[derive(Debug)]
pub struct FaultProxy {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl FaultProxy {
    /// Starts a proxy in front of a registry (`127.0.0.1:PORT`). The first fault that meets a request counts.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn start(registry: &str, faults: Vec<Fault>) -> io::Result<Self> {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (notes, registry) = (seen.clone(), registry.to_owned());
        let address = listen(move |head, reader, writer| {
            let number = {
                let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                notes.push(Seen { head: head.clone(), body_bytes: 0, status: 0 });
                notes.len() - 1
            };
            let fault = faults.iter().find(|fault| fault.meets(&head)).map(|fault| &fault.act);
            let mut passage = Passage { head, reader, writer, registry: &registry, body_bytes: 0, status: 0 };
            let goes_on = passage.pass(fault);
            let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
            (notes[number].body_bytes, notes[number].status) = (passage.body_bytes, passage.status);
            goes_on
        })?;
        Ok(Self { address, seen })
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The requests of this method (empty: any) whose path and query contain a text, in the order in which they came.
    pub fn seen(&self, method: &str, path: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let meant =
            |seen: &&Seen| (method.is_empty() || seen.method() == method) && seen.path().contains(path);
        seen.iter().filter(meant).cloned().collect()
    }
}

/// One request on its way.
struct Passage<'a> {
    head: Head,
    reader: &'a mut BufReader<TcpStream>,
    writer: &'a mut TcpStream,
    registry: &'a str,
    body_bytes: u64,
    status: u16,
}

impl Passage<'_> {
    /// Says whether the connection goes on.
    fn pass(&mut self, fault: Option<&Act>) -> io::Result<bool> {
        if self.head.start[0] == "CONNECT" {
            return self.tunnel().map(|()| false);
        }
        match fault {
            Some(Act::Answer(answer)) => {
                self.read_all()?;
                self.status = answer.status;
                answer.write(self.writer, self.head.start[0] == "HEAD").map(|()| true)
            }
            Some(Act::Silence) => {
                self.read_all()?;
                self.wait_for_the_end();
                Ok(false)
            }
            Some(Act::Delay(duration)) => {
                thread::sleep(*duration);
                self.forward(None)
            }
            Some(Act::DeleteBefore) => {
                let mut delete = self.upstream_head();
                delete.start[0] = "DELETE".to_owned();
                delete.set("Content-Length", "0");
                let mut registry = TcpStream::connect(self.registry)?;
                delete.write(&mut registry)?;
                copy(&mut registry, &mut io::sink(), u64::MAX)?;
                self.forward(None)
            }
            fault => self.forward(fault),
        }
    }

    fn read_all(&mut self) -> io::Result<()> {
        self.body_bytes = copy(self.reader, &mut io::sink(), self.head.length().unwrap_or(0))?;
        Ok(())
    }

    /// Keeps the connection open until the other side leaves, or says more.
    fn wait_for_the_end(&mut self) {
        let _ = self.reader.read(&mut [0]);
    }

    /// The head as the registry gets it: HTTP/1.0 spares us pieces of unknown number. A proxy is asked with the whole
    /// address, and the host is in `Host` as well.
    fn upstream_head(&self) -> Head {
        let mut head = self.head.clone();
        if let Some((_, rest)) = head.start[1].split_once("://") {
            head.start[1] = rest.find('/').map_or("/", |slash| &rest[slash..]).to_owned();
        }
        head.start[2] = "HTTP/1.0".to_owned();
        head.set("Connection", "close");
        head
    }

    fn forward(&mut self, fault: Option<&Act>) -> io::Result<bool> {
        let mut registry = TcpStream::connect(self.registry)?;
        self.upstream_head().write(&mut registry)?;
        let length = self.head.length().unwrap_or(0);
        let (before, flip) = match fault {
            Some(Act::CutRequest(bytes)) => (*bytes, false),
            Some(Act::FlipRequest(byte)) => (*byte, true),
            _ => (length, false),
        };
        self.body_bytes = copy(self.reader, &mut registry, before.min(length))?;
        if matches!(fault, Some(Act::CutRequest(_))) {
            registry.shutdown(Shutdown::Both)?;
            return Ok(false);
        }
        if flip {
            self.body_bytes += flip_one(self.reader, &mut registry)?;
        }
        self.body_bytes += copy(self.reader, &mut registry, length - self.body_bytes)?;
        self.answer(registry, fault)
    }

    fn answer(&mut self, registry: TcpStream, fault: Option<&Act>) -> io::Result<bool> {
        let mut registry = BufReader::new(registry);
        let mut head = Head::read(&mut registry)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if matches!(fault, Some(Act::LoseAnswer)) {
            return Ok(false);
        }
        let has_body = self.head.start[0] != "HEAD" && !["204", "304"].contains(&&*head.start[1]);
        let mut unmeasured = Vec::new();
        if has_body && head.length().is_none() {
            registry.read_to_end(&mut unmeasured)?;
            head.set("Content-Length", unmeasured.len().to_string());
        }
        let length = if has_body { head.length().unwrap_or(0) } else { 0 };
        head.start[0] = "HTTP/1.1".to_owned();
        head.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("connection"));
        if let Some(Act::Change(change)) = fault {
            change(&mut head);
        }
        self.status = head.start[1].parse().unwrap_or(0);
        head.write(self.writer)?;
        let mut body = io::Cursor::new(unmeasured).chain(registry);
        match fault {
            Some(Act::CutAnswer(bytes)) => {
                copy(&mut body, self.writer, (*bytes).min(length))?;
                return Ok(false);
            }
            Some(Act::StallAnswer(bytes)) => {
                copy(&mut body, self.writer, (*bytes).min(length))?;
                self.wait_for_the_end();
                return Ok(false);
            }
            Some(Act::FlipAnswer(byte)) => {
                let before = copy(&mut body, self.writer, (*byte).min(length))?;
                let flipped = if before < length { flip_one(&mut body, self.writer)? } else { 0 };
                copy(&mut body, self.writer, length - before - flipped)?;
            }
            _ => {
                copy(&mut body, self.writer, length)?;
            }
        }
        Ok(true)
    }

    /// Both directions until one ends, for TLS.
    fn tunnel(&mut self) -> io::Result<()> {
        let mut registry = TcpStream::connect(self.registry)?;
        Answer::new(200).write(self.writer, false)?;
        self.status = 200;
        let (mut back, mut client) = (registry.try_clone()?, self.writer.try_clone()?);
        let answers = thread::spawn(move || {
            let _ = copy(&mut back, &mut client, u64::MAX);
            let _ = client.shutdown(Shutdown::Both);
        });
        let _ = copy(self.reader, &mut registry, u64::MAX);
        let _ = registry.shutdown(Shutdown::Both);
        let _ = answers.join();
        Ok(())
    }
}

fn flip_one(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<u64> {
    let mut byte = [0];
    from.read_exact(&mut byte)?;
    to.write_all(&[byte[0] ^ 1])?;
    Ok(1)
}
