//! Layers: what an instruction changed, as a tar.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::sync::{Arc, OnceLock};

use windlass_core::archive::unpack::TarReader;
use windlass_core::archive::{self, Compression, Member, TarEntry, TarKind, TarWriter, write_tree};
use windlass_core::backend::Job;
use windlass_core::digest::Digest;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::events::{Step, Unit};
use windlass_core::image::{LayerShape, MemberContent, media_type};

use crate::change::Touched;
use crate::removal::Whiteouts;
use crate::sources::{ListedContext, Sources};
use crate::tree::{Content, Node, NodeKind, Stream, Tree, file_name, parent};

/// A layer in the order in which it is written: the touched paths, with their parents as every layer
/// has them.
///
/// First come all that are not read from an archive, sorted by path, but whiteouts right behind the directory they
/// are in: not every reader spares what came before; then, archive by archive, the
/// files that are, in the order in which the archive has them: so each is read once and nothing is
/// copied aside; last the hard links.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    plain: Vec<Placed>,
    /// What is read from archives, in the order of the first path of each. A member that is wanted
    /// twice is read in a further round.
    rounds: Vec<Vec<(Stream, Members)>>,
    /// Path, node, and the path of the file that it is a link to.
    links: Vec<(Vec<u8>, Node, Vec<u8>)>,
}

/// A file with its path.
type Placed = (Vec<u8>, Node);

/// Members of an archive by their number.
type Members = BTreeMap<u64, Placed>;

/// A file whose content is read: the numbers of its context and of its entry there.
pub(crate) type ReadEntry = (usize, usize);

impl Plan {
    /// Arranges the touched paths of a tree.
    ///
    /// # Errors
    /// `BuildFailed` for a name that layers reserve for deletions.
    pub(crate) fn of(tree: &Tree, touched: &Touched) -> Result<Self> {
        let mut paths = touched.paths.clone();
        let mut last: &[u8] = b"";
        for path in touched.paths.keys().chain(touched.whiteouts.keys()) {
            let mut above = parent(path);
            // Neighbours have the same parents.
            if std::mem::replace(&mut last, above) == above {
                continue;
            }
            while !above.is_empty() && !paths.contains_key(above) {
                paths.insert(above.to_vec(), 0);
                above = parent(above);
            }
        }
        // The root has no name of its own in a layer.
        paths.remove(&b""[..]);
        let mut plan = Self::default();
        let mut whiteouts = Whiteouts::of(touched);
        plan.plain.extend(whiteouts.take(b""));
        let mut first: HashMap<(u32, Content), Vec<u8>> = HashMap::with_capacity(paths.len());
        for (path, copy) in paths {
            if file_name(&path).starts_with(b".wh.") {
                return Err(reserved_name(&path));
            }
            let Some(node) = tree.get(&path).cloned() else { continue };
            let NodeKind::File { content, .. } = node.kind else {
                let hidden = whiteouts.take(&path);
                plan.plain.push((path, node));
                plan.plain.extend(hidden);
                continue;
            };
            match (first.get(&(copy, content)), content) {
                (Some(target), _) => plan.links.push((path, node, target.clone())),
                (None, content) => {
                    first.insert((copy, content), path.clone());
                    match content {
                        Content::Entry { .. } => plan.plain.push((path, node)),
                        Content::Member { stream, member } => plan.add_member(stream, member, (path, node)),
                    }
                }
            }
        }
        Ok(plan)
    }

    /// Makes nothing younger than a time.
    pub(crate) fn clamp(&mut self, latest: i64) {
        let members = self.rounds.iter_mut().flatten().flat_map(|(_, members)| members.values_mut());
        let nodes = self.plain.iter_mut().chain(members).map(|(_, node)| node);
        let links = self.links.iter_mut().map(|(_, node, _)| node);
        nodes.chain(links).for_each(|node| node.mtime = node.mtime.min(latest));
    }

