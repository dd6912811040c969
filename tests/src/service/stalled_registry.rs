//! A registry that misbehaves: it takes everything up to the content of a blob, and then says nothing any more.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A listening registry. Its threads end with the process.
#[derive(Debug)]
pub struct StalledRegistry {
    address: String,
    stalled: Arc<AtomicBool>,
}

impl StalledRegistry {
    /// Starts to listen on a loopback port.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let stalled = Arc::new(AtomicBool::new(false));
        let flag = stalled.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let flag = flag.clone();
                thread::spawn(move || serve(stream, &flag));
            }
        });
        Ok(Self { address, stalled })
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Somebody is waiting for an answer that never comes.
    pub fn has_stalled(&self) -> bool {
        self.stalled.load(Ordering::SeqCst)
    }
}

/// Answers requests on one connection until one carries content.
fn serve(mut stream: TcpStream, stalled: &AtomicBool) {
    let Ok(reader) = stream.try_clone() else { return };
    let mut lines = BufReader::new(reader).lines();
    while let Some(Ok(request)) = lines.next() {
        // Requests that are answered here have no body.
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let answer = match request.split(' ').next() {
            Some("HEAD") => "404 Not Found\r\nContent-Length: 0\r\n",
            Some("GET") => "200 OK\r\nContent-Length: 0\r\n",
            // An upload that was only tried.
            Some("DELETE") => "204 No Content\r\n",
            Some("POST") => "202 Accepted\r\nLocation: /v2/upload/1\r\nContent-Length: 0\r\n",
            _ => {
                stalled.store(true, Ordering::SeqCst);
                // Keeps the connection open, whatever comes.
                for _ in lines {}
                return;
            }
        };
        if write!(stream, "HTTP/1.1 {answer}\r\n").is_err() {
            return;
        }
    }
}
