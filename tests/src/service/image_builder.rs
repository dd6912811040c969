//! Together's image-builder: takes contexts, streams logs, says how builds are. It does what it is told, also wrong,
//! checks every request strictly, and remembers it.
//!
//! What it makes of an upload is decided by its builder; [`Habits::building`] really builds. How forms are read:
//! `image_builder/form.rs`; how logs are sent: `image_builder/log.rs`.

mod form;
mod log;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::builder::{Builder, Received};
use super::http::{self, Answer, Head};
use super::runtime_api::{document, upload};
pub use form::Submission;
pub use log::{LogPart, event};

/// The key that the service knows.
pub const API_KEY: &str = "together-key-of-the-tests";
/// What the service says of an image that nobody really built.
pub const REGISTRY: &str = "registry.example.com/project";

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `GET /builds/build-1`
    pub line: String,
    /// Which call it is.
    pub call: Call,
    /// The headers.
    pub head: Head,
    /// How many requests of the same call came before.
    pub before: usize,
    /// What was submitted, where that was read to its end.
    pub submission: Option<Arc<Submission>>,
}

/// The calls of the service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Call {
    /// `POST /builds`
    Submit,
    /// `GET /builds/{id}/logs`
    Logs,
    /// `GET /builds/{id}`
    Status,
    /// `DELETE /builds/{id}`
    Cancel,
    /// Anything else.
    #[default]
    Other,
}

/// What the service does with a request.
#[derive(Debug, Clone, Default)]
pub enum Reaction {
    /// What it should.
    #[default]
    Normal,
    /// Takes the request and answers this.
    Answer(Answer),
    /// Answers this before it has read the body, and closes the connection.
    Early(Answer),
    /// Closes the connection after so many bytes of the body.
    CutAfter(u64),
    /// Takes the request, does what it should, and closes the connection without an answer.
    CutWithoutAnswer,
    /// Takes the request, does what it should, and answers so much later.
    Late(Duration),
    /// Takes the request, does what it should, and pauses so long in the middle of its answer.
    Halting(Duration),
    /// Takes the request and never answers.
    Silent,
    /// Takes so many bytes of the body and then no more.
    Stall(u64),
    /// Waits so long between two pieces of the body.
    Slow(Duration),
    /// Streams this as the log.
    Log(Vec<LogPart>),
}

type Script = dyn Fn(&Asked) -> Reaction + Send + Sync;
type Make =
    dyn Fn(&Submission, &CancellationToken, &(dyn Fn(&str) + Sync)) -> Result<String, String> + Send + Sync;

/// What the service is like when it behaves.
pub struct Habits {
    /// What it makes of a submission: the reference of the image, or why there is none. It may say lines of the log.
    pub builder: Box<Make>,
    /// Asked about every request once its head is there.
    pub script: Box<Script>,
    /// The status words that a build has before it ends, one a question.
    pub words: Vec<&'static str>,
    /// The word of a build that is done, and of one that failed.
    pub ends: [&'static str; 2],
    /// Events have ids.
    pub ids: bool,
    /// `Last-Event-ID` is honoured: the log goes on after it.
    pub resumes: bool,
    /// A log that was followed to its end says how the build ended.
    pub says_the_end: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            builder: Box::new(|submission, _, log| {
                ["step 1/2 : FROM scratch", "step 2/2 : COPY hello.txt /"].into_iter().for_each(log);
                Ok(format!("{REGISTRY}/{}", submission.image_name()))
            }),
            script: Box::new(|_| Reaction::Normal),
            words: Vec::new(),
            ends: ["success", "failed"],
            ids: false,
            resumes: false,
            says_the_end: true,
        }
    }
}

impl Habits {
    /// A service that builds what it is sent, and pushes it to this registry (`127.0.0.1:PORT`).
    pub fn building(builder: &Builder, registry: &str) -> Self {
        let (builder, registry) = (builder.clone(), registry.to_owned());
        let build =
            move |submission: &Submission, cancel: &CancellationToken, log: &(dyn Fn(&str) + Sync)| {
                let lines = Arc::new(Mutex::new(Vec::new()));
                let kept = lines.clone();
                let received = Received {
                    archive: &submission.archive,
                    dockerfile: submission.field("dockerfile").unwrap_or("Dockerfile"),
                    build_args: submission.build_args(),
                    names: vec![format!("{registry}/image-builder/{}", submission.image_name())],
                    cancel: cancel.clone(),
                };
                let built = builder.build(&received, Arc::new(move |line| lock(&kept).push(line.to_owned())));
                lock(&lines).iter().for_each(|line| log(line));
                built
            };
        Self { builder: Box::new(build), ..Self::default() }
    }
}

