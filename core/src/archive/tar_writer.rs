//! The one tar writer: POSIX ustar, with PAX records only where ustar cannot hold a value.
//!
//! The bytes depend on the entries alone: no time of day, no user names, no padding of the whole
//! archive to a record size. Names are bytes and stay as they are.
//!
//! Format: POSIX.1-2001 `pax`; extended attributes as `SCHILY.xattr.` records, as in layers of
//! the OCI image-spec (`layer.md`).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use tar::{EntryType, Header};

const BLOCK: usize = 512;
const COPY_BUFFER: usize = 128 << 10;
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
/// The largest numbers that 7 and 11 octal digits hold.
const LIMIT_7_DIGITS: u64 = 0o777_7777;
const LIMIT_11_DIGITS: u64 = 0o777_7777_7777;

/// One member of a tar archive, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarEntry {
    /// Its name: bytes, `/` between the parts, none at the end (the writer marks directories).
    pub path: Vec<u8>,
    /// What it is.
    pub kind: TarKind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// The number of its owner.
    pub uid: u64,
    /// The number of its group.
    pub gid: u64,
    /// Modification time, whole seconds since 1970; may be negative.
    pub mtime: i64,
    /// Extended attributes by name (`security.capability`).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a member of a tar archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarKind {
    /// A directory.
    Directory,
    /// A regular file; its content follows.
    File {
        /// The size of its content.
        size_bytes: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as it stands in the link.
        target: Vec<u8>,
    },
    /// A further name of an earlier member.
    HardLink {
        /// The name of that member.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

impl TarEntry {
    /// An entry of the super-user at the default epoch, without extended attributes.
    pub fn new(path: impl Into<Vec<u8>>, kind: TarKind, mode: u32) -> Self {
        let (path, mtime, xattrs) = (path.into(), super::DEFAULT_EPOCH, BTreeMap::new());
        Self { path, kind, mode, uid: 0, gid: 0, mtime, xattrs }
    }

    /// The size of the content that follows in the archive; 0 for all but files.
    pub fn size_bytes(&self) -> u64 {
        match self.kind {
            TarKind::File { size_bytes } => size_bytes,
            _ => 0,
        }
    }
}

/// Writes a tar archive.
#[derive(Debug)]
pub struct TarWriter<W: Write> {
    inner: W,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive.
    pub fn new(inner: W) -> Self {
        Self { inner, buffer: Vec::new() }
    }

    /// Appends one member. `content` must give exactly the announced size; it is not read for
    /// anything but files.
    ///
    /// # Errors
    /// Those of reading and writing; `UnexpectedEof` if the content is shorter than announced,
    /// `InvalidData` if it is longer; `InvalidInput` if a name or attribute cannot be stored.
    /// After an error the archive is unusable.
    pub fn append(&mut self, entry: &TarEntry, content: &mut dyn Read) -> io::Result<()> {
        self.append_header(entry)?;
        let size = entry.size_bytes();
        if matches!(entry.kind, TarKind::File { .. }) {
            self.copy(content, size, &entry.path)?;
        }
        self.pad(size)
    }

    /// Appends a member that has no content, or one whose content is at hand.
    ///
    /// # Errors
    /// As [`TarWriter::append`].
    pub fn append_bytes(&mut self, entry: &TarEntry, content: &[u8]) -> io::Result<()> {
        if content.len() as u64 != entry.size_bytes() {
            return Err(size_changed(&entry.path, io::ErrorKind::InvalidData));
        }
        self.append_header(entry)?;
        self.inner.write_all(content)?;
        self.pad(content.len() as u64)
    }

    /// Gives the writer below; bytes written to it directly must be whole members.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Ends the archive with its two empty blocks and gives the writer back, not flushed.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&[0; 2 * BLOCK])?;
        Ok(self.inner)
    }

    fn append_header(&mut self, entry: &TarEntry) -> io::Result<()> {
        let (header, records) = ustar_header(entry)?;
        if !records.is_empty() {
            let content = encode_records(&records);
            self.inner.write_all(pax_header(&entry.path, content.len() as u64).as_bytes())?;
            self.inner.write_all(&content)?;
            self.pad(content.len() as u64)?;
        }
        self.inner.write_all(header.as_bytes())
    }

    fn copy(&mut self, content: &mut dyn Read, size: u64, path: &[u8]) -> io::Result<()> {
        self.buffer.resize(COPY_BUFFER, 0);
        let mut left = size;
        while left > 0 {
            let room = usize::try_from(left).map_or(COPY_BUFFER, |left| left.min(COPY_BUFFER));
            let read = read_some(content, &mut self.buffer[..room])?;
            if read == 0 {
                return Err(size_changed(path, io::ErrorKind::UnexpectedEof));
            }
            self.inner.write_all(&self.buffer[..read])?;
            left -= read as u64;
        }
        // One read more: it must meet the end, and lets a checking reader make its last check.
        match read_some(content, &mut self.buffer[..1])? {
            0 => Ok(()),
            _ => Err(size_changed(path, io::ErrorKind::InvalidData)),
        }
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = (size % BLOCK as u64) as usize;
        if rest > 0 { self.inner.write_all(&[0; BLOCK][rest..]) } else { Ok(()) }
    }
}

