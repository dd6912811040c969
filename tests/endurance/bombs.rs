//! Archives that nobody means well with.

use std::io::Write as _;

use libtest_mimic::Failed;
use tar::{EntryType, Header};

/// A member: its name and the target of a link as they stand in the archive, its type, its content.
pub(crate) struct Member<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: EntryType,
    pub(crate) link: &'a str,
    pub(crate) content: &'a [u8],
}

/// A file.
pub(crate) fn file<'a>(name: &'a str, content: &'a [u8]) -> Member<'a> {
    Member { name, kind: EntryType::Regular, link: "", content }
}

/// A link, or something else without content.
pub(crate) fn node<'a>(name: &'a str, kind: EntryType, link: &'a str) -> Member<'a> {
    Member { name, kind, link, content: b"" }
}

/// Writes an archive whose names are left as they are: writers with manners refuse such.
pub(crate) fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for member in members {
        bytes.extend_from_slice(header(member, member.content.len() as u64).as_bytes());
        bytes.extend_from_slice(member.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A member that says that it is larger than anything.
pub(crate) fn huge(name: &str) -> Vec<u8> {
    let mut bytes = header(&file(name, b""), 8 << 60).as_bytes().to_vec();
    bytes.resize(4096, 0);
    bytes
}

fn header(member: &Member<'_>, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(member.kind);
    header.set_size(size);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.name[..member.name.len()].copy_from_slice(member.name.as_bytes());
        gnu.linkname[..member.link.len()].copy_from_slice(member.link.as_bytes());
    }
    if matches!(member.kind, EntryType::Char | EntryType::Block) {
        let _ = header.set_device_major(1);
        let _ = header.set_device_minor(3);
    }
    header.set_cksum();
    header
}

/// The same in every compression, with what the name of each ends in.
pub(crate) fn compressed(tar: &[u8]) -> Result<Vec<(&'static str, Vec<u8>)>, Failed> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(tar)?;
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(tar)?;
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(tar)?;
    Ok(vec![
        ("tar", tar.to_vec()),
        ("tar.gz", gzip.finish()?),
        ("tar.bz2", bzip2.finish()?),
        ("tar.xz", xz.finish()?),
        ("tar.zst", zstd::encode_all(tar, 1)?),
    ])
}
