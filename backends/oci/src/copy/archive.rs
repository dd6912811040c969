//! ADD of an archive: its members become files of the stage.
//!
//! The destination is the root for everything in the archive, as docker has it: no link, of the
//! archive or of the stage, leads out of it.

use windlass_core::archive::{TarEntry, TarKind};
use windlass_core::error::{Error, ErrorKind, Result, ResultExt};

use super::place::{Placer, no_directory};
use crate::owner::Owner;
use crate::tree::{Content, LINK_MODE, Node, NodeKind, Stream, file_name, join, kind_of, parent};

impl Placer<'_> {
    /// Unpacks an archive of a context below a destination.
    ///
    /// # Errors
    /// `BuildFailed`, naming the archive, for one that is damaged or has names that lead out of it.
    pub(super) fn unpack_archive(&mut self, context: usize, entry: usize, destination: &str) -> Result<()> {
        let root = self.prepare(&format!("{destination}/"))?;
        let name = self.sources.context(context).entries[entry].path.to_string();
        let stream = Stream::Archive { context, entry };
        let failed = || format!("could not unpack `{name}`");
        let members = self.sources.archive_members(context, entry, self.job);
        let members = match members {
            // What concerns the file and not what is in it says itself what it concerns.
            Err(error) if matches!(error.kind(), ErrorKind::ContextUnreadable | ErrorKind::Cancelled) => {
                return Err(error);
            }
            members => members.or_error(ErrorKind::BuildFailed, failed)?,
        };
        for (member, entry) in (0..).zip(members) {
            self.job.check()?;
            // The root of the archive says nothing about the destination.
            if !entry.path.is_empty() {
                self.unpack_member(&root, entry, Content::Member { stream, member })
                    .or_error(ErrorKind::BuildFailed, failed)?;
            }
        }
        Ok(())
    }

    fn unpack_member(&mut self, root: &[u8], entry: TarEntry, content: Content) -> Result<()> {
        let path = self.place_in(root, &entry.path)?;
        self.make_implied_directories(parent(&path))?;
        let TarEntry { mode, uid, gid, mtime, xattrs, .. } = entry;
        let mut node = match entry.kind {
            TarKind::HardLink { target } => {
                let file = self.link_target(root, &target, &entry.path)?;
                // It is one file, and the last who speaks of it is right.
                Node { kind: file.kind, mode, uid, gid, mtime, xattrs: file.xattrs }
            }
            kind => {
                let Some(kind) = kind_of(kind, content) else { return Ok(()) };
                Node { kind, mode, uid, gid, mtime, xattrs }
            }
        };
        if let Some(Owner { uid, gid }) = self.settings.owner {
            (node.uid, node.gid) = (uid, gid);
        }
        if matches!(node.kind, NodeKind::Symlink { .. }) {
            // Whatever an archive says, a link has no permissions of its own.
            node.mode = LINK_MODE;
        }
        node.mtime = self.settings.unpacked_mtime.unwrap_or(node.mtime);
        if let NodeKind::File { content, .. } = node.kind {
            let names = self.unpacked.entry(content).or_default();
            for name in names.iter().filter(|name| **name != path) {
                if let Some(other) = self.tree.get_mut(name).filter(|other| other.kind == node.kind) {
                    other.clone_from(&node);
                }
            }
            names.insert(path.clone());
        }
        // Unlike a copy, an archive may replace a directory with something else, and back.
        self.tree.insert(path.clone(), node);
        self.touched.insert(path);
        Ok(())
    }

    /// The file that a hard link is another name of.
    fn link_target(&mut self, root: &[u8], target: &[u8], link: &[u8]) -> Result<Node> {
        let target = self.place_in(root, target)?;
        let Some(node) = self.tree.get(&target).filter(|node| !node.is_directory()).cloned() else {
            let shown = String::from_utf8_lossy(link);
            return Err(Error::new(ErrorKind::Corrupt, format!("the hard link `{shown}` has no target")));
        };
        if let NodeKind::File { content, .. } = node.kind {
            self.unpacked.entry(content).or_default().insert(target.clone());
        }
        // It goes into this layer as well, or there is nothing to link to.
        self.touched.insert(target);
        Ok(node)
    }

    /// Where a member lands: links of its parents are followed inside the destination.
    fn place_in(&self, root: &[u8], path: &[u8]) -> Result<Vec<u8>> {
        let directory = self.tree.resolve_in(root, parent(path))?;
        Ok(join(&directory, file_name(path)))
    }

    /// Makes the directories that an archive leaves out. Unlike all else they are the super-user's,
    /// whatever `--chown` says.
    fn make_implied_directories(&mut self, path: &[u8]) -> Result<()> {
        let mut made = Vec::new();
        let mut above = path;
        loop {
            match self.tree.get(above) {
                Some(node) if node.is_directory() => break,
                Some(_) => return Err(no_directory(above)),
                None => made.push(above.to_vec()),
            }
            above = parent(above);
        }
        for path in made.into_iter().rev() {
            self.tree.insert(path.clone(), Node::directory(self.settings.made_mtime));
            self.touched.insert(path);
        }
        Ok(())
    }
}