fn read_some(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match content.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn size_changed(path: &[u8], kind: io::ErrorKind) -> io::Error {
    let comparison = if kind == io::ErrorKind::UnexpectedEof { "shorter" } else { "longer" };
    let path = String::from_utf8_lossy(path);
    io::Error::new(kind, format!("the content of `{path}` is {comparison} than announced"))
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// The ustar header of an entry, and the records for what it cannot hold.
fn ustar_header(entry: &TarEntry) -> io::Result<(Header, Records)> {
    let mut header = Header::new_ustar();
    let mut records = Records::new();
    header.set_entry_type(entry_type(&entry.kind));
    header.set_mode(entry.mode);
    let mut number = |key: &str, value: u64, limit: u64| {
        if value <= limit {
            return value;
        }
        records.insert(key.into(), value.to_string().into());
        0
    };
    header.set_uid(number("uid", entry.uid, LIMIT_7_DIGITS));
    header.set_gid(number("gid", entry.gid, LIMIT_7_DIGITS));
    header.set_size(number("size", entry.size_bytes(), LIMIT_11_DIGITS));
    match u64::try_from(entry.mtime) {
        Ok(mtime) => header.set_mtime(number("mtime", mtime, LIMIT_11_DIGITS)),
        Err(_) => {
            records.insert(b"mtime".to_vec(), entry.mtime.to_string().into());
            header.set_mtime(0);
        }
    }
    set_path(&mut header, entry, &mut records)?;
    set_target(&mut header, &entry.kind, &mut records)?;
    for (name, value) in &entry.xattrs {
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
            let name = String::from_utf8_lossy(name);
            return Err(invalid(format!(
                "the extended attribute `{name}` cannot be stored in a tar archive"
            )));
        }
        records.insert([XATTR_PREFIX, name].concat(), value.clone());
    }
    let binary = |key: &str| records.get(key.as_bytes()).is_some_and(|value| str::from_utf8(value).is_err());
    if binary("path") || binary("linkpath") {
        // Tells readers that convert names (GNU tar, Python) to leave the bytes alone.
        records.insert(b"hdrcharset".to_vec(), b"BINARY".to_vec());
    }
    header.set_cksum();
    Ok((header, records))
}

fn entry_type(kind: &TarKind) -> EntryType {
    match kind {
        TarKind::Directory => EntryType::Directory,
        TarKind::File { .. } => EntryType::Regular,
        TarKind::Symlink { .. } => EntryType::Symlink,
        TarKind::HardLink { .. } => EntryType::Link,
        TarKind::CharDevice { .. } => EntryType::Char,
        TarKind::BlockDevice { .. } => EntryType::Block,
        TarKind::Fifo => EntryType::Fifo,
    }
}

fn set_path(header: &mut Header, entry: &TarEntry, records: &mut Records) -> io::Result<()> {
    let mut path = entry.path.clone();
    if entry.kind == TarKind::Directory {
        if path.is_empty() {
            path.push(b'.');
        }
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
    }
    if path.is_empty() || path.contains(&0) {
        let path = String::from_utf8_lossy(&path);
        return Err(invalid(format!("the name `{path}` cannot be stored in a tar archive")));
    }
    let split = split_path(&path);
    if split.is_none() || !path.is_ascii() {
        records.insert(b"path".to_vec(), path.clone());
    }
    let (prefix, name) = split.unwrap_or((&[], &path[..path.len().min(100)]));
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.name[..name.len()].copy_from_slice(name);
        ustar.prefix[..prefix.len()].copy_from_slice(prefix);
    }
    Ok(())
}

