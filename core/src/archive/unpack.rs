//! Reading tar archives safely: whatever a name says, it stays inside the root.
//!
//! Understands ustar, PAX and GNU archives. In a name, `..` at the root stays at the root, as it
//! does for `docker`; what cannot be read faithfully (GNU sparse members) is refused. Symbolic
//! links come as they are: who follows them does so inside the root.

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::{EntryType, Header};

use super::{TarEntry, TarKind};
use crate::Result;
use crate::context::ContextPath;
use crate::error::{Error, ErrorKind};

const BLOCK: usize = 512;
/// Long names and PAX records are kept in memory; honest ones are far smaller. This is for all
/// of one member.
const LARGEST_EXTENSION: u64 = 1 << 20;
/// No path that is longer can be used (Linux: `PATH_MAX`).
const LONGEST_NAME: usize = 4096;
/// The records that can hold for all members. Others are about one, and are left out, so that
/// members do not multiply what an archive holds once (Go's reader leaves out all of them).
const GLOBAL_KEYS: [&[u8]; 6] = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"];

/// Reads a tar archive, member by member.
#[derive(Debug)]
pub struct TarReader<R> {
    inner: R,
    /// What is left of the current member: content, then padding.
    content_left: u64,
    padding_left: u64,
    /// Records that hold for all members that follow.
    global: Records,
    ended: bool,
}

/// One member of an archive. Reading it gives the content; what is not read is skipped.
#[derive(Debug)]
pub struct TarMember<'a, R> {
    /// What the archive says of it. Its path and the target of a hard link are clean
    /// [`ContextPath`]s; the path of the root is empty. A missing modification time is 0.
    pub entry: TarEntry,
    reader: &'a mut TarReader<R>,
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

impl<R: Read> TarReader<R> {
    /// Reads the archive in a stream that is not compressed: see [`super::decompress`].
    pub fn new(inner: R) -> Self {
        Self { inner, content_left: 0, padding_left: 0, global: Records::new(), ended: false }
    }

    /// The next member; `None` at the end.
    ///
    /// # Errors
    /// `Corrupt` for what is no tar archive; `Unsupported` for sparse members; an error of ours
    /// inside an error of the reader comes out as it is.
    pub fn next_member(&mut self) -> Result<Option<TarMember<'_, R>>> {
        let mut records = Records::new();
        let mut room = LARGEST_EXTENSION;
        loop {
            let Some(header) = self.next_header()? else { return Ok(None) };
            match header.entry_type() {
                EntryType::XHeader => records.extend(parse_records(&self.extension(&header, &mut room)?)?),
                EntryType::XGlobalHeader => {
                    let mut more = parse_records(&self.extension(&header, &mut room)?)?;
                    more.retain(|key, _| GLOBAL_KEYS.contains(&key.as_slice()));
                    self.global.extend(more);
                }
                EntryType::GNULongName => {
                    records.insert(b"path".to_vec(), until_zero(self.extension(&header, &mut room)?));
                }
                EntryType::GNULongLink => {
                    records.insert(b"linkpath".to_vec(), until_zero(self.extension(&header, &mut room)?));
                }
                _ => {
                    let mut all = self.global.clone();
                    all.extend(records);
                    let (entry, stored) = read_entry(&header, &all)?;
                    self.start_content(stored);
                    return Ok(Some(TarMember { entry, reader: self }));
                }
            }
        }
    }

    /// Skips the rest of the current member and reads a header; `None` at the end.
    fn next_header(&mut self) -> Result<Option<Header>> {
        self.skip_member()?;
        if self.ended {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let filled = self.fill(header.as_mut_bytes())?;
        // Some writers leave the two empty blocks out.
        if filled == 0 || header.as_bytes().iter().all(|b| *b == 0) {
            self.ended = true;
            // The rest (usually zeros) is read, so that a checking reader below sees its end.
            io::copy(&mut self.inner, &mut io::sink()).map_err(read_error)?;
            return Ok(None);
        }
        if filled < BLOCK {
            return Err(corrupt("it ends in the middle of a header"));
        }
        if header.cksum().ok() != Some(checksum(header.as_bytes())) {
            return Err(corrupt("the checksum of a header is wrong"));
        }
        fill_empty_numbers(header.as_mut_bytes());
        Ok(Some(header))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(error)),
            }
        }
        Ok(filled)
    }

    /// The content of a member that says something about the next one; `room` is left for more.
    fn extension(&mut self, header: &Header, room: &mut u64) -> Result<Vec<u8>> {
        let size = header.entry_size().map_err(|_| corrupt("a size is no number"))?;
        *room = room
            .checked_sub(size)
            .ok_or_else(|| corrupt("the name or the records of a member are larger than 1 MiB"))?;
        self.start_content(size);
        let mut content = Vec::new();
        self.read_content_to_end(&mut content)?;
        Ok(content)
    }

    fn read_content_to_end(&mut self, content: &mut Vec<u8>) -> Result<()> {
        let wanted = self.content_left;
        let read = self.inner.by_ref().take(wanted).read_to_end(content).map_err(read_error)?;
        if read as u64 != wanted {
            return Err(corrupt("it ends in the middle of a member"));
        }
        self.content_left = 0;
        Ok(())
    }

    fn start_content(&mut self, size: u64) {
        self.content_left = size;
        self.padding_left = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip_member(&mut self) -> Result<()> {
        let left = self.content_left.saturating_add(self.padding_left);
        let skipped = io::copy(&mut self.inner.by_ref().take(left), &mut io::sink()).map_err(read_error)?;
        if skipped < self.content_left {
            return Err(corrupt("it ends in the middle of a member"));
        }
        (self.content_left, self.padding_left) = (0, 0);
        Ok(())
    }
}