/// How a build is.
#[derive(Debug, Clone)]
enum State {
    Running,
    Done(String),
    Failed(String),
    Cancelled,
}

struct Build {
    state: State,
    log: Vec<String>,
    cancel: CancellationToken,
}

/// A listening service. Its threads end with the process.
#[derive(Clone)]
pub struct ImageBuilder {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    habits: Habits,
    asked: Mutex<Vec<Asked>>,
    builds: Mutex<BTreeMap<String, Build>>,
}

impl ImageBuilder {
    /// Starts to listen on a loopback port.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn start(habits: Habits) -> io::Result<Self> {
        let shared = Arc::new(Shared { habits, asked: Mutex::default(), builds: Mutex::default() });
        let serving = shared.clone();
        let address = http::listen(move |head, reader, stream| serving.serve(head, reader, stream))?;
        Ok(Self { url: format!("http://{address}"), shared })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// The first lines of the requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    /// The requests of one call.
    pub fn calls(&self, call: Call) -> Vec<Asked> {
        let mut asked = self.asked();
        asked.retain(|asked| asked.call == call);
        asked
    }

    /// Says whether a build was stopped.
    pub fn was_cancelled(&self, id: &str) -> bool {
        lock(&self.shared.builds).get(id).is_some_and(|build| matches!(build.state, State::Cancelled))
    }
}

impl Shared {
    fn serve(
        self: &Arc<Self>,
        head: Head,
        reader: &mut BufReader<TcpStream>,
        stream: &mut TcpStream,
    ) -> io::Result<bool> {
        let mut asked = self.remember(head);
        let reaction = (self.habits.script)(&asked);
        let pause = if let Reaction::Slow(pause) = reaction { pause } else { Duration::ZERO };
        match reaction {
            Reaction::Early(answer) => {
                answer.write(stream, false)?;
                return Ok(false);
            }
            Reaction::CutAfter(limit) => {
                upload::take(&asked.head, reader, limit)?;
                return Ok(false);
            }
            Reaction::Stall(limit) => {
                upload::take(&asked.head, reader, limit)?;
                thread::sleep(Duration::from_secs(600));
                return Ok(false);
            }
            _ => {}
        }
        let body = upload::read(&asked.head, reader, pause)?;
        let wrong = self.look_through(&mut asked, &body);
        drop(body);
        if let Some(answer) = wrong {
            return answer.write(stream, false).map(|()| true);
        }
        match reaction {
            Reaction::Answer(answer) => answer.write(stream, false).map(|()| true),
            Reaction::CutWithoutAnswer => {
                self.answer(&asked);
                Ok(false)
            }
            Reaction::Late(pause) => {
                let answer = self.answer(&asked);
                thread::sleep(pause);
                answer.write(stream, false).map(|()| true)
            }
            Reaction::Halting(pause) => {
                let mut bytes = Vec::new();
                self.answer(&asked).write(&mut bytes, false)?;
                let (one, other) = bytes.split_at(bytes.len() - 5);
                stream.write_all(one)?;
                thread::sleep(pause);
                stream.write_all(other).map(|()| true)
            }
            Reaction::Silent => {
                thread::sleep(Duration::from_secs(600));
                Ok(false)
            }
            Reaction::Log(parts) => self.send_log(parts, asked.build_id(), stream),
            _ if asked.call == Call::Logs => self.send_whole_log(&asked, stream),
            _ => self.answer(&asked).write(stream, false).map(|()| true),
        }
    }

    fn remember(&self, head: Head) -> Asked {
        let path = head.start[1].clone();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let call = match (head.start[0].as_str(), &parts[..]) {
            ("POST", ["builds"]) => Call::Submit,
            ("GET", ["builds", _, "logs"]) => Call::Logs,
            ("GET", ["builds", _]) => Call::Status,
            ("DELETE", ["builds", _]) => Call::Cancel,
            _ => Call::Other,
        };
        let mut all = lock(&self.asked);
        let before = all.iter().filter(|asked| asked.call == call).count();
        let line = format!("{} {path}", head.start[0]);
        let asked = Asked { line, call, head, before, submission: None };
        all.push(asked.clone());
        asked
    }

