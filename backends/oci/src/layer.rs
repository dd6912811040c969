//! Writing layers: what an instruction changed, as a compressed tar in the store.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Write;

use windlass_core::archive::unpack::TarReader;
use windlass_core::archive::{
    self, Compression, Compressor, Member, TarEntry, TarKind, TarWriter, write_tree,
};
use windlass_core::backend::Job;
use windlass_core::digest::DigestWriter;
use windlass_core::error::{Error, ErrorKind, Result, ResultExt};
use windlass_core::events::{Step, Unit};
use windlass_core::image::{Descriptor, ImageStore, media_type};

use crate::sources::Sources;
use crate::stage::Layer;
use crate::tree::{Content, Node, NodeKind, Stream, Tree, file_name, parent};

/// The paths that an instruction changed in a tree.
///
/// Each carries the number of the copy that it belongs to: files that are hard links of each other at
/// their source are so in the layer if one copy took both, as with `cp -a`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    paths: BTreeMap<Vec<u8>, u32>,
    copy: u32,
}

impl Touched {
    /// Begins the next copy.
    pub(crate) fn begin_copy(&mut self) {
        self.copy += 1;
    }

    /// Notes a path of the current copy.
    pub(crate) fn insert(&mut self, path: Vec<u8>) {
        self.paths.insert(path, self.copy);
    }
}

/// Writes the layer of the touched paths, with their parents as every layer has them, and tells the
/// tree where the new content is.
///
/// The bytes depend on the entries alone. First come all that are not read from an archive, sorted
/// by path; then, archive by archive, the files that are, in the order in which the archive has
/// them: so each is read once and nothing is copied aside; last the hard links.
///
/// # Errors
/// Those of reading the content and of the disk; `BuildFailed` for a name that layers reserve for
/// deletions.
pub(crate) fn write(
    tree: &mut Tree,
    touched: &Touched,
    sources: &Sources,
    store: &ImageStore,
    compression: Compression,
    step: &Step,
    job: &Job,
) -> Result<Layer> {
    let parts = arrange(tree, touched)?;
    let compressor =
        Compressor::new(store.writer()?, compression).or_error(ErrorKind::LocalIo, cannot_write)?;
    let mut tar = TarWriter::new(DigestWriter::new(compressor));
    let mut order = Vec::new();
    write_plain(&parts.plain, sources, &mut tar, step, job)?;
    order.extend(parts.plain.iter().map(|(path, _)| path.clone()));
    for (stream, members) in parts.rounds.iter().flatten() {
        order.extend(write_stream(*stream, members, sources, &mut tar, job)?);
    }
    for (path, node, target) in &parts.links {
        let entry = TarEntry { kind: TarKind::HardLink { target: target.clone() }, ..node.to_entry(path) };
        tar.append_bytes(&entry, &[]).map_err(write_error)?;
    }
    let written = tar.finish().map_err(write_error)?;
    let (compressor, diff_id, _) = written.finish();
    let blob = compressor.finish().map_err(write_error)?;
    job.check()?;
    let (digest, size_bytes) = blob.commit(None)?;

    let places: BTreeMap<&[u8], u64> = order.iter().map(Vec::as_slice).zip(0..).collect();
    let links: Vec<(&[u8], u64)> = parts
        .links
        .iter()
        .filter_map(|(path, _, target)| Some((path.as_slice(), *places.get(target.as_slice())?)))
        .collect();
    for (path, member) in places.iter().map(|(path, member)| (*path, *member)).chain(links) {
        if let Some(NodeKind::File { content, .. }) = tree.get_mut(path).map(|node| &mut node.kind) {
            *content = Content::Member { stream: Stream::Layer(diff_id), member };
        }
    }
    Ok(Layer { descriptor: Descriptor::new(layer_type(compression), digest, size_bytes), diff_id })
}

fn cannot_write() -> &'static str {
    "could not write a layer"
}

fn write_error(error: std::io::Error) -> Error {
    archive::recover(error, |error| Error::new(ErrorKind::LocalIo, cannot_write()).with_source(error))
}

/// The media type of a layer with this compression.
pub(crate) fn layer_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => media_type::OCI_LAYER,
        Compression::Gzip { .. } => media_type::OCI_LAYER_GZIP,
        Compression::Zstd { .. } => media_type::OCI_LAYER_ZSTD,
    }
}

