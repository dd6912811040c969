//! The root file system of an image, laid flat: as one archive, or as files.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use super::selection::Image;
use super::store::ImageStore;
use super::tree::{Node, NodeKind, Tree};
use crate::archive::unpack::TarReader;
use crate::archive::{TarEntry, TarKind, TarWriter, recover};
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result};

mod directory;

/// Where the content of a file is: the number of the layer, and the position in it.
type Place = (usize, u64);

/// The names of one file.
type Names<'a> = Vec<(&'a [u8], &'a Node<Place>)>;

/// Takes the members of a file system. Directories come before what is in them, a file before its
/// hard links; the root comes first, with an empty path.
trait Target {
    /// Takes one; `content` has what a file has.
    fn add(&mut self, entry: &TarEntry, content: &mut dyn Read) -> Result<()>;
}

/// Writes the root file system of an image as one archive. Its layers must be in the store. Blocks.
///
/// The bytes depend only on the image: directories, links and devices sorted by path, then files,
/// layer by layer in the order of the layers.
///
/// # Errors
/// `Corrupt` for damaged layers; `LocalIo` if writing fails; `NotFound`; `Cancelled`.
pub fn root_filesystem_tar(store: &ImageStore, image: &Image, out: impl Write, job: &Job) -> Result<()> {
    let mut target = TarTarget(TarWriter::new(out));
    write(store, image, &mut target, job)?;
    let mut out = target.0.finish().map_err(write_failed)?;
    out.flush().map_err(write_failed)
}

/// Writes the root file system of an image as files below a directory, which is made if it does
/// not exist; what is there already and is not in the image stays. The image's layers must be in the
/// store. Blocks.
///
/// Nothing is written outside of the directory, whatever names and links say. Owners are set by
/// the super-user only; devices that may not be made are left out with a warning.
///
/// # Errors
/// As [`root_filesystem_tar`]. Then the directory is as it was.
pub fn root_filesystem_dir(store: &ImageStore, image: &Image, dest: &Path, job: &Job) -> Result<()> {
    let mut target = directory::DirectoryTarget::new(dest, job)?;
    write(store, image, &mut target, job)?;
    target.finish()
}

fn write(store: &ImageStore, image: &Image, target: &mut impl Target, job: &Job) -> Result<()> {
    let mut tree: Tree<Place> = Tree::default();
    for (number, (layer, diff_id)) in image.layers().enumerate() {
        tree.apply(&store.layer_index(layer, diff_id, job)?, |position| (number, position))?;
    }
    let mut files: BTreeMap<Place, Names<'_>> = BTreeMap::new();
    for (path, node) in tree.iter() {
        match node.kind {
            NodeKind::File { content, .. } => files.entry(content).or_default().push((path, node)),
            _ => target.add(&node.to_entry(path), &mut std::io::empty())?,
        }
    }
    for (number, (layer, _)) in image.layers().enumerate() {
        let wanted = files.range((number, 0)..(number + 1, 0));
        if wanted.clone().next().is_none() {
            continue;
        }
        let mut archive = TarReader::new(store.open_layer(&layer.digest)?);
        let mut position = 0;
        let mut left = wanted.clone().count();
        while left > 0
            && let Some(mut member) = archive.next_member()?
        {
            job.check()?;
            if let Some(names) = files.get(&(number, position)) {
                add_file(target, names, &mut member)?;
                left -= 1;
            }
            position += 1;
        }
    }
    Ok(())
}

/// Adds a file under its first name, and the others as links to it.
fn add_file(target: &mut impl Target, names: &Names<'_>, content: &mut dyn Read) -> Result<()> {
    let Some(((first, node), others)) = names.split_first() else { return Ok(()) };
    target.add(&node.to_entry(first), content)?;
    for (path, node) in others {
        let kind = TarKind::HardLink { target: first.to_vec() };
        target.add(&TarEntry { kind, ..node.to_entry(path) }, &mut std::io::empty())?;
    }
    Ok(())
}

struct TarTarget<W: Write>(TarWriter<W>);

impl<W: Write> Target for TarTarget<W> {
    fn add(&mut self, entry: &TarEntry, content: &mut dyn Read) -> Result<()> {
        if entry.path.is_empty() {
            // The root needs no member: whoever unpacks has a directory.
            return Ok(());
        }
        self.0.append(entry, content).map_err(write_failed)
    }
}

fn write_failed(error: std::io::Error) -> Error {
    recover(error, |error| {
        Error::new(ErrorKind::LocalIo, "could not write the root file system").with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::{file, image, link};

    #[test]
    fn layers_are_laid_flat() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let hard = TarEntry::new("b", TarKind::HardLink { target: b"a".to_vec() }, 0o644);
        let lower = vec![file("a", "old"), (hard, ""), file("gone", "x"), link("l", "/etc")];
        let upper = vec![file("a", "new"), file(".wh.gone", ""), file("d/x", "deep")];
        let image = image(&store, &[lower, upper]);
        let mut bytes = Vec::new();
        root_filesystem_tar(&store, &image, &mut bytes, &Job::silent()).expect("written");
        let mut archive = TarReader::new(&bytes[..]);
        let mut found = Vec::new();
        while let Some(mut member) = archive.next_member().expect("readable") {
            let mut text = String::new();
            member.read_to_string(&mut text).expect("text");
            found.push(format!("{}={text}", String::from_utf8_lossy(&member.entry.path)));
        }
        assert_eq!(found, ["d=", "l=", "b=old", "a=new", "d/x=deep"]);
    }
}
