//! Things that a case or a base image declares instead of carrying them: what git has no room for, and archives.

use std::collections::BTreeMap;
use std::io::Write as _;

use libtest_mimic::Failed;
use serde::Deserialize;
use windlass_tests::scenario::{Content, Item};

/// One thing: on disk in a context, or in an archive or a layer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Made {
    /// Where; `\xff` in it is that byte.
    path: String,
    /// `file` if not said, `directory`, `symlink`, `hard-link`, `pipe`, `character-device`, `block-device`, `archive`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Octal.
    mode: Option<String>,
    /// `uid:gid`, in an archive or a layer; on disk everything is ours.
    owner: Option<(u32, u32)>,
    /// Of a file.
    content: String,
    /// Of a link.
    target: String,
    /// Major and minor number of a device.
    device: (u32, u32),
    xattrs: BTreeMap<String, String>,
    /// Of an archive, in order.
    entries: Vec<Made>,
    /// Of an archive or a layer: `none`, `gzip`, `bzip2`, `xz`, `zstd`.
    compression: Option<String>,
}

impl Made {
    /// The item on disk that it is.
    pub(super) fn item(&self) -> Result<Item, Failed> {
        let content = match self.kind() {
            "file" => Content::Bytes(bytes(&self.content)),
            "directory" => Content::Directory,
            "symlink" => Content::Symlink(bytes(&self.target)),
            "hard-link" => Content::HardLink(bytes(&self.target)),
            "pipe" => Content::Fifo,
            "archive" => Content::Bytes(compressed(&tar(&self.entries)?, self.compression.as_deref())?),
            other => return Err(format!("`{}`: no `{other}` on disk", self.path).into()),
        };
        let xattrs = self.xattrs.iter().map(|(name, value)| (&*name.clone().leak(), &*value.clone().leak()));
        Ok(Item { path: bytes(&self.path), content, mode: self.mode()?, xattrs: xattrs.collect() })
    }

    fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("file")
    }

    fn mode(&self) -> Result<Option<u32>, Failed> {
        let read = |mode: &String| {
            u32::from_str_radix(mode, 8).map_err(|_| format!("`{}`: mode `{mode}` is not octal", self.path))
        };
        Ok(self.mode.as_ref().map(read).transpose()?)
    }

    fn append(&self, tar: &mut tar::Builder<Vec<u8>>) -> Result<(), Failed> {
        let content = bytes(&self.content);
        let mut header = tar::Header::new_gnu();
        let (entry_type, usual_mode) = match self.kind() {
            "file" => (tar::EntryType::Regular, 0o644),
            "directory" => (tar::EntryType::Directory, 0o755),
            "symlink" => (tar::EntryType::Symlink, 0o777),
            "hard-link" => (tar::EntryType::Link, 0o644),
            "pipe" => (tar::EntryType::Fifo, 0o644),
            "character-device" => (tar::EntryType::Char, 0o600),
            "block-device" => (tar::EntryType::Block, 0o600),
            other => return Err(format!("`{}`: no `{other}` in an archive", self.path).into()),
        };
        let (uid, gid) = self.owner.unwrap_or_default();
        header.set_entry_type(entry_type);
        header.set_mode(self.mode()?.unwrap_or(usual_mode));
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_size(content.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_device_major(self.device.0)?;
        header.set_device_minor(self.device.1)?;
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        for (name, value) in &self.xattrs {
            records.push((format!("SCHILY.xattr.{name}"), bytes(value)));
        }
        // Written by hand: the builder's own methods refuse names that climb, which are what some cases are about.
        for (key, field, text) in [("path", 100, &self.path), ("linkpath", 100, &self.target)] {
            let text = bytes(text);
            if text.len() > field {
                records.push((key.to_owned(), text));
            } else if key == "path" {
                header.as_old_mut().name[..text.len()].copy_from_slice(&text);
            } else {
                header.as_old_mut().linkname[..text.len()].copy_from_slice(&text);
            }
        }
        tar.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
        header.set_cksum();
        Ok(tar.append(&header, content.as_slice())?)
    }
}

/// A tar file of these entries, in this order.
pub(super) fn tar(entries: &[Made]) -> Result<Vec<u8>, Failed> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        entry.append(&mut tar)?;
    }
    Ok(tar.into_inner()?)
}

/// The bytes as a compressor makes them; as they are if none is named.
pub(super) fn compressed(bytes: &[u8], compression: Option<&str>) -> Result<Vec<u8>, Failed> {
    Ok(match compression.unwrap_or("none") {
        "none" => bytes.to_vec(),
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes)?;
            encoder.finish()?
        }
        "bzip2" => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(bytes)?;
            encoder.finish()?
        }
        "xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(bytes)?;
            encoder.finish()?
        }
        "zstd" => zstd::encode_all(bytes, 1)?,
        other => return Err(format!("no compression `{other}`").into()),
    })
}

/// The text with each `\xHH` as the byte that it names: TOML has no bytes.
fn bytes(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            None => bytes.extend(format!("\\x{part}").as_bytes()),
        }
    }
    bytes
}
