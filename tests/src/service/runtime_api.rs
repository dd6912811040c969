//! A build service of the Runtime API: takes contexts and images, and says how their builds are. It does what it is
//! told, also wrong, and remembers every request.
//!
//! What it makes of an upload is decided by its builder; [`Habits::building`] really builds.
//! How uploads are read: `runtime_api/upload.rs`.

pub(super) mod upload;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::builder::{Builder, Received};
use super::http::{self, Answer, Head};
use super::registry::has_image;
pub use upload::{Field, Upload};

/// The key that the service knows.
pub const API_KEY: &str = "key-of-the-tests";

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `POST /build`, with the query.
    pub line: String,
    /// The first part of the path: `build_status`.
    pub call: String,
    /// The headers.
    pub head: Head,
    /// How many requests of the same call came before.
    pub before: usize,
    /// The upload, where there was one and it was read to its end.
    pub upload: Option<Arc<Upload>>,
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
    /// Takes the request and never answers.
    Silent,
    /// Takes so many bytes of the body and then no more.
    Stall(u64),
    /// Waits so long between two pieces of the body.
    Slow(Duration),
    /// Closes the connection after so many bytes of the answer's body.
    CutAnswerAfter(Answer, usize),
}

type Script = dyn Fn(&Asked) -> Reaction + Send + Sync;
type Make = dyn Fn(&Upload) -> Result<String, String> + Send + Sync;
type Exists = dyn Fn(&str) -> bool + Send + Sync;

/// How a build is.
#[derive(Debug, Clone)]
enum Build {
    Running,
    /// The name that is answered, and all names.
    Done(String, Vec<String>),
    Failed(String),
}

/// What the service is like when it behaves.
pub struct Habits {
    /// What it makes of an upload: the name of the image, or why there is none.
    pub builder: Box<Make>,
    /// Says whether there is an image of this name that it did not build.
    pub exists: Box<Exists>,
    /// Asked about every request once its head is there.
    pub script: Box<Script>,
    /// `None`: there is no such call.
    pub registry_prefix: Option<String>,
    /// The status words that a build has before it ends, one a question.
    pub words: Vec<&'static str>,
    /// The word of a build that is done, and of one that failed.
    pub ends: [&'static str; 2],
    /// Status is asked for by the path.
    pub status_by_path: bool,
    /// Refuses uploads that are not multipart forms.
    pub multipart_only: bool,
    /// Answers when the build is done, without an id.
    pub synchronous: bool,
    /// What it says of a log; `None`: there is no such call.
    pub logs: Option<String>,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            builder: Box::new(|upload| Ok(upload.target.clone())),
            exists: Box::new(|_| false),
            script: Box::new(|_| Reaction::Normal),
            registry_prefix: Some("registry.example.com/team/".to_owned()),
            words: vec!["PENDING", "RUNNING"],
            ends: ["SUCCESS", "FAILURE"],
            status_by_path: false,
            multipart_only: false,
            synchronous: false,
            logs: None,
        }
    }
}

impl Habits {
    /// A service that builds what it is sent, and pushes it to this registry (`127.0.0.1:PORT`), all of whose images
    /// it knows.
    pub fn building(builder: &Builder, registry: &str) -> Self {
        let builder = builder.clone();
        let build = move |upload: &Upload| {
            let received = Received {
                archive: &upload.archive,
                // The protocol has no word for another one.
                dockerfile: "Dockerfile",
                names: upload.names(),
                ..Received::default()
            };
            builder.build(&received, Arc::new(|_| {}))
        };
        let registry_prefix = Some(format!("{registry}/runtime-api"));
        let exists = Box::new(has_image);
        Self { builder: Box::new(build), exists, registry_prefix, words: Vec::new(), ..Self::default() }
    }
}

/// A listening service. Its threads end with the process.
#[derive(Clone)]
pub struct RuntimeApi {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    habits: Habits,
    asked: Mutex<Vec<Asked>>,
    builds: Mutex<BTreeMap<String, Build>>,
}

