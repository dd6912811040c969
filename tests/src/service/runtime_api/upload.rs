//! Uploads as a strict service reads them: JSON, or a multipart form; in one piece or in chunks.

use std::io::{self, BufRead, Read};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::service::Head;

/// The pieces that a slow reader takes.
const PIECE_BYTES: usize = 64 << 10;

/// What was sent to be built.
#[derive(Debug, Clone, Default)]
pub struct Upload {
    /// It was JSON, not a form.
    pub is_json: bool,
    /// The name that the image shall have.
    pub target: String,
    /// Its further names.
    pub tags: Vec<String>,
    /// The archive: a gzip-compressed tar.
    pub archive: Vec<u8>,
    /// It came as bytes, not as base64 text.
    pub is_raw: bool,
    /// The fields of a form, in the order in which they came.
    pub fields: Vec<Field>,
}

/// What a form says of one field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The name of the file, where it is one.
    pub file_name: Option<String>,
    /// Its type, where one is said.
    pub content_type: Option<String>,
}

impl Upload {
    /// Reads a body; `None` if it is neither form.
    pub(super) fn parse(head: &Head, body: &[u8]) -> Option<Self> {
        let content_type = head.header("content-type")?;
        match content_type.strip_prefix("multipart/form-data; boundary=") {
            Some(boundary) => Self::parse_form(boundary, body),
            None if content_type == "application/json" => Self::parse_json(body),
            None => None,
        }
    }

    fn parse_json(body: &[u8]) -> Option<Self> {
        let document: serde_json::Value = serde_json::from_slice(body).ok()?;
        let tags = document.get("tags").and_then(|tags| tags.as_array()).into_iter().flatten();
        let mut upload = Self {
            is_json: true,
            target: document["target_image"].as_str()?.to_owned(),
            tags: tags.filter_map(|tag| tag.as_str().map(str::to_owned)).collect(),
            ..Self::default()
        };
        upload.take_archive(document["context"].as_str()?.as_bytes())?;
        Some(upload)
    }

    /// By the grammar of RFC 2046, without preamble.
    fn parse_form(boundary: &str, body: &[u8]) -> Option<Self> {
        let mut upload = Self::default();
        let delimiter = format!("\r\n--{boundary}");
        let mut rest = body.strip_prefix(&delimiter.as_bytes()[2..])?;
        while let Some(part) = rest.strip_prefix(b"\r\n") {
            let head_end = find(part, b"\r\n\r\n")?;
            let content = &part[head_end + 4..];
            let end = find(content, delimiter.as_bytes())?;
            upload.take_part(std::str::from_utf8(&part[..head_end]).ok()?, &content[..end])?;
            rest = &content[end + delimiter.len()..];
        }
        (rest == b"--\r\n" && !upload.target.is_empty()).then_some(upload)
    }

    fn take_part(&mut self, head: &str, content: &[u8]) -> Option<()> {
        let quoted = |name: &str| {
            let (_, rest) = head.split_once(&format!("; {name}=\""))?;
            rest.split('"').next().map(str::to_owned)
        };
        let content_type =
            head.lines().find_map(|line| line.strip_prefix("Content-Type: ")).map(str::to_owned);
        let field = Field { name: quoted("name")?, file_name: quoted("filename"), content_type };
        let text = || String::from_utf8(content.to_vec()).ok();
        match field.name.as_str() {
            "context" => self.take_archive(content)?,
            "target_image" => self.target = text()?,
            name if name == "tags" || name.starts_with("tags_") => self.tags.push(text()?),
            _ => return None,
        }
        self.fields.push(field);
        Some(())
    }

    /// Base64 text of a gzip stream begins with `H4sI`, the stream itself with 1f 8b.
    fn take_archive(&mut self, content: &[u8]) -> Option<()> {
        self.is_raw = content.starts_with(&[0x1f, 0x8b]);
        self.archive = if self.is_raw { content.to_vec() } else { STANDARD.decode(content).ok()? };
        self.archive.starts_with(&[0x1f, 0x8b]).then_some(())
    }

    /// All names that the image shall have.
    pub fn names(&self) -> Vec<String> {
        std::iter::once(&self.target).chain(&self.tags).cloned().collect()
    }

    /// The members of the archive: path, mode, size.
    pub fn members(&self) -> Vec<(String, u32, u64)> {
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(self.archive.as_slice()));
        let entries = tar.entries().into_iter().flatten().flatten();
        let described = entries.map(|entry| {
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            (path, entry.header().mode().unwrap_or(0), entry.size())
        });
        described.collect()
    }

    /// The content of one member, as text.
    pub fn text(&self, path: &str) -> Option<String> {
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(self.archive.as_slice()));
        for mut entry in tar.entries().ok()?.flatten() {
            if entry.path_bytes().as_ref() == path.as_bytes() {
                let mut text = String::new();
                entry.read_to_string(&mut text).ok()?;
                return Some(text);
            }
        }
        None
    }
}

pub(in crate::service) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    // The first byte is rare: content is base64 text or compressed.
    let mut from = 0;
    while let Some(at) = haystack.get(from..)?.iter().position(|byte| *byte == needle[0]) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// Reads a whole body, with a pause after each piece.
pub(in crate::service) fn read(head: &Head, from: &mut impl BufRead, pause: Duration) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut take = |reader: &mut dyn Read, mut left: u64| -> io::Result<()> {
        while left > 0 {
            let before = body.len();
            let piece = left.min(PIECE_BYTES as u64);
            reader.take(piece).read_to_end(&mut body)?;
            let read = (body.len() - before) as u64;
            if read < piece {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= read;
            if !pause.is_zero() {
                thread::sleep(pause);
            }
        }
        Ok(())
    };
    if let Some(length) = head.length() {
        take(from, length)?;
        return Ok(body);
    }
    if head.header("transfer-encoding") != Some("chunked") {
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
        take(from, size)?;
        line.clear();
        from.read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Takes so many bytes of a body, framing and all.
pub(in crate::service) fn take(head: &Head, from: &mut impl Read, limit: u64) -> io::Result<()> {
    let limit = head.length().map_or(limit, |length| length.min(limit));
    io::copy(&mut from.take(limit), &mut io::sink()).map(drop)
}