    fn add_member(&mut self, stream: Stream, member: u64, file: Placed) {
        for round in &mut self.rounds {
            let position = round.iter().position(|(known, _)| *known == stream).unwrap_or_else(|| {
                round.push((stream, Members::new()));
                round.len() - 1
            });
            if let Entry::Vacant(place) = round[position].1.entry(member) {
                place.insert(file);
                return;
            }
        }
        self.rounds.push(vec![(stream, Members::from([(member, file)]))]);
    }

    fn streams(&self) -> impl Iterator<Item = &(Stream, Members)> + Clone {
        self.rounds.iter().flatten()
    }

    /// The members of the layer, in its order.
    pub(crate) fn members(&self) -> Vec<TarEntry> {
        let plain = self.plain.iter().map(|(path, node)| node.to_entry(path));
        let streamed = self.streams().flat_map(|(_, members)| members.values());
        let streamed = streamed.map(|(path, node)| node.to_entry(path));
        plain.chain(streamed).chain(self.links.iter().map(link_entry)).collect()
    }

    /// The shape of the layer with these members, which are its own.
    pub(crate) fn shape(&self, members: &[TarEntry], compression: Compression) -> LayerShape {
        let archives = self.archives();
        let plain = self.plain.iter().map(|(_, node)| match read_entry(node) {
            Some(_) => MemberContent::Read,
            None => MemberContent::None,
        });
        let number = |stream: &Stream, member: u64| match stream {
            Stream::Layer(diff_id) => MemberContent::Layer(*diff_id, member),
            Stream::Archive { context, entry } => {
                let place = archives.iter().position(|known| *known == (*context, *entry));
                MemberContent::Archive(place.unwrap_or_default(), member)
            }
        };
        let streamed = self.streams();
        let streamed =
            streamed.flat_map(|(stream, members)| members.keys().map(move |member| number(stream, *member)));
        let contents = plain.chain(streamed).chain(self.links.iter().map(|_| MemberContent::None));
        LayerShape::of(compression, members.iter().zip(contents))
    }

    /// The files that are read for the layer, in a fixed order.
    pub(crate) fn reads(&self) -> Vec<ReadEntry> {
        self.plain.iter().filter_map(|(_, node)| read_entry(node)).chain(self.archives()).collect()
    }

    /// The layers that are read for it, by their `diff_id`s.
    pub(crate) fn layers_read(&self) -> BTreeSet<Digest> {
        let layer = |(stream, _): &(Stream, Members)| match stream {
            Stream::Layer(diff_id) => Some(*diff_id),
            Stream::Archive { .. } => None,
        };
        self.streams().filter_map(layer).collect()
    }

    /// The archives in contexts that are read for it, each once.
    fn archives(&self) -> Vec<ReadEntry> {
        let mut archives = Vec::new();
        for (stream, _) in self.streams() {
            if let Stream::Archive { context, entry } = *stream
                && !archives.contains(&(context, entry))
            {
                archives.push((context, entry));
            }
        }
        archives
    }

    /// About how large the tar is.
    pub(crate) fn size_bytes(&self) -> u64 {
        let streamed = self.streams().flat_map(|(_, members)| members.values());
        self.plain.iter().chain(streamed).map(|(_, node)| node.size_bytes()).sum()
    }

    /// Writes the layer, and returns the hashes of the files that were read on the way.
    ///
    /// # Errors
    /// Those of reading the content and of writing.
    pub(crate) fn write(
        &self,
        sources: &Sources,
        out: impl Write,
        step: &Step,
        job: &Job,
    ) -> Result<Vec<(ReadEntry, Digest)>> {
        let mut tar = TarWriter::new(out);
        let hashes = self.write_plain(&sources.contexts(), &mut tar, step, job)?;
        for (stream, members) in self.streams() {
            write_stream(*stream, members, sources, &mut tar, job)?;
        }
        for link in &self.links {
            tar.append_bytes(&link_entry(link), &[]).map_err(write_error)?;
        }
        tar.finish().map_err(write_error)?;
        Ok(hashes)
    }