/// Splits a path into the prefix (at most 155 bytes) and the name (at most 100) of ustar.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((&[], path));
    }
    let earliest = path.len() - 101;
    // A slash at the very end belongs to the name of a directory and cannot be the split.
    let slash = (earliest.max(1)..path.len() - 1).find(|at| path[*at] == b'/')?;
    (slash <= 155).then(|| (&path[..slash], &path[slash + 1..]))
}

fn set_target(header: &mut Header, kind: &TarKind, records: &mut Records) -> io::Result<()> {
    let Some(ustar) = header.as_ustar_mut() else { return Ok(()) };
    match kind {
        TarKind::Symlink { target } | TarKind::HardLink { target } => {
            if target.contains(&0) {
                return Err(invalid(
                    "a link target with a zero byte cannot be stored in a tar archive".into(),
                ));
            }
            if target.len() > 100 || !target.is_ascii() {
                records.insert(b"linkpath".to_vec(), target.clone());
            }
            let held = &target[..target.len().min(100)];
            ustar.linkname[..held.len()].copy_from_slice(held);
        }
        TarKind::CharDevice { major, minor } | TarKind::BlockDevice { major, minor } => {
            if u64::from(*major.max(minor)) > LIMIT_7_DIGITS {
                return Err(invalid(format!(
                    "the device number {major}:{minor} cannot be stored in a tar archive"
                )));
            }
            ustar.set_device_major(*major);
            ustar.set_device_minor(*minor);
        }
        TarKind::Directory | TarKind::File { .. } | TarKind::Fifo => {}
    }
    Ok(())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// The header of the member that holds the records of the next one.
fn pax_header(path: &[u8], size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(0);
    let base = path.split(|b| *b == b'/').rfind(|part| !part.is_empty()).unwrap_or_default();
    let name: Vec<u8> = b"PaxHeaders.0/".iter().chain(base).copied().filter(u8::is_ascii).take(100).collect();
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.name[..name.len()].copy_from_slice(&name);
    }
    header.set_cksum();
    header
}