impl<R: Read> Read for TarMember<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.reader.content_left;
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let room = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.reader.inner.read(&mut buffer[..room])?;
        if read == 0 {
            return Err(io::Error::other(corrupt("it ends in the middle of a member")));
        }
        self.reader.content_left -= read as u64;
        Ok(read)
    }
}

/// Makes an entry of a header and the records that go with it, and says how many bytes of
/// content follow in the archive.
fn read_entry(header: &Header, records: &Records) -> Result<(TarEntry, u64)> {
    if header.entry_type() == EntryType::GNUSparse
        || records.keys().any(|key| key.starts_with(b"GNU.sparse."))
    {
        return Err(Error::new(ErrorKind::Unsupported, "the archive has sparse members")
            .with_hint("write it without `--sparse`"));
    }
    let name = records.get(&b"path"[..]).cloned().unwrap_or_else(|| header.path_bytes().into_owned());
    let path = clean(&name)?;
    let link = || -> Result<Vec<u8>> {
        let target = records.get(&b"linkpath"[..]).cloned();
        target
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .ok_or_else(|| corrupt(format!("the link `{}` has no target", String::from_utf8_lossy(&name))))
    };
    let size = number(records, "size", header.entry_size())?;
    let device = || {
        (header.device_major().ok().flatten().unwrap_or(0), header.device_minor().ok().flatten().unwrap_or(0))
    };
    let kind = match header.entry_type() {
        // Before POSIX, a slash at the end made a directory.
        EntryType::Regular if name.ends_with(b"/") => TarKind::Directory,
        EntryType::Regular | EntryType::Continuous => TarKind::File { size_bytes: size },
        EntryType::Directory => TarKind::Directory,
        EntryType::Symlink => TarKind::Symlink { target: link()? },
        EntryType::Link => TarKind::HardLink { target: clean(&link()?)?.into_bytes() },
        EntryType::Char => TarKind::CharDevice { major: device().0, minor: device().1 },
        EntryType::Block => TarKind::BlockDevice { major: device().0, minor: device().1 },
        EntryType::Fifo => TarKind::Fifo,
        other => {
            let kind = char::from(other.as_byte());
            return Err(corrupt(format!("the member `{path}` has the unknown type {kind:?}")));
        }
    };
    if path.is_root() && kind != TarKind::Directory {
        return Err(corrupt("a member without a name is no directory"));
    }
    let xattrs = records
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone())))
        .collect();
    let entry = TarEntry {
        path: path.into_bytes(),
        kind,
        mode: header.mode().map_err(|_| corrupt("permission bits are no number"))? & 0o7777,
        uid: number(records, "uid", header.uid())?,
        gid: number(records, "gid", header.gid())?,
        mtime: mtime(records, header)?,
        xattrs,
    };
    // Some writers give links the size of what they point to, but no content follows.
    let stored =
        if matches!(header.entry_type(), EntryType::Regular | EntryType::Continuous) { size } else { 0 };
    Ok((entry, stored))
}

fn clean(name: &[u8]) -> Result<ContextPath> {
    if name.len() > LONGEST_NAME {
        return Err(corrupt(format!("the name of a member is longer than {LONGEST_NAME} bytes")));
    }
    if name.contains(&0) {
        return Err(corrupt("the name of a member has a NUL byte in it"));
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(ContextPath::from_clean(parts.join(&b'/')))
}

fn number(records: &Records, key: &str, in_header: io::Result<u64>) -> Result<u64> {
    let wrong = || corrupt(format!("the {key} of a member is no number"));
    match records.get(key.as_bytes()) {
        Some(text) => str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong),
        None => in_header.map_err(|_| wrong()),
    }
}

