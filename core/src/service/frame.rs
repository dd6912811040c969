//! What stands around the content of an upload.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;

use crate::digest::Digest;

/// Everything of an upload but its content, which goes between the two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type of the whole.
    pub content_type: String,
    /// What comes before the content.
    pub before: Bytes,
    /// What comes after it.
    pub after: Bytes,
}

impl Frame {
    /// The whole body, with this in the place of the content.
    pub fn around(&self, content: &str) -> String {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        format!("{}{content}{}", text(&self.before), text(&self.after))
    }

    /// The size of everything but the content.
    pub fn size_bytes(&self) -> u64 {
        (self.before.len() + self.after.len()) as u64
    }
}

/// A multipart form that is being written, part by part, with one file in it: RFC 7578.
#[derive(Clone, Debug)]
pub struct Form {
    boundary: String,
    parts: [String; 2],
    has_file: bool,
}

impl Form {
    /// Begins one. The boundary must stand nowhere in what is sent: [`boundary`] makes one.
    pub fn new(boundary: impl Into<String>) -> Self {
        Self { boundary: boundary.into(), parts: Default::default(), has_file: false }
    }

    /// Adds a field.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        let boundary = &self.boundary;
        let text =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        self.parts[usize::from(self.has_file)] += &text;
        self
    }

    /// Adds the file, whose content is that of the upload. There is one.
    #[must_use]
    pub fn file(mut self, name: &str, file_name: &str, content_type: &str) -> Self {
        let boundary = &self.boundary;
        self.parts[0] += &format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\n\
             Content-Type: {content_type}\r\n\r\n"
        );
        self.parts[1] = "\r\n".to_owned();
        self.has_file = true;
        self
    }

    /// Ends it.
    pub fn finish(self) -> Frame {
        let Self { boundary, parts: [before, after], .. } = self;
        Frame {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            before: before.into(),
            after: format!("{after}--{boundary}--\r\n").into(),
        }
    }
}

/// Text that is in no archive: 32 digits that nobody can know before.
pub fn boundary() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let seed = format!("{:?} {} {count}", SystemTime::now(), std::process::id());
    format!("windlass-{}", &Digest::of(seed).hex()[..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_on_both_sides_of_the_file() {
        let frame = Form::new("XX").field("a", "1").file("f", "n.tar", "x/y").field("b", "2").finish();
        assert_eq!(
            frame.around("CONTENT"),
            "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
             --XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"n.tar\"\r\nContent-Type: x/y\r\n\r\n\
             CONTENT\r\n\
             --XX\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n2\r\n--XX--\r\n"
        );
        assert_eq!(frame.size_bytes() as usize + 7, frame.around("CONTENT").len());
    }

    #[test]
    fn no_boundary_is_used_twice() {
        assert_ne!(boundary(), boundary());
    }
}