    /// What is wrong with a request, in an answer.
    fn look_through(&self, asked: &mut Asked, body: &[u8]) -> Option<Answer> {
        let refuse = |status: u16, why: &str| Some(document(status, json!({ "error": why })));
        if asked.head.header("authorization") != Some(&format!("Bearer {API_KEY}")) {
            return refuse(401, "who are you");
        }
        let elsewhere =
            asked.head.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        if asked.line.contains(API_KEY) || elsewhere.clone().any(|(_, value)| value.contains(API_KEY)) {
            return refuse(400, "the key is in a place where it must not be");
        }
        match asked.call {
            Call::Submit => match Submission::parse(&asked.head, body) {
                Ok(submission) => {
                    asked.submission = Some(Arc::new(submission));
                    self.replace(asked);
                    None
                }
                Err(why) => refuse(400, &why),
            },
            Call::Logs if asked.head.header("accept") != Some("text/event-stream") => {
                refuse(400, "a log is an event stream")
            }
            Call::Other => refuse(404, "no such call"),
            _ if !body.is_empty() => refuse(400, "there is a body where there is none"),
            _ => None,
        }
    }

    fn replace(&self, asked: &Asked) {
        let mut all = lock(&self.asked);
        let known = all.iter_mut().find(|known| known.call == asked.call && known.before == asked.before);
        if let Some(known) = known {
            *known = asked.clone();
        }
    }

    /// What a service that behaves answers.
    fn answer(self: &Arc<Self>, asked: &Asked) -> Answer {
        let id = asked.build_id();
        match asked.call {
            Call::Submit => self.build(asked),
            Call::Status => self.status(id, asked.before),
            Call::Cancel => match lock(&self.builds).get_mut(id) {
                Some(build) => {
                    if matches!(build.state, State::Running) {
                        build.state = State::Cancelled;
                        build.cancel.cancel();
                    }
                    document(200, json!({}))
                }
                None => absent(),
            },
            Call::Logs | Call::Other => absent(),
        }
    }

    fn build(self: &Arc<Self>, asked: &Asked) -> Answer {
        let Some(submission) = asked.submission.clone() else { return absent() };
        let (id, cancel) = {
            let mut builds = lock(&self.builds);
            let (id, cancel) = (format!("build-{}", builds.len() + 1), CancellationToken::new());
            let build = Build { state: State::Running, log: Vec::new(), cancel: cancel.clone() };
            builds.insert(id.clone(), build);
            (id, cancel)
        };
        let (shared, building) = (self.clone(), id.clone());
        thread::spawn(move || {
            let log = |line: &str| shared.change(&building, |build| build.log.push(line.to_owned()));
            let end = match (shared.habits.builder)(&submission, &cancel, &log) {
                Ok(image) => State::Done(image),
                Err(error) => State::Failed(error),
            };
            shared.change(&building, |build| {
                if matches!(build.state, State::Running) {
                    build.state = end.clone();
                }
            });
        });
        document(202, json!({ "build_id": id }))
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Build)) {
        if let Some(build) = lock(&self.builds).get_mut(id) {
            change(build);
        }
    }

    fn status(&self, id: &str, before: usize) -> Answer {
        let Some(state) = lock(&self.builds).get(id).map(|build| build.state.clone()) else {
            return absent();
        };
        if let Some(word) = self.habits.words.get(before) {
            return document(200, json!({ "status": word }));
        }
        let [good, bad] = self.habits.ends;
        let answer: Value = match state {
            State::Running => json!({ "status": "building" }),
            State::Done(image) => json!({ "status": good, "image_ref": image }),
            State::Failed(error) => json!({ "status": bad, "error": error }),
            State::Cancelled => json!({ "status": "cancelled" }),
        };
        document(200, answer)
    }
}

impl Asked {
    /// The id of the build that it is about.
    fn build_id(&self) -> &str {
        self.line.split('/').nth(2).unwrap_or_default()
    }
}

fn absent() -> Answer {
    document(404, json!({ "error": "no such build" }))
}

/// A thread that panicked while it held this has said why.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for ImageBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageBuilder").field("url", &self.url).finish()
    }
}

impl std::fmt::Debug for Habits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Habits").field("words", &self.words).finish()
    }
}