/// Whole seconds, rounded down: records may hold fractions and times before 1970.
fn mtime(records: &Records, header: &Header) -> Result<i64> {
    let wrong = || corrupt("the modification time of a member is no number");
    let Some(text) = records.get(&b"mtime"[..]) else {
        // Base-256 numbers before 1970 come out as very large ones.
        return header.mtime().map(u64::cast_signed).map_err(|_| wrong());
    };
    let text = str::from_utf8(text).map_err(|_| wrong())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| wrong())?;
    let down = whole.starts_with('-') && fraction.bytes().any(|b| b != b'0');
    Ok(seconds.saturating_sub(i64::from(down)))
}

fn parse_records(mut content: &[u8]) -> Result<Records> {
    let wrong = || corrupt("PAX records are malformed");
    let mut records = Records::new();
    while !content.is_empty() {
        let space = content.iter().position(|b| *b == b' ').ok_or_else(wrong)?;
        let length = str::from_utf8(&content[..space]).ok().and_then(|text| text.parse::<usize>().ok());
        let length =
            length.filter(|length| *length > space + 1 && *length <= content.len()).ok_or_else(wrong)?;
        let (record, rest) = content.split_at(length);
        content = rest;
        let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
    }
    // An empty value takes an earlier one back.
    records.retain(|key, value| !value.is_empty() || key.starts_with(b"SCHILY.xattr."));
    Ok(records)
}

fn until_zero(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}

/// A number that is left out is 0, as Go's and GNU's readers have it; the crate takes it for damage.
fn fill_empty_numbers(header: &mut [u8; BLOCK]) {
    // Mode, owner, group, size and modification time, as ustar lays them out.
    for field in [100..108, 108..116, 116..124, 124..136, 136..148] {
        let field = &mut header[field];
        if field.iter().all(|b| matches!(b, 0 | b' ')) {
            field[0] = b'0';
        }
    }
}

/// The sum of the bytes of a header, with spaces where the sum itself stands.
fn checksum(header: &[u8; BLOCK]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
    sum(&header[..148]) + 8 * u32::from(b' ') + sum(&header[156..])
}

fn corrupt(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, "the tar archive is damaged").with_source(why.into())
}

