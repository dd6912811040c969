//! The management API of Together: credentials of its registry, snapshots, aliases. It takes only what the protocol
//! says, says why it does not take the rest, does what it is told, also wrong, and remembers every request.
//!
//! It keeps its snapshots in memory. The registry that its credentials are for is the caller's. What a request must look
//! like is in `together/request.rs`.

mod request;

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{self, Answer, Head};
/// The key that the service knows: users have one for both of Together's services.
pub use super::image_builder::API_KEY;
use super::runtime_api::{Reaction, document};
pub use request::{Asked, Call};

type Script = dyn Fn(&Asked) -> Reaction + Send + Sync;
type Expiry = dyn Fn(usize) -> Option<String> + Send + Sync;

/// A credential that the service gives out.
pub struct Issued {
    /// `HOST/PROJECT`.
    pub registry_url: String,
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
    /// When the first, second, … credential ends.
    pub expired_at: Box<Expiry>,
}

/// What the service is like when it behaves.
pub struct Habits {
    /// Asked about every request once it is there.
    pub script: Box<Script>,
    /// What it gives out; `None`: it has no registry.
    pub issued: Option<Issued>,
    /// Snapshots that exist from the beginning: each has the tag `n` with its number, the first is 1.
    pub snapshots: usize,
}

impl Default for Habits {
    fn default() -> Self {
        Self { script: Box::new(|_| Reaction::Normal), issued: None, snapshots: 0 }
    }
}

/// A listening service. Its threads end with the process.
#[derive(Clone)]
pub struct Together {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    habits: Habits,
    asked: Mutex<Vec<Asked>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they were made.
    snapshots: Vec<Value>,
    aliases: BTreeMap<String, String>,
    credentials: usize,
}

/// The id of the snapshot with this number, from 1.
pub fn id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

impl Together {
    /// Starts to listen on a loopback port.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn start(habits: Habits) -> io::Result<Self> {
        let mut state = State::default();
        for number in 1..=habits.snapshots {
            state.create(&json!({ "image": "r.example.com/p/a:1", "tags": { "n": number.to_string() } }));
        }
        let shared = Arc::new(Shared { habits, asked: Mutex::default(), state: Mutex::new(state) });
        let serving = shared.clone();
        let address = http::listen(move |head, reader, stream| serving.serve(head, reader, stream))?;
        Ok(Self { url: format!("http://{address}"), shared })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Every request so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// The first lines of all requests: `GET /v1/snapshots?limit=5`.
    pub fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    /// The requests of one call.
    pub fn calls(&self, call: Call) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.call == Some(call)).collect()
    }

    /// The snapshots that exist.
    pub fn snapshots(&self) -> Vec<Value> {
        lock(&self.shared.state).snapshots.clone()
    }

    /// What aliases point to.
    pub fn aliases(&self) -> BTreeMap<String, String> {
        lock(&self.shared.state).aliases.clone()
    }
}

impl Shared {
    fn serve(
        &self,
        head: Head,
        reader: &mut BufReader<TcpStream>,
        stream: &mut TcpStream,
    ) -> io::Result<bool> {
        let asked = {
            let body = request::body(&head, reader)?;
            let mut all = lock(&self.asked);
            let asked = Asked::read(head, body, &all);
            all.push(asked.clone());
            asked
        };
        match (self.habits.script)(&asked) {
            Reaction::Answer(answer) | Reaction::Early(answer) => answer.write(stream, false).map(|()| true),
            Reaction::CutAfter(_) => Ok(false),
            Reaction::CutWithoutAnswer => {
                self.answer(&asked);
                Ok(false)
            }
            Reaction::CutAnswerAfter(answer, bytes) => {
                let mut whole = Vec::new();
                answer.write(&mut whole, false)?;
                let kept = whole.len() - answer.body.len() + bytes;
                io::Write::write_all(stream, &whole[..kept])?;
                Ok(false)
            }
            Reaction::Silent | Reaction::Stall(_) => {
                thread::sleep(Duration::from_secs(600));
                Ok(false)
            }
            Reaction::Normal | Reaction::Slow(_) => self.answer(&asked).write(stream, false).map(|()| true),
        }
    }