/// A layer, in the order in which it is written.
#[derive(Default)]
struct Parts {
    plain: Vec<(Vec<u8>, Node)>,
    /// What is read from archives, by archive and member. A member that is wanted twice is read in a
    /// further round.
    rounds: Vec<BTreeMap<Stream, Members>>,
    /// Path, node, and the path of the file that it is a link to.
    links: Vec<(Vec<u8>, Node, Vec<u8>)>,
}

/// Members of an archive by their number, each with its path.
type Members = BTreeMap<u64, (Vec<u8>, Node)>;

impl Parts {
    fn add_member(&mut self, stream: Stream, member: u64, file: (Vec<u8>, Node)) {
        for round in &mut self.rounds {
            if let Entry::Vacant(place) = round.entry(stream).or_default().entry(member) {
                place.insert(file);
                return;
            }
        }
        self.rounds.push(BTreeMap::from([(stream, Members::from([(member, file)]))]));
    }
}

fn arrange(tree: &Tree, touched: &Touched) -> Result<Parts> {
    let mut paths = touched.paths.clone();
    for path in touched.paths.keys() {
        let mut above = parent(path);
        while !above.is_empty() && !paths.contains_key(above) {
            paths.insert(above.to_vec(), 0);
            above = parent(above);
        }
    }
    // The root has no name of its own in a layer.
    paths.remove(&b""[..]);
    let mut parts = Parts::default();
    let mut first: BTreeMap<(u32, Content), Vec<u8>> = BTreeMap::new();
    for (path, copy) in paths {
        if file_name(&path).starts_with(b".wh.") {
            let shown = String::from_utf8_lossy(&path).into_owned();
            return Err(Error::new(ErrorKind::BuildFailed, format!("`{shown}` cannot be in an image"))
                .with_source("in layers, a name that starts with `.wh.` means that something is deleted"));
        }
        let Some(node) = tree.get(&path).cloned() else { continue };
        let NodeKind::File { content, .. } = node.kind else {
            parts.plain.push((path, node));
            continue;
        };
        match (first.get(&(copy, content)), content) {
            (Some(target), _) => parts.links.push((path, node, target.clone())),
            (None, content) => {
                first.insert((copy, content), path.clone());
                match content {
                    Content::Entry { .. } => parts.plain.push((path, node)),
                    Content::Member { stream, member } => parts.add_member(stream, member, (path, node)),
                }
            }
        }
    }
    Ok(parts)
}

fn write_plain(
    nodes: &[(Vec<u8>, Node)],
    sources: &Sources,
    tar: &mut TarWriter<impl Write>,
    step: &Step,
    job: &Job,
) -> Result<()> {
    let contexts = sources.contexts();
    let total: u64 = nodes.iter().map(|(_, node)| node.size_bytes()).sum();
    let member = |(path, node): &'_ (Vec<u8>, Node)| {
        let content = match node.kind {
            NodeKind::File { content: Content::Entry { context, entry }, size_bytes } if size_bytes > 0 => {
                Some(contexts[context].entry(entry))
            }
            _ => None,
        };
        Member { header: node.to_entry(path), content, hash: None }
    };
    write_tree(nodes, member, tar, job, |written| step.progress(written.min(total), Some(total), Unit::Bytes))
}

/// Writes the wanted members of an archive, in its order, and returns their paths in that order.
fn write_stream(
    stream: Stream,
    wanted: &Members,
    sources: &Sources,
    tar: &mut TarWriter<impl Write>,
    job: &Job,
) -> Result<Vec<Vec<u8>>> {
    let mut reader = TarReader::new(sources.open_stream(stream)?);
    let mut order = Vec::new();
    let mut number = 0;
    while order.len() < wanted.len()
        && let Some(mut member) = reader.next_member()?
    {
        job.check()?;
        if let Some((path, node)) = wanted.get(&number) {
            tar.append(&node.to_entry(path), &mut member).map_err(write_error)?;
            order.push(path.clone());
        }
        number += 1;
    }
    if order.len() < wanted.len() {
        return Err(Error::new(ErrorKind::Corrupt, "an archive changed while it was read"));
    }
    Ok(order)
}