fn read_error(error: io::Error) -> Error {
    super::recover(error, |error| {
        Error::new(ErrorKind::Corrupt, "the tar archive cannot be read").with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::TarWriter;

    fn raw(name: &[u8], kind: u8, content: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(kind));
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if let Some(ustar) = header.as_ustar_mut() {
            ustar.name[..name.len()].copy_from_slice(name);
            ustar.linkname[..4].copy_from_slice(b"../x");
        }
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn names(archive: &[u8]) -> Result<Vec<String>> {
        let mut reader = TarReader::new(archive);
        let mut names = Vec::new();
        while let Some(member) = reader.next_member()? {
            names.push(String::from_utf8_lossy(&member.entry.path).into_owned());
        }
        Ok(names)
    }

    #[test]
    fn names_come_out_clean() {
        let archive: Vec<u8> = [&b"./"[..], b"./a", b"/etc/passwd", b"a//b/../c"]
            .iter()
            .flat_map(|name| raw(name, if name.ends_with(b"/") { b'5' } else { b'0' }, b""))
            .collect();
        assert_eq!(names(&archive).expect("harmless"), ["", "a", "etc/passwd", "a/c"]);
    }

    #[test]
    fn no_name_leaves_the_root() {
        for (name, inside) in [(&b"../a"[..], "a"), (b"a/../../b", "b"), (b"/../../c/..//d", "d")] {
            assert_eq!(names(&raw(name, b'0', b"")).expect("stays inside"), [inside]);
        }
        let archive = raw(b"a", b'1', b"");
        let mut reader = TarReader::new(&archive[..]);
        let member = reader.next_member().expect("readable").expect("has a member");
        assert_eq!(member.entry.kind, TarKind::HardLink { target: b"x".to_vec() });
        // A file needs a name of its own.
        assert_eq!(names(&raw(b"/..", b'0', b"")).expect_err("no name").kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_blank_number_is_zero() {
        let mut archive = raw(b"a", b'0', b"");
        let mut header = Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&archive[..BLOCK]);
        let old = header.as_old_mut();
        (old.uid, old.gid, old.mtime) = ([0; 8], [b' '; 8], [0; 12]);
        header.set_cksum();
        archive[..BLOCK].copy_from_slice(header.as_bytes());
        let mut reader = TarReader::new(&archive[..]);
        let entry = reader.next_member().expect("readable").expect("has a member").entry;
        assert_eq!((entry.uid, entry.gid, entry.mtime), (0, 0, 0));
    }

    #[test]
    fn understands_gnu_long_names_and_old_directories() {
        let long = "x/".repeat(100) + "y";
        let mut archive = raw(b"././@LongLink", b'L', format!("{long}\0").as_bytes());
        archive.extend(raw(b"short", b'0', b"content"));
        archive.extend(raw(b"old/", 0, b""));
        assert_eq!(names(&archive).expect("readable"), [long.as_str(), "old"]);
        let mut reader = TarReader::new(&archive[archive.len() - BLOCK..]);
        let member = reader.next_member().expect("readable").expect("has a member");
        assert_eq!(member.entry.kind, TarKind::Directory);
    }

    #[test]
    fn understands_records() {
        let mut archive = raw(b"g", b'g', b"12 uid=1000\n");
        archive.extend(raw(b"x", b'x', b"20 mtime=1.75000000\n18 mtime=-1.50000\n12 size=512\n"));
        archive.extend(raw(b"a", b'0', &[7; 512]));
        archive.extend(raw(b"b", b'0', b""));
        let mut reader = TarReader::new(archive.as_slice());
        let member = reader.next_member().expect("readable").expect("has a member");
        assert_eq!((member.entry.mtime, member.entry.uid, member.entry.size_bytes()), (-2, 1000, 512));
        let member = reader.next_member().expect("readable").expect("has a member");
        assert_eq!((member.entry.mtime, member.entry.uid), (0, 1000));
    }

    #[test]
    fn numbers_that_are_left_out_are_zero() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.as_mut_bytes()[0] = b'a';
        header.as_mut_bytes()[108..116].fill(b' ');
        header.set_cksum();
        let mut reader = TarReader::new(&header.as_bytes()[..]);
        let entry = reader.next_member().expect("readable").expect("has a member").entry;
        assert_eq!((entry.mode, entry.uid, entry.gid, entry.mtime, entry.size_bytes()), (0, 0, 0, 0, 0));
    }

    #[test]
    fn refuses_what_is_damaged_or_not_understood() {
        let mut wrong_sum = raw(b"a", b'0', b"");
        wrong_sum[0] = b'b';
        let mut cut = raw(b"a", b'0', &[1; 600]);
        cut.truncate(900);
        for (archive, kind) in [
            (wrong_sum, ErrorKind::Corrupt),
            (cut, ErrorKind::Corrupt),
            (raw(b"a", b'0', b"")[..100].to_vec(), ErrorKind::Corrupt),
            (raw(b"a", b'Q', b""), ErrorKind::Corrupt),
            (raw(b"a", b'S', b""), ErrorKind::Unsupported),
            (raw(b"x", b'x', b"99 size=1\n"), ErrorKind::Corrupt),
            (raw(b"x", b'x', b"size=1\n"), ErrorKind::Corrupt),
            (raw(b"x", b'x', &vec![b' '; 2 << 20]), ErrorKind::Corrupt),
            (b"this is no archive ".repeat(40), ErrorKind::Corrupt),
        ] {
            assert_eq!(names(&archive).expect_err("refused").kind(), kind);
        }
    }

    /// What a hostile archive can make us keep is bounded by what is read of it.
    #[test]
    fn names_and_records_do_not_add_up() {
        let record = |key: &str| {
            let rest = format!(" {key}={}\n", "v".repeat(600 << 10));
            let length = rest.len() + 6;
            format!("{length}{rest}").into_bytes()
        };
        let twice = [raw(b"x", b'x', &record("a")), raw(b"x", b'x', &record("b"))].concat();
        assert_eq!(names(&twice).expect_err("too much").kind(), ErrorKind::Corrupt);
        let deep = [raw(b"l", b'L', "d/".repeat(3000).as_bytes()), raw(b"a", b'0', b"")].concat();
        assert_eq!(names(&deep).expect_err("too long").kind(), ErrorKind::Corrupt);
        let mut global = raw(b"g", b'g', &record("SCHILY.xattr.user.a"));
        global.extend(raw(b"a", b'0', b""));
        let mut reader = TarReader::new(global.as_slice());
        let member = reader.next_member().expect("readable").expect("has a member");
        assert!(member.entry.xattrs.is_empty());
        drop(member);
        assert!(reader.global.is_empty());
    }

    #[test]
    fn what_is_not_read_is_skipped() {
        let mut tar = TarWriter::new(Vec::new());
        for path in ["a", "b"] {
            let entry = TarEntry::new(path, TarKind::File { size_bytes: 1000 }, 0o644);
            tar.append_bytes(&entry, &[1; 1000]).expect("writes");
        }
        let archive = tar.finish().expect("writes");
        let mut reader = TarReader::new(archive.as_slice());
        let mut member = reader.next_member().expect("readable").expect("has a member");
        member.read_exact(&mut [0; 10]).expect("readable");
        assert!(reader.next_member().expect("readable").is_some());
        assert!(reader.next_member().expect("readable").is_none());
        assert!(reader.next_member().expect("readable").is_none());
    }
}