    /// What a service that behaves answers.
    fn answer(&self, asked: &Asked) -> Answer {
        if asked.head.header("authorization") != Some(&format!("Bearer {API_KEY}")) {
            return refusal(401, "unauthorized", "who are you");
        }
        if let Some(wrong) = asked.wrong(API_KEY) {
            return refusal(400, "invalid_request", &wrong);
        }
        let mut state = lock(&self.state);
        let named = asked.name.as_deref().unwrap_or_default();
        match asked.call {
            Some(Call::Credential) => match &self.habits.issued {
                None => refusal(404, "not_found", "there is no registry"),
                Some(issued) => {
                    state.credentials += 1;
                    let expired_at = (issued.expired_at)(state.credentials);
                    document(
                        201,
                        json!({
                            "username": issued.username,
                            "password": issued.password,
                            "registry_url": issued.registry_url,
                            "expired_at": expired_at,
                        }),
                    )
                }
            },
            Some(Call::Create) => {
                document(201, state.create(asked.document.as_ref().unwrap_or(&Value::Null)))
            }
            Some(Call::List) => state.list(&asked.query),
            Some(Call::Batch) => {
                let found: Vec<Value> =
                    asked.query.iter().filter_map(|(_, id)| state.find(id).cloned()).collect();
                document(200, Value::Array(found))
            }
            Some(Call::Get) => found(state.find(named)),
            Some(Call::GetAlias) => {
                let id = state.aliases.get(named).cloned();
                found(id.and_then(|id| state.find(&id).cloned()).as_ref())
            }
            Some(Call::SetAlias) => {
                let alias = asked.document.as_ref().and_then(|document| document["alias"].as_str());
                match (state.find(named).is_some(), alias) {
                    (true, Some(alias)) => {
                        state.aliases.insert(alias.to_owned(), named.to_owned());
                        Answer::new(204)
                    }
                    _ => absent(),
                }
            }
            Some(Call::Aliases) => {
                let pointing = state.aliases.iter().filter(|(_, id)| *id == named);
                let entry = |(alias, id)| json!({ "snapshot_id": id, "alias": alias, "created_at": MOMENT });
                document(200, pointing.map(entry).collect())
            }
            Some(Call::RemoveAlias) => {
                state.aliases.remove(named);
                Answer::new(204)
            }
            Some(Call::Retire) => {
                let snapshot = state.snapshots.iter_mut().find(|snapshot| snapshot["id"] == named);
                if let Some(snapshot) = snapshot {
                    snapshot["retired_at"] = MOMENT.into();
                }
                found(state.find(named))
            }
            None => absent(),
        }
    }
}

/// When everything happens.
const MOMENT: &str = "2026-01-01T00:00:00.000Z";

impl State {
    fn create(&mut self, wanted: &Value) -> Value {
        let snapshot = json!({
            "id": id(self.snapshots.len() + 1),
            "organization_id": null,
            "project_id": "project-1",
            "byte_size": 12_345_678,
            "tags": wanted.get("tags").cloned().unwrap_or_else(|| json!({})),
            "ttl": wanted.get("ttl"),
            "memory": 2048,
            "created_at": MOMENT,
            "retired_at": null,
            "updated_at": MOMENT,
        });
        self.snapshots.push(snapshot.clone());
        snapshot
    }

    fn find(&self, id: &str) -> Option<&Value> {
        self.snapshots.iter().find(|snapshot| snapshot["id"] == id)
    }

    /// The cursor is the number of snapshots that came before.
    fn list(&self, query: &[(String, String)]) -> Answer {
        let one = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let number = |name: &str| one(name).and_then(|text| text.parse::<usize>().ok());
        let (from, limit) = (number("cursor").unwrap_or(0), number("limit").unwrap_or(20));
        let tags: Vec<(&str, &str)> = query
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("tags[")?.strip_suffix(']')?, value.as_str())))
            .collect();
        let wanted: Vec<&Value> = self
            .snapshots
            .iter()
            .filter(|snapshot| tags.iter().all(|(key, value)| snapshot["tags"][*key] == *value))
            .filter(|snapshot| one("exclude_retired") != Some("true") || snapshot["retired_at"].is_null())
            .collect();
        let page: Vec<&Value> = wanted.iter().skip(from).take(limit).copied().collect();
        let next = (from + page.len() < wanted.len()).then(|| (from + page.len()).to_string());
        document(200, json!({ "data": page, "next_cursor": next }))
    }
}

/// A no in the form of the service.
pub fn refusal(status: u16, code: &str, message: &str) -> Answer {
    document(status, json!({ "code": code, "message": message, "errors": [] }))
}

fn absent() -> Answer {
    refusal(404, "not_found", "no such snapshot")
}

fn found(snapshot: Option<&Value>) -> Answer {
    snapshot.map_or_else(absent, |snapshot| document(200, snapshot.clone()))
}

/// A thread that panicked while it held this has said why.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Together {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Together").field("url", &self.url).finish()
    }
}

impl std::fmt::Debug for Habits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Habits").field("snapshots", &self.snapshots).finish()
    }
}
