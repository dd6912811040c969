//! The root file system of an image, laid flat: as one archive, or as files.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::node::{Node, NodeKind};
use super::selection::Image;
use super::store::ImageStore;
use super::tree::Tree;
use crate::archive::unpack::TarReader;
use crate::archive::{TarEntry, TarKind, TarWriter, recover};
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result};

mod directory;
mod merge;

use directory::DirectoryTarget;

/// Where the content of a file is: the number of the layer, and the position in it.
type Place = (usize, u64);

/// Writes the root file system of an image as one archive. Its layers must be in the store. Blocks.
///
/// The bytes depend only on the image: its members come in the order of a walk, so that a directory is
/// done before the next begins and keeps its time when it is unpacked. Layers have another order, so
/// the content is set aside in the store's directory meanwhile.
///
/// # Errors
/// `Corrupt` for damaged layers; `LocalIo` if writing fails; `NotFound`; `Cancelled`.
pub fn root_filesystem_tar(store: &ImageStore, image: &Image, out: impl Write, job: &Job) -> Result<()> {
    let flat = Flat::new(store, image, job)?;
    let mut spool = Spool::new(store)?;
    flat.for_each_content(store, image, job, |place, content| spool.put(place, content))?;
    let mut tar = TarWriter::new(BufWriter::with_capacity(256 * 1024, out));
    // The root needs no member: whoever unpacks has a directory.
    let mut nodes: Vec<_> = flat.tree.below(b"").collect();
    nodes.sort_by(|(a, _), (b, _)| in_order(a, b));
    for (path, node) in nodes {
        job.check()?;
        let entry = flat.entry(path, node);
        match (&entry.kind, &node.kind) {
            (TarKind::File { size_bytes }, NodeKind::File { content, .. }) => {
                let mut content = spool.get(*content)?.take(*size_bytes);
                tar.append(&entry, &mut content).map_err(write_failed)?;
            }
            _ => tar.append(&entry, &mut io::empty()).map_err(write_failed)?,
        }
    }
    let mut out = tar.finish().map_err(write_failed)?;
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
    let flat = Flat::new(store, image, job)?;
    let mut target = DirectoryTarget::new(dest, job)?;
    let is_file = |node: &Node<Place>| matches!(node.kind, NodeKind::File { .. });
    for (path, node) in flat.tree.iter().filter(|(_, node)| !is_file(node)) {
        job.check()?;
        target.add(&node.to_entry(path), &mut io::empty())?;
    }
    flat.for_each_content(store, image, job, |place, content| {
        for path in &flat.names[&place] {
            let Some(node) = flat.tree.get(path) else { continue };
            target.add(&flat.entry(path, node), content)?;
        }
        Ok(())
    })?;
    target.finish()
}

/// The order in which a walk meets paths: `a`, `a/b`, `a.c`; by bytes alone `a.c` were between.
fn in_order(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|byte| *byte == b'/').cmp(b.split(|byte| *byte == b'/'))
}

/// The file system of an image, and the files in it by the place of their content.
struct Flat {
    tree: Tree<Place>,
    /// Paths of each file, in order: the first is the file, the others are hard links to it.
    names: BTreeMap<Place, Vec<Vec<u8>>>,
}

impl Flat {
    fn new(store: &ImageStore, image: &Image, job: &Job) -> Result<Self> {
        let mut tree: Tree<Place> = Tree::default();
        for (number, (layer, diff_id)) in image.layers().enumerate() {
            tree.apply(&store.layer_index(layer, diff_id, job)?, |position| (number, position))?;
        }
        let mut names: BTreeMap<Place, Vec<Vec<u8>>> = BTreeMap::new();
        for (path, node) in tree.iter() {
            if let NodeKind::File { content, .. } = node.kind {
                names.entry(content).or_default().push(path.to_vec());
            }
        }
        names.values_mut().for_each(|paths| paths.sort_by(|a, b| in_order(a, b)));
        Ok(Self { tree, names })
    }

    /// Reads the layers from the bottom up, and gives the content of each file that is left in
    /// the end, once.
    fn for_each_content(
        &self,
        store: &ImageStore,
        image: &Image,
        job: &Job,
        mut take: impl FnMut(Place, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        for (number, (layer, _)) in image.layers().enumerate() {
            let mut left = self.names.range((number, 0)..(number + 1, 0)).count();
            if left == 0 {
                continue;
            }
            let mut archive = TarReader::new(store.open_layer(&layer.digest)?);
            let mut position = 0;
            while left > 0
                && let Some(mut member) = archive.next_member()?
            {
                job.check()?;
                if self.names.contains_key(&(number, position)) {
                    take((number, position), &mut member)?;
                    left -= 1;
                }
                position += 1;
            }
        }
        Ok(())
    }

    /// The entry of a name: that of the file for its first, a hard link for the others.
    fn entry(&self, path: &[u8], node: &Node<Place>) -> TarEntry {
        let first = match &node.kind {
            NodeKind::File { content, .. } => self.names.get(content).and_then(|names| names.first()),
            _ => None,
        };
        match first.filter(|first| *first != path) {
            Some(first) => {
                TarEntry { kind: TarKind::HardLink { target: first.clone() }, ..node.to_entry(path) }
            }
            None => node.to_entry(path),
        }
    }
}

/// File content that was set aside.
struct Spool {
    file: File,
    offsets: BTreeMap<Place, u64>,
    end: u64,
}

impl Spool {
    fn new(store: &ImageStore) -> Result<Self> {
        let file = tempfile::tempfile_in(store.incoming()).map_err(write_failed)?;
        Ok(Self { file, offsets: BTreeMap::new(), end: 0 })
    }

    fn put(&mut self, place: Place, content: &mut dyn Read) -> Result<()> {
        self.offsets.insert(place, self.end);
        self.end += io::copy(content, &mut self.file).map_err(write_failed)?;
        Ok(())
    }

    /// What is there from a place on.
    fn get(&mut self, place: Place) -> Result<&mut File> {
        let offset = self.offsets.get(&place).copied().unwrap_or(self.end);
        self.file.seek(SeekFrom::Start(offset)).map_err(write_failed)?;
        Ok(&mut self.file)
    }
}

fn write_failed(error: io::Error) -> Error {
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
        let upper = vec![file("a", "new"), file(".wh.gone", ""), file("d/x", "deep"), file("d.x", "")];
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
        assert_eq!(found, ["a=new", "b=old", "d=", "d/x=deep", "d.x=", "l="]);
    }
}