/// `LENGTH key=value\n` for each record; the length counts itself.
fn encode_records(records: &Records) -> Vec<u8> {
    let mut content = Vec::new();
    // First, because it says how to read the others.
    let charset = records.get_key_value(&b"hdrcharset"[..]);
    let others = records.iter().filter(|(key, _)| key.as_slice() != b"hdrcharset");
    for (key, value) in charset.into_iter().chain(others) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + rest.to_string().len();
        if rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        content.extend_from_slice(length.to_string().as_bytes());
        content.push(b' ');
        content.extend_from_slice(key);
        content.push(b'=');
        content.extend_from_slice(value);
        content.push(b'\n');
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::unpack::TarReader;
    use crate::digest::Digest;

    fn write(entries: &[(TarEntry, &[u8])]) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        for (entry, content) in entries {
            tar.append(entry, &mut &content[..]).expect("can be written");
        }
        tar.finish().expect("can be written")
    }

    fn file(path: impl Into<Vec<u8>>, size_bytes: u64) -> TarEntry {
        TarEntry::new(path, TarKind::File { size_bytes }, 0o644)
    }

    fn round_trip(entry: &TarEntry, content: &[u8]) -> TarEntry {
        let bytes = write(&[(entry.clone(), content)]);
        let mut reader = TarReader::new(bytes.as_slice());
        let mut member = reader.next_member().expect("readable").expect("has a member");
        let mut read = Vec::new();
        member.read_to_end(&mut read).expect("readable");
        assert_eq!(read, content);
        let entry = member.entry.clone();
        assert!(reader.next_member().expect("readable").is_none());
        entry
    }

    #[test]
    fn the_bytes_never_change() {
        let target = b"../a".to_vec();
        let bytes = write(&[
            (TarEntry::new("dir", TarKind::Directory, 0o755), b""),
            (file("dir/a", 5), b"hello"),
            (TarEntry::new("dir/link", TarKind::Symlink { target }, 0o777), b""),
            (file("long/".repeat(60) + "x", 0), b""),
            (file("é", 0), b""),
        ]);
        assert_eq!(bytes.len(), 12 * 512);
        assert_eq!(
            Digest::of(&bytes).hex(),
            "c8e0dd7cd4c0b639829809afefbc9c81191dfd417fab8cf7dc1bce0347a16c4c"
        );
    }

    #[test]
    fn everything_comes_back() {
        let mut entries = vec![
            TarEntry::new("", TarKind::Directory, 0o755),
            TarEntry::new("d".repeat(99), TarKind::Directory, 0o1777),
            TarEntry::new("d".repeat(100), TarKind::Directory, 0o755),
            TarEntry::new("c", TarKind::CharDevice { major: 1, minor: 3 }, 0o666),
            TarEntry::new("b", TarKind::BlockDevice { major: 259, minor: 70_000 }, 0o660),
            TarEntry::new("p", TarKind::Fifo, 0o600),
            TarEntry::new("h", TarKind::HardLink { target: b"t".repeat(150) }, 0o4755),
            TarEntry::new("s", TarKind::Symlink { target: b"\xff/../..".to_vec() }, 0o777),
        ];
        for length in [1, 99, 100, 101, 155, 156, 255, 256, 257, 4096] {
            entries.push(file("n".repeat(length), 0));
            entries.push(file("12345678/".repeat(length).as_bytes()[..length].to_vec(), 0));
        }
        entries.retain(|entry| !entry.path.ends_with(b"/"));
        for path in [&b"\xff\xfe"[..], b"\xe4/x", "ünï".as_bytes(), b"a b\nc=d", b"-"] {
            entries.push(file(path, 0));
        }
        for mtime in [-1, -5_000_000_000, 0, 1 << 33, (1 << 33) - 1, i64::MAX, i64::MIN] {
            entries.push(TarEntry { mtime, ..file("t", 0) });
        }
        for id in [0, 65_534, LIMIT_7_DIGITS, LIMIT_7_DIGITS + 1, u64::from(u32::MAX)] {
            entries.push(TarEntry { uid: id, gid: id, ..file("o", 0) });
        }
        let xattrs =
            [(b"security.capability".to_vec(), b"\x01\0\n=\xff".to_vec()), (b"user.empty".to_vec(), vec![])];
        entries.push(TarEntry { xattrs: xattrs.into(), ..file("x", 0) });
        for entry in entries {
            assert_eq!(round_trip(&entry, b""), entry);
        }
        round_trip(&file("f", 513), &[7; 513]);
        round_trip(&file("f", 300_000), &[7; 300_000]);
    }

    #[test]
    fn sizes_beyond_eight_gigabytes_are_records() {
        for (size, recorded) in [(LIMIT_11_DIGITS, false), (LIMIT_11_DIGITS + 1, true)] {
            let mut tar = TarWriter::new(Vec::new());
            tar.append_header(&file("big", size)).expect("can be written");
            let text = String::from_utf8_lossy(tar.get_mut()).into_owned();
            assert_eq!(text.contains("19 size=8589934592\n"), recorded);
            let mut reader = TarReader::new(tar.get_mut().as_slice());
            let member = reader.next_member().expect("readable").expect("has a member");
            assert_eq!(member.entry.size_bytes(), size);
        }
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in 1..1100 {
            let records = Records::from([(b"path".to_vec(), b"x".repeat(length))]);
            let encoded = encode_records(&records);
            assert!(encoded.starts_with(format!("{} path=", encoded.len()).as_bytes()), "{length}");
        }
    }

    #[test]
    fn names_that_are_no_text_say_so() {
        let text = |path: &[u8]| String::from_utf8_lossy(&write(&[(file(path, 0), b"")])).into_owned();
        assert!(text(b"\xff").contains("21 hdrcharset=BINARY\n9 path=\u{fffd}\n"));
        assert!(!text("é".as_bytes()).contains("hdrcharset"));
        assert!(!text(b"plain").contains("path="));
    }

    #[test]
    fn content_must_have_the_announced_size() {
        let mut tar = TarWriter::new(io::sink());
        let error = |content: &[u8], tar: &mut TarWriter<_>| {
            tar.append(&file("a", 3), &mut &content[..]).expect_err("wrong size").kind()
        };
        assert_eq!(error(b"ab", &mut tar), io::ErrorKind::UnexpectedEof);
        assert_eq!(error(b"abcd", &mut tar), io::ErrorKind::InvalidData);
    }

    #[test]
    fn refuses_what_cannot_be_stored() {
        let mut tar = TarWriter::new(io::sink());
        let xattrs = BTreeMap::from([(b"user.a=b".to_vec(), vec![])]);
        let target = b"a\0b".to_vec();
        for entry in [
            file("", 0),
            file("a\0b", 0),
            TarEntry::new("l", TarKind::Symlink { target }, 0o777),
            TarEntry { xattrs, ..file("x", 0) },
        ] {
            let error = tar.append(&entry, &mut io::empty()).expect_err("cannot be stored");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{entry:?}");
        }
    }
}