    fn write_plain(
        &self,
        contexts: &[Arc<ListedContext>],
        tar: &mut TarWriter<impl Write>,
        step: &Step,
        job: &Job,
    ) -> Result<Vec<(ReadEntry, Digest)>> {
        let items: Vec<(&Placed, OnceLock<Digest>)> =
            self.plain.iter().map(|item| (item, OnceLock::new())).collect();
        let total: u64 = self.plain.iter().map(|(_, node)| node.size_bytes()).sum();
        let progress = |written: u64| step.progress(written.min(total), Some(total), Unit::Bytes);
        let unknown = |(context, entry): ReadEntry| contexts[context].hashes.get(entry).is_none();
        write_tree(
            &items,
            |((path, node), hash)| {
                let read = read_entry(node);
                Member {
                    header: node.to_entry(path),
                    content: read.map(|(context, entry)| contexts[context].entry(entry)),
                    // What is known of an unchanged file need not be found out again.
                    hash: Some(hash).filter(|_| read.is_some_and(unknown)),
                }
            },
            tar,
            job,
            progress,
        )?;
        let found = items.iter().filter_map(|((_, node), hash)| Some((read_entry(node)?, *hash.get()?)));
        Ok(found.collect())
    }

    /// Tells the tree where the new content is, once the layer has been written.
    pub(crate) fn settle(&self, tree: &mut Tree, diff_id: Digest) {
        let streamed = self.streams().flat_map(|(_, members)| members.values());
        let order = self.plain.iter().chain(streamed).map(|(path, _)| path.as_slice()).zip(0..);
        let mut put = |path: &[u8], member: u64| {
            if let Some(NodeKind::File { content, .. }) = tree.get_mut(path).map(|node| &mut node.kind) {
                *content = Content::Member { stream: Stream::Layer(diff_id), member };
            }
        };
        order.clone().for_each(|(path, member)| put(path, member));
        if self.links.is_empty() {
            return;
        }
        let places: HashMap<&[u8], u64> = order.collect();
        for (path, _, target) in &self.links {
            if let Some(member) = places.get(target.as_slice()) {
                put(path, *member);
            }
        }
    }
}

/// The file of a context that a node is read from, unless it is empty.
fn read_entry(node: &Node) -> Option<ReadEntry> {
    match node.kind {
        NodeKind::File { content: Content::Entry { context, entry }, size_bytes } if size_bytes > 0 => {
            Some((context, entry))
        }
        _ => None,
    }
}

fn link_entry((path, node, target): &(Vec<u8>, Node, Vec<u8>)) -> TarEntry {
    TarEntry { kind: TarKind::HardLink { target: target.clone() }, ..node.to_entry(path) }
}

fn reserved_name(path: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(path);
    Error::new(ErrorKind::BuildFailed, format!("`{shown}` cannot be in an image"))
        .with_source("in layers, a name that starts with `.wh.` means that something is deleted")
}

/// The words for a layer that cannot be written.
pub(crate) fn cannot_write() -> &'static str {
    "could not write a layer"
}

/// What went wrong with the disk, or the error of ours that is inside.
pub(crate) fn write_error(error: std::io::Error) -> Error {
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

/// Writes the wanted members of an archive, in its order.
fn write_stream(
    stream: Stream,
    wanted: &Members,
    sources: &Sources,
    tar: &mut TarWriter<impl Write>,
    job: &Job,
) -> Result<()> {
    let mut reader = TarReader::new(sources.open_stream(stream)?);
    let mut written = 0;
    let mut number = 0;
    while written < wanted.len()
        && let Some(mut member) = reader.next_member()?
    {
        job.check()?;
        if let Some((path, node)) = wanted.get(&number) {
            tar.append(&node.to_entry(path), &mut member).map_err(write_error)?;
            written += 1;
        }
        number += 1;
    }
    if written < wanted.len() {
        return Err(Error::new(ErrorKind::Corrupt, "an archive changed while it was read"));
    }
    if let Stream::Archive { context, entry } = stream {
        // It was not read to its end, where a change would be met.
        let listed = sources.context(context);
        let (context, entry) = listed.entry(entry);
        context.open(entry)?.check_unchanged()?;
    }
    Ok(())
}
