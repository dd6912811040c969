//! How much may come out of an archive: a small one can unpack to more than any disk holds.

use std::io::{self, Read};

use crate::error::{Error, ErrorKind};

/// How much an archive or a layer may hold once its compression is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimit(Option<u64>);

impl Default for UnpackLimit {
    /// 100 GiB: far more than images hold, far less than a bomb does.
    fn default() -> Self {
        Self(Some(100 << 30))
    }
}

impl UnpackLimit {
    /// The setting that changes it, as errors name it.
    pub const SETTING: &str = "limits.unpack";

    /// A limit of so many bytes; 0 for none.
    pub fn of_bytes(bytes: u64) -> Self {
        Self((bytes > 0).then_some(bytes))
    }

    /// Reads on as long as the limit allows, then fails with an error of ours inside the I/O error
    /// (see [`super::recover`]): `Corrupt`, naming the limit and its setting. `shown` says in errors
    /// what is read, such as ``the layer `sha256:…` ``.
    pub fn enforce<R: Read>(self, reader: R, shown: impl Into<String>) -> Limited<R> {
        Limited { reader, left: self.0.unwrap_or(u64::MAX), limit: self, shown: shown.into() }
    }

    fn exceeded(self, shown: &str) -> Error {
        let message = format!("{shown} unpacks to more than {} bytes", self.0.unwrap_or(u64::MAX));
        Error::new(ErrorKind::Corrupt, message)
            .with_hint(format!("if it is to be trusted, raise the setting `{}`", Self::SETTING))
    }
}

/// A reader that gives no more than an [`UnpackLimit`] allows.
#[derive(Debug)]
pub struct Limited<R> {
    reader: R,
    left: u64,
    limit: UnpackLimit,
    shown: String,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(self.limit.exceeded(&self.shown))),
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::recover;

    fn read(limit: UnpackLimit, content: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        limit.enforce(content, "the layer `x`").read_to_end(&mut bytes).map(|_| bytes)
    }

    #[test]
    fn gives_what_is_allowed_and_not_a_byte_more() {
        assert_eq!(read(UnpackLimit::of_bytes(5), b"hello").expect("within"), b"hello");
        assert_eq!(read(UnpackLimit::of_bytes(0), b"hello").expect("no limit"), b"hello");
        let error = read(UnpackLimit::of_bytes(4), b"hello").expect_err("beyond");
        let error = recover(error, |error| panic!("not ours: {error}"));
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.to_string(), "the layer `x` unpacks to more than 4 bytes");
    }
}
