//! What a network may do between a client and a service: delay, cut, hold, and be slow. It forwards bytes on a loopback
//! port and knows nothing of what they mean, but may be told to wait for a text.
//!
//! Each connection has a thread for each direction. Threads end with their connection, at the latest with the process.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How often a thread looks whether its connection was cut by the other.
const TICK: Duration = Duration::from_millis(10);
const BUFFER_BYTES: usize = 16 << 10;

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// What comes from here on comes so much later.
    Delay(Duration),
    /// Both sides see an orderly end.
    Fin,
    /// Both sides see a connection that was reset.
    Reset,
    /// Nothing moves in this direction any more; the connection stays open.
    Hold,
    /// From here on so many bytes a second.
    Limit(u64),
}

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the service.
    Up,
    /// From the service to the client.
    Down,
}

/// What happens, where, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    way: Way,
    act: Act,
    text: Option<&'static str>,
    past_bytes: u64,
    times: usize,
}

impl Trouble {
    /// Happens before the first byte of the first connection goes this way.
    pub fn new(way: Way, act: Act) -> Self {
        Self { way, act, text: None, past_bytes: 0, times: 1 }
    }

    /// Happens once this text has gone.
    #[must_use]
    pub fn after(self, text: &'static str) -> Self {
        Self { text: Some(text), ..self }
    }

    /// Happens so many bytes later.
    #[must_use]
    pub fn past(self, bytes: u64) -> Self {
        Self { past_bytes: bytes, ..self }
    }

    /// Happens to so many connections.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Happens to every connection.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }
}

/// A listening proxy.
#[derive(Clone)]
pub struct TcpProxy {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    troubles: Vec<Trouble>,
    /// How often each of them has happened.
    happened: Vec<AtomicUsize>,
    connections: AtomicUsize,
}

impl TcpProxy {
    /// Listens on a loopback port in front of a service, `http://127.0.0.1:PORT` or without the scheme.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn start(upstream: &str, troubles: &[Trouble]) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.trim_start_matches("http://").to_owned(),
            troubles: troubles.to_vec(),
            happened: troubles.iter().map(|_| AtomicUsize::new(0)).collect(),
            connections: AtomicUsize::new(0),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let shared = serving.clone();
                thread::spawn(move || shared.connect(client));
            }
        });
        Ok(Self { address, shared })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often each of the troubles has happened.
    pub fn happened(&self) -> Vec<usize> {
        self.shared.happened.iter().map(|happened| happened.load(Ordering::SeqCst)).collect()
    }

    /// The connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn connect(self: Arc<Self>, client: TcpStream) -> io::Result<()> {
        let service = TcpStream::connect(&self.upstream)?;
        for stream in [&client, &service] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TICK))?;
            stream.set_write_timeout(Some(TICK))?;
        }
        let cut = Arc::new(AtomicBool::new(false));
        let mut up = Pump::new(Way::Up, (client.try_clone()?, service.try_clone()?), &self, &cut);
        let mut down = Pump::new(Way::Down, (service, client), &self, &cut);
        thread::spawn(move || up.run());
        down.run()
    }

    /// Says whether a trouble shall happen once more, and counts it.
    fn happens(&self, index: usize) -> bool {
        let limit = self.troubles[index].times;
        let once_more = |happened| (happened < limit).then_some(happened + 1);
        self.happened[index].fetch_update(Ordering::SeqCst, Ordering::SeqCst, once_more).is_ok()
    }
}

/// One direction of a connection.
struct Pump {
    from: TcpStream,
    to: TcpStream,
    shared: Arc<Shared>,
    /// The connection was cut, by this direction or the other.
    cut: Arc<AtomicBool>,
    waiting: Vec<Waiting>,
    /// Bytes that went through.
    position: u64,
    /// The end of what went through, in which a text may begin.
    tail: Vec<u8>,
    delay: Duration,
    bytes_per_second: Option<u64>,
}

/// A trouble that has not happened on this connection.
struct Waiting {
    index: usize,
    /// Where it happens, once that is known.
    at: Option<u64>,
}

impl Pump {
    fn new(
        way: Way,
        (from, to): (TcpStream, TcpStream),
        shared: &Arc<Shared>,
        cut: &Arc<AtomicBool>,
    ) -> Self {
        let troubles = shared.troubles.iter().enumerate().filter(|(_, trouble)| trouble.way == way);
        let waiting = troubles
            .map(|(index, trouble)| Waiting {
                index,
                at: trouble.text.is_none().then_some(trouble.past_bytes),
            })
            .collect();
        Self {
            from,
            to,
            shared: shared.clone(),
            cut: cut.clone(),
            waiting,
            position: 0,
            tail: Vec::new(),
            delay: Duration::ZERO,
            bytes_per_second: None,
        }
    }

