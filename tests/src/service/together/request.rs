//! Requests to the management API: which call one is, and whether it is as the protocol says.

use std::io::{self, Read};

use serde_json::Value;

use crate::service::Head;

/// The longest document that is taken.
const LIMIT_BYTES: u64 = 1 << 20;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `POST /v1/container-registries/default/credentials`
    Credential,
    /// `POST /v1/snapshots`
    Create,
    /// `GET /v1/snapshots`
    List,
    /// `GET /v1/snapshots/batch`
    Batch,
    /// `GET /v1/snapshots/ID`
    Get,
    /// `GET /v1/snapshots/@ALIAS`
    GetAlias,
    /// `POST /v1/snapshots/ID/aliases`
    SetAlias,
    /// `GET /v1/snapshots/ID/aliases`
    Aliases,
    /// `DELETE /v1/snapshot-aliases/ALIAS`
    RemoveAlias,
    /// `POST /v1/snapshots/ID/retire`
    Retire,
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `POST /v1/snapshots`, with the query.
    pub line: String,
    /// Which call it is; `None` if it is none.
    pub call: Option<Call>,
    /// The id or the alias in the path, decoded.
    pub name: Option<String>,
    /// The query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub head: Head,
    /// The body.
    pub body: Vec<u8>,
    /// The body as a document, if it is one.
    pub document: Option<Value>,
    /// How many requests of the same call came before.
    pub before: usize,
}

/// Reads what follows a head.
pub(super) fn body(head: &Head, reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    reader.take(head.length().unwrap_or(0).min(LIMIT_BYTES)).read_to_end(&mut body)?;
    Ok(body)
}

impl Asked {
    pub(super) fn read(head: Head, body: Vec<u8>, earlier: &[Self]) -> Self {
        let target = head.start[1].clone();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (call, name) = call(&head.start[0], path).unzip();
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self {
            line: format!("{} {target}", head.start[0]),
            before: earlier.iter().filter(|asked| asked.call == call).count(),
            name: name.flatten(),
            query: query.map(|(key, value)| (decoded(key), decoded(value))).collect(),
            document: serde_json::from_slice(&body).ok(),
            call,
            head,
            body,
        }
    }

    /// What is not as the protocol says, if something is not.
    pub(super) fn wrong(&self, key: &str) -> Option<String> {
        let others = self.head.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        if others.into_iter().any(|(_, value)| value.contains(key))
            || self.line.contains(key)
            || String::from_utf8_lossy(&self.body).contains(key)
        {
            return Some("the key is where it does not belong".to_owned());
        }
        if self.line.contains(['+', '[', ']', '|', '"', '<']) {
            return Some("the address is not encoded".to_owned());
        }
        match self.call? {
            Call::Create => self
                .wrong_fields(&["image", "architecture", "ttl", "tags"])
                .or_else(|| wrong_snapshot(self.document.as_ref()?)),
            Call::SetAlias => self.wrong_fields(&["alias"]).or_else(|| {
                let alias = &self.document.as_ref()?["alias"];
                (!alias.is_string()).then(|| "alias: no text".to_owned())
            }),
            _ if !self.body.is_empty() => Some("there is a body".to_owned()),
            Call::List => self.query.iter().find_map(wrong_in_list),
            Call::Batch => wrong_batch(&self.query),
            _ => (!self.query.is_empty()).then(|| "there is a query".to_owned()),
        }
    }

    fn wrong_fields(&self, known: &[&str]) -> Option<String> {
        if self.head.header("content-type") != Some("application/json") {
            return Some("the body is not called JSON".to_owned());
        }
        let Some(Value::Object(fields)) = &self.document else { return Some("no document".to_owned()) };
        let unknown = fields.keys().find(|name| !known.contains(&name.as_str()));
        unknown.map(|name| format!("{name}: unknown"))
    }
}

fn wrong_snapshot(document: &Value) -> Option<String> {
    let image = document["image"].as_str().unwrap_or_default();
    if image.is_empty() || image.contains("://") || image.contains('<') {
        return Some("image: no reference".to_owned());
    }
    if document.get("architecture").is_some_and(|value| value != "amd64" && value != "arm64") {
        return Some("architecture: unknown".to_owned());
    }
    if document.get("ttl").is_some_and(|ttl| ttl.as_u64().is_none_or(|ttl| ttl == 0)) {
        return Some("ttl: no positive number".to_owned());
    }
    let tags = document.get("tags")?.as_object();
    let texts = tags.is_some_and(|tags| tags.values().all(Value::is_string));
    (!texts).then(|| "tags: no texts".to_owned())
}

fn wrong_in_list((key, value): &(String, String)) -> Option<String> {
    let right = match key.as_str() {
        "limit" => value.parse::<u64>().is_ok_and(|limit| (1..=100).contains(&limit)),
        "cursor" => !value.is_empty(),
        "exclude_retired" => value == "true" || value == "false",
        key => key.starts_with("tags[") && key.ends_with(']'),
    };
    (!right).then(|| format!("{key}: `{value}`"))
}

fn wrong_batch(query: &[(String, String)]) -> Option<String> {
    let mut ids: Vec<&str> = query.iter().map(|(_, id)| id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let right = query.iter().all(|(key, _)| key == "ids[]") && (1..=100).contains(&query.len());
    (!right || ids.len() != query.len()).then(|| "ids[]: 1 to 100, each once".to_owned())
}

/// The call, and the id or alias that it is about.
fn call(method: &str, path: &str) -> Option<(Call, Option<String>)> {
    let parts: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
    Some(match (method, &parts[..]) {
        ("POST", ["container-registries", "default", "credentials"]) => (Call::Credential, None),
        ("POST", ["snapshots"]) => (Call::Create, None),
        ("GET", ["snapshots"]) => (Call::List, None),
        ("GET", ["snapshots", "batch"]) => (Call::Batch, None),
        ("GET", ["snapshots", named]) => match named.strip_prefix('@') {
            Some(alias) => (Call::GetAlias, Some(decoded(alias))),
            None => (Call::Get, Some(decoded(named))),
        },
        ("POST", ["snapshots", id, "aliases"]) => (Call::SetAlias, Some(decoded(id))),
        ("GET", ["snapshots", id, "aliases"]) => (Call::Aliases, Some(decoded(id))),
        ("POST", ["snapshots", id, "retire"]) => (Call::Retire, Some(decoded(id))),
        ("DELETE", ["snapshot-aliases", alias]) => (Call::RemoveAlias, Some(decoded(alias))),
        _ => return None,
    })
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        let digits: Vec<u8> = if byte == b'%' { rest.by_ref().take(2).collect() } else { Vec::new() };
        let digits = String::from_utf8(digits).unwrap_or_default();
        match (byte, u8::from_str_radix(&digits, 16)) {
            (b'%', Ok(byte)) => bytes.push(byte),
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