impl RuntimeApi {
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
    pub fn calls(&self, call: &str) -> Vec<Asked> {
        let mut asked = self.asked();
        asked.retain(|asked| asked.call == call);
        asked
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
        if asked.head.header("expect").is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = upload::read(&asked.head, reader, pause)?;
        if asked.call == "build" {
            asked.upload = Upload::parse(&asked.head, &body).map(Arc::new);
            self.replace(&asked);
        }
        drop(body);
        match reaction {
            Reaction::Answer(answer) => answer.write(stream, false).map(|()| true),
            Reaction::CutAnswerAfter(answer, bytes) => {
                let whole = answer.body.len();
                let cut = Answer { body: answer.body[..bytes].to_vec(), ..answer };
                let cut = cut.header("X-Whole", whole.to_string());
                let mut text = Vec::new();
                cut.write(&mut text, false)?;
                let said = String::from_utf8_lossy(&text)
                    .replace(&format!("Content-Length: {bytes}"), &format!("Content-Length: {whole}"));
                stream.write_all(said.as_bytes())?;
                Ok(false)
            }
            Reaction::CutWithoutAnswer => {
                self.answer(&asked);
                // Whoever asks for the image after this finds it.
                while lock(&self.builds).values().any(|build| matches!(build, Build::Running)) {
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(false)
            }
            Reaction::Silent => {
                thread::sleep(Duration::from_secs(600));
                Ok(false)
            }
            _ => self.answer(&asked).write(stream, false).map(|()| true),
        }
    }

    fn remember(&self, head: Head) -> Asked {
        let path = head.start[1].trim_start_matches('/').to_owned();
        let call = path.split(['/', '?']).next().unwrap_or_default().to_owned();
        let mut all = lock(&self.asked);
        let before = all.iter().filter(|asked| asked.call == call).count();
        let line = format!("{} {}", head.start[0], head.start[1]);
        let asked = Asked { line, call, head, before, upload: None };
        all.push(asked.clone());
        asked
    }

    fn replace(&self, asked: &Asked) {
        let mut all = lock(&self.asked);
        if let Some(known) =
            all.iter_mut().find(|known| known.call == asked.call && known.before == asked.before)
        {
            *known = asked.clone();
        }
    }

    /// What a service that behaves answers.
    fn answer(self: &Arc<Self>, asked: &Asked) -> Answer {
        if asked.head.header("x-api-key") != Some(API_KEY) {
            return document(401, json!({ "error": "who are you" }));
        }
        let path = &asked.head.start[1];
        match (asked.head.start[0].as_str(), asked.call.as_str()) {
            ("GET", "registry_prefix") => match &self.habits.registry_prefix {
                Some(prefix) => document(200, json!({ "registry_prefix": prefix })),
                None => absent(),
            },
            ("GET", "image_exists") => {
                let image =
                    path.split("image=").nth(1).unwrap_or_default().replace("%3A", ":").replace("%2F", "/");
                let exists = lock(&self.builds)
                    .values()
                    .any(|build| matches!(build, Build::Done(_, names) if names.contains(&image)));
                let exists = exists || (self.habits.exists)(&image);
                document(200, json!({ "exists": exists, "image": null }))
            }
            ("POST", "build") => self.build(asked),
            ("GET", "build_status") => match (path.split_once("?build_id="), self.habits.status_by_path) {
                (Some((_, id)), false) => self.status(id, asked.before),
                (None, true) => self.status(path.rsplit('/').next().unwrap_or_default(), asked.before),
                _ => absent(),
            },
            ("GET", "build_logs") => match &self.habits.logs {
                Some(logs) => Answer::new(200).body(logs.as_str()),
                None => absent(),
            },
            _ => absent(),
        }
    }

    fn build(self: &Arc<Self>, asked: &Asked) -> Answer {
        let Some(upload) = asked.upload.clone() else {
            return document(400, json!({ "error": "neither JSON nor a form" }));
        };
        if self.habits.multipart_only && upload.is_json {
            return document(422, json!({ "detail": "a form is wanted" }));
        }
        if self.habits.synchronous {
            return match (self.habits.builder)(&upload) {
                Ok(image) => document(200, json!({ "image": image, "status": self.habits.ends[0] })),
                Err(error) => document(200, json!({ "status": self.habits.ends[1], "error": error })),
            };
        }
        let id = {
            let mut builds = lock(&self.builds);
            let id = format!("build-{}", builds.len() + 1);
            builds.insert(id.clone(), Build::Running);
            id
        };
        let (shared, building) = (self.clone(), id.clone());
        thread::spawn(move || {
            let end = match (shared.habits.builder)(&upload) {
                Ok(image) => Build::Done(image, upload.names()),
                Err(error) => Build::Failed(error),
            };
            lock(&shared.builds).insert(building, end);
        });
        document(202, json!({ "build_id": id }))
    }

    fn status(&self, id: &str, before: usize) -> Answer {
        let Some(build) = lock(&self.builds).get(id).cloned() else { return absent() };
        if let Some(word) = self.habits.words.get(before) {
            return document(200, json!({ "status": word }));
        }
        let [good, bad] = self.habits.ends;
        match build {
            Build::Running => {
                document(200, json!({ "status": self.habits.words.last().unwrap_or(&"RUNNING") }))
            }
            Build::Done(image, _) => document(200, json!({ "status": good, "image": image })),
            Build::Failed(error) => document(200, json!({ "status": bad, "error": error })),
        }
    }
}

/// An answer that is a document.
pub fn document(status: u16, value: serde_json::Value) -> Answer {
    Answer::new(status).header("Content-Type", "application/json").body(value.to_string())
}

fn absent() -> Answer {
    document(404, json!({ "error": "no such thing" }))
}

/// A thread that panicked while it held this has said why.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for RuntimeApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeApi").field("url", &self.url).finish()
    }
}

impl std::fmt::Debug for Habits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Habits").field("words", &self.words).finish()
    }
}
