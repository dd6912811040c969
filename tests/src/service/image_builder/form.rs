//! The form of `POST /builds`, as a strict service reads it.

use std::collections::BTreeMap;
use std::io::Read as _;

use crate::service::Head;
use crate::service::runtime_api::upload::find;

/// What was submitted: a form that has passed every check.
#[derive(Debug, Clone, Default)]
pub struct Submission {
    /// The fields in the order in which they came, without the context.
    pub fields: Vec<(String, String)>,
    /// The archive: a gzip-compressed tar.
    pub archive: Vec<u8>,
    /// The whole was sent with its length.
    pub has_length: bool,
}

impl Submission {
    /// Reads a body; says what is wrong with it.
    pub(super) fn parse(head: &Head, body: &[u8]) -> Result<Self, String> {
        let content_type = head.header("content-type").unwrap_or_default();
        let boundary = content_type
            .strip_prefix("multipart/form-data; boundary=")
            .ok_or_else(|| format!("`{content_type}` is no form"))?;
        let mut submission = Self { has_length: head.length().is_some(), ..Self::default() };
        let delimiter = format!("\r\n--{boundary}");
        let mut rest = body.strip_prefix(&delimiter.as_bytes()[2..]).ok_or("no first boundary")?;
        while let Some(part) = rest.strip_prefix(b"\r\n") {
            let head_end = find(part, b"\r\n\r\n").ok_or("a part without an end of its head")?;
            let content = &part[head_end + 4..];
            let end = find(content, delimiter.as_bytes()).ok_or("a part without an end")?;
            let head = std::str::from_utf8(&part[..head_end]).map_err(|error| error.to_string())?;
            submission.take_part(head, &content[..end])?;
            rest = &content[end + delimiter.len()..];
        }
        if rest != b"--\r\n" {
            return Err("there is something after the form".to_owned());
        }
        submission.check()?;
        Ok(submission)
    }

    fn take_part(&mut self, head: &str, content: &[u8]) -> Result<(), String> {
        if !self.archive.is_empty() {
            return Err("the context is not the last part".to_owned());
        }
        if head
            == "Content-Disposition: form-data; name=\"context\"; filename=\"context.tar.gz\"\r\n\
                Content-Type: application/gzip"
        {
            self.archive = content.to_vec();
            return Ok(());
        }
        let name = head
            .strip_prefix("Content-Disposition: form-data; name=\"")
            .and_then(|rest| rest.strip_suffix('"'))
            .ok_or_else(|| format!("a part with the head {head:?}"))?;
        let value = String::from_utf8(content.to_vec()).map_err(|_| format!("`{name}` is no text"))?;
        self.fields.push((name.to_owned(), value));
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| name.as_str()).collect();
        let all = ["image_name", "dockerfile", "build_args", "nydus_convert", "cache_key"];
        if names != all[..4] && names != all {
            return Err(format!("the fields are {names:?}"));
        }
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        let image = self.image_name();
        let (name, tag) = image.split_once(':').unwrap_or((image, "latest"));
        if name.is_empty() || !name.chars().all(is_name) || tag.is_empty() || !tag.chars().all(is_name) {
            return Err(format!("`{image}` is no name of an image"));
        }
        if let Some(key) = self.field("cache_key")
            && (key.is_empty() || key.len() > 255 || !key.chars().all(is_name))
        {
            return Err(format!("`{key}` is no cache key"));
        }
        if !matches!(self.field("nydus_convert"), Some("true" | "false")) {
            return Err("`nydus_convert` is neither `true` nor `false`".to_owned());
        }
        let build_args = self.field("build_args").unwrap_or_default();
        if serde_json::from_str::<BTreeMap<String, String>>(build_args).is_err() {
            return Err(format!("`{build_args}` is no object of texts"));
        }
        if !self.archive.starts_with(&[0x1f, 0x8b]) {
            return Err("the context is no gzip".to_owned());
        }
        let dockerfile = self.field("dockerfile").unwrap_or_default();
        match self.text(dockerfile) {
            Some(_) => Ok(()),
            None => Err(format!("there is no `{dockerfile}` in the context")),
        }
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What the image shall be called.
    pub fn image_name(&self) -> &str {
        self.field("image_name").unwrap_or_default()
    }

    /// The build arguments.
    pub fn build_args(&self) -> BTreeMap<String, String> {
        serde_json::from_str(self.field("build_args").unwrap_or_default()).unwrap_or_default()
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