    /// Forwards until one side has nothing more to say, or the connection is cut.
    fn run(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            // A slow link is no buffer: it takes little at a time.
            let room =
                self.bytes_per_second.map_or(BUFFER_BYTES, |rate| (rate / 50).clamp(1, 16 << 10) as usize);
            let read = match self.from.read(&mut buffer[..room]) {
                Ok(0) => return self.to.shutdown(Shutdown::Write),
                Ok(read) => read,
                Err(error) if is_tick(&error) => match self.cut.load(Ordering::SeqCst) {
                    true => return Ok(()),
                    false => continue,
                },
                // Who resets one side resets the other.
                Err(error) => {
                    self.end(true)?;
                    return Err(error);
                }
            };
            if !self.pass(&buffer[..read])? {
                return Ok(());
            }
        }
    }

    /// Forwards bytes and lets happen what shall on the way; says whether the connection is still there.
    fn pass(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        self.look_for_texts(bytes);
        loop {
            let end = self.position + bytes.len() as u64;
            let due = self.waiting.iter().enumerate().filter_map(|(place, one)| Some((one.at?, place)));
            match due.min().filter(|(at, _)| *at < end || bytes.is_empty() && *at == end) {
                None => {
                    let forwarded = bytes.is_empty() || self.forward(bytes)?;
                    // What is to happen at the very end happens now, not with the next byte: there may be none.
                    match self.waiting.iter().any(|one| one.at == Some(end)) && forwarded {
                        true if !bytes.is_empty() => bytes = &[],
                        _ => return Ok(forwarded),
                    }
                }
                Some((at, place)) => {
                    let (before, rest) = bytes.split_at((at.saturating_sub(self.position)) as usize);
                    if !before.is_empty() && !self.forward(before)? {
                        return Ok(false);
                    }
                    bytes = rest;
                    let index = self.waiting.remove(place).index;
                    if self.shared.happens(index) && !self.act(self.shared.troubles[index].act)? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn look_for_texts(&mut self, bytes: &[u8]) {
        let start = self.position - self.tail.len() as u64;
        let seen = [&self.tail[..], bytes].concat();
        let mut longest = 0;
        for waiting in &mut self.waiting {
            let trouble = self.shared.troubles[waiting.index];
            let (Some(text), None) = (trouble.text, waiting.at) else { continue };
            longest = longest.max(text.len());
            let found = seen.windows(text.len()).position(|window| window == text.as_bytes());
            waiting.at = found.map(|found| start + (found + text.len()) as u64 + trouble.past_bytes);
        }
        self.tail = seen[seen.len().saturating_sub(longest.saturating_sub(1))..].to_vec();
    }

    /// Writes bytes, at the speed of the link; says whether the connection is still there.
    fn forward(&mut self, bytes: &[u8]) -> io::Result<bool> {
        thread::sleep(self.delay);
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if is_tick(&error) => {}
                Err(error) => {
                    self.end(true)?;
                    return Err(error);
                }
            }
            if self.cut.load(Ordering::SeqCst) {
                return Ok(false);
            }
        }
        self.position += bytes.len() as u64;
        if let Some(rate) = self.bytes_per_second {
            thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / rate as f64));
        }
        Ok(true)
    }

    /// Lets something happen; says whether the connection is still there.
    fn act(&mut self, act: Act) -> io::Result<bool> {
        match act {
            Act::Delay(delay) => self.delay = delay,
            Act::Limit(rate) => self.bytes_per_second = Some(rate),
            Act::Fin => return self.end(false).map(|()| false),
            Act::Reset => return self.end(true).map(|()| false),
            Act::Hold => {
                while !self.cut.load(Ordering::SeqCst) && !is_gone(&self.to) {
                    thread::sleep(TICK);
                }
                return self.end(false).map(|()| false);
            }
        }
        Ok(true)
    }

    /// Ends the connection on both sides: both threads let go of it within a tick.
    fn end(&self, reset: bool) -> io::Result<()> {
        for stream in [&self.from, &self.to] {
            if reset {
                // Closing a socket that does not linger resets its connection: `man 7 socket`, SO_LINGER.
                rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
            } else {
                // The other side may have ended it already.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        self.cut.store(true, Ordering::SeqCst);
        Ok(())
    }
}

fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Says whether the other side has closed its end.
fn is_gone(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => !is_tick(&error),
    }
}

impl fmt::Debug for TcpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpProxy").field("address", &self.address).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that says back what it hears, upon a proxy.
    fn echo(troubles: &[Trouble]) -> (TcpProxy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = io::copy(&mut &stream, &mut &stream);
            }
        });
        let proxy = TcpProxy::start(&address, troubles).expect("a port");
        let stream = TcpStream::connect(&proxy.address).expect("connected");
        (proxy, stream)
    }

    fn heard(mut stream: TcpStream, said: &[&str]) -> (String, Option<ErrorKind>) {
        for part in said {
            let _ = stream.write_all(part.as_bytes());
        }
        let _ = stream.shutdown(Shutdown::Write);
        let mut heard = Vec::new();
        let end = stream.read_to_end(&mut heard).err().map(|error| error.kind());
        (String::from_utf8_lossy(&heard).into_owned(), end)
    }

    #[test]
    fn bytes_go_through() {
        let (proxy, stream) = echo(&[]);
        assert_eq!(heard(stream, &["one ", "two"]), ("one two".to_owned(), None));
        assert_eq!(proxy.connections(), 1);
    }

    #[test]
    fn connections_end_where_they_shall() {
        let down = |act| Trouble::new(Way::Down, act).after("tw").past(1);
        let (proxy, stream) = echo(&[down(Act::Fin)]);
        assert_eq!(heard(stream, &["one t", "wo three"]), ("one two".to_owned(), None));
        assert_eq!(proxy.happened(), [1]);
        // Once: the next connection is whole.
        let stream = TcpStream::connect(&proxy.address).expect("connected");
        assert_eq!(heard(stream, &["one two three"]).0, "one two three");

        let (proxy, stream) = echo(&[Trouble::new(Way::Up, Act::Reset).past(3)]);
        assert_eq!(heard(stream, &["one two"]).1, Some(ErrorKind::ConnectionReset));
        assert_eq!(proxy.happened(), [1]);
    }

    #[test]
    fn what_is_slow_or_late_arrives() {
        let troubles = [
            Trouble::new(Way::Up, Act::Delay(Duration::from_millis(5))),
            Trouble::new(Way::Down, Act::Limit(100_000)),
        ];
        let (proxy, stream) = echo(&troubles);
        let said = "x".repeat(10_000);
        assert_eq!(heard(stream, &[&said]), (said, None));
        assert_eq!(proxy.happened(), [1, 1]);
    }
}
