//! Image archives into the store: an OCI layout, what `docker save` writes, or both in one; plain
//! or compressed.
//!
//! Members come in any order and the documents that explain them often last, so every member that
//! could be part of an image goes into the store as it comes; what turns out not to belong
//! to one is removed at the end, and all of it where the archive is refused. While another process has the
//! store open, that is left to the next prune.

mod docker;
mod found;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

use super::added::Added;
use super::archive_export::DOCKER_MANIFEST_FILE;
use super::documents::{DOCUMENT_LIMIT_BYTES, Descriptor};
use super::layout_import::{INDEX_FILE, NamedImage};
use super::store::ImageStore;
use crate::archive::unpack::TarReader;
use crate::archive::{TarKind, decompress, recover};
use crate::backend::Job;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// Images have hundreds of members, not a million.
const NAMES_LIMIT_BYTES: usize = 64 << 20;
/// What a member takes in memory besides its name.
const NAME_OVERHEAD_BYTES: usize = 256;

/// Reads the images of an archive into the store. Gives them no names there. `shown` names the archive
/// in errors. Blocks.
///
/// Images that are only in the form of `docker save` get an OCI manifest; their layers, which are
/// not compressed there, are compressed.
///
/// # Errors
/// `InvalidInput` for what is no image archive; `Corrupt` for content that is not what its digest
/// says; `NotFound` for an archive that lacks layers; `LocalIo`; `Cancelled`. What was added to the store is
/// removed again.
pub fn import_archive(
    store: &ImageStore,
    archive: impl Read + Send,
    shown: &str,
    job: &Job,
) -> Result<Vec<NamedImage>> {
    let unreadable = |error: io::Error| {
        Error::new(ErrorKind::LocalIo, format!("could not read `{shown}`")).with_source(error)
    };
    let plain = decompress(archive).map_err(unreadable)?;
    let mut reader = TarReader::new(store.unpack_limit().enforce(plain, format!("`{shown}`")));
    let mut contents = Contents::new(store, shown, job);
    let mut any = false;
    loop {
        job.check()?;
        let member = reader.next_member().map_err(|error| match error.kind() {
            ErrorKind::Corrupt if !any => contents.no_archive().with_source(error),
            _ => error.with_detail("archive", shown),
        });
        let Some(mut member) = member? else { break };
        any = true;
        let entry = member.entry.clone();
        contents.take(&entry.path, &entry.kind, &mut member)?;
    }
    contents.images()
}

/// What has been found in an archive.
struct Contents<'a> {
    store: &'a ImageStore,
    shown: &'a str,
    job: &'a Job,
    /// The documents at the top that say what the rest is.
    index: Option<Vec<u8>>,
    docker: Option<Vec<u8>>,
    /// Members that went into the store, by name.
    blobs: HashMap<Vec<u8>, Descriptor>,
    /// Members that are other names of members.
    aliases: HashMap<Vec<u8>, Vec<u8>>,
    /// So many bytes of names may still come.
    names_left: usize,
    added: Added<'a>,
}

impl<'a> Contents<'a> {
    fn new(store: &'a ImageStore, shown: &'a str, job: &'a Job) -> Self {
        Self {
            store,
            shown,
            job,
            index: None,
            docker: None,
            blobs: HashMap::new(),
            aliases: HashMap::new(),
            names_left: NAMES_LIMIT_BYTES,
            added: Added::new(store),
        }
    }

    fn take(&mut self, path: &[u8], kind: &TarKind, content: &mut dyn Read) -> Result<()> {
        match kind {
            TarKind::File { size_bytes } if path == INDEX_FILE.as_bytes() => {
                self.index = Some(self.document(*size_bytes, content)?);
            }
            TarKind::File { size_bytes } if path == DOCKER_MANIFEST_FILE.as_bytes() => {
                self.docker = Some(self.document(*size_bytes, content)?);
            }
            TarKind::File { .. } if may_belong(path) => {
                self.count_names(path.len())?;
                let descriptor = self.blob(path, content)?;
                self.blobs.insert(path.to_vec(), descriptor);
            }
            // Old engines write a layer that occurs twice as a link: `../ID/layer.tar`.
            TarKind::Symlink { target } => {
                self.count_names(path.len() + target.len())?;
                let directory = &path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)];
                let target =
                    super::tree::Tree::<()>::default().resolve(&super::tree::join(directory, target))?;
                self.aliases.insert(path.to_vec(), target);
            }
            TarKind::HardLink { target } => {
                self.count_names(path.len() + target.len())?;
                self.aliases.insert(path.to_vec(), target.clone());
            }
            _ => {}
        }
        Ok(())
    }

    fn count_names(&mut self, bytes: usize) -> Result<()> {
        self.names_left = self.names_left.checked_sub(bytes + NAME_OVERHEAD_BYTES).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("`{}` has more members than an image needs", self.shown))
        })?;
        Ok(())
    }

    fn document(&self, size_bytes: u64, content: &mut dyn Read) -> Result<Vec<u8>> {
        if size_bytes > DOCUMENT_LIMIT_BYTES {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("`{}` has a document over 4 MiB", self.shown),
            ));
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(|error| self.unreadable(error))?;
        Ok(bytes)
    }

    /// Puts a member into the store; one whose name is a digest must be what that says.
    fn blob(&self, path: &[u8], content: &mut dyn Read) -> Result<Descriptor> {
        let named = path.strip_prefix(b"blobs/sha256/").and_then(|hex| str::from_utf8(hex).ok());
        let expected = named.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
        let mut writer = self.store.writer()?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            self.job.check()?;
            let read = content.read(&mut buffer).map_err(|error| self.unreadable(error))?;
            if read == 0 {
                break;
            }
            io::Write::write_all(&mut writer, &buffer[..read])
                .or_error(ErrorKind::LocalIo, || self.store.write_failed())?;
        }
        let (digest, size_bytes) =
            self.added.commit(writer, expected).map_err(|error| error.with_detail("archive", self.shown))?;
        Ok(Descriptor::new("", digest, size_bytes))
    }

    fn find(&self, name: &str) -> Option<&Descriptor> {
        let name = crate::context::ContextPath::clean(name.as_bytes())?.into_bytes();
        let name = self.aliases.get(&name).unwrap_or(&name);
        self.blobs.get(name)
    }

    fn get(&self, name: &str) -> Result<Descriptor> {
        self.find(name).cloned().ok_or_else(|| {
            let message = format!("`{}` lacks `{name}`, which its `manifest.json` names", self.shown);
            Error::new(ErrorKind::NotFound, message)
        })
    }

    fn no_archive(&self) -> Error {
        Error::new(ErrorKind::InvalidInput, format!("`{}` is no image archive", self.shown))
            .with_hint("expected what `docker save`, `skopeo` or `windlass image save` writes")
    }

    fn unreadable(&self, error: io::Error) -> Error {
        recover(error, |error| {
            Error::new(ErrorKind::Corrupt, format!("could not read `{}`", self.shown)).with_source(error)
        })
    }
}

/// The names that configs and layers have in the archives of `docker`, `skopeo`, `ko`, `kaniko`, `bazel`.
fn may_belong(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let hex = name.strip_prefix(b"sha256:").unwrap_or(name);
    let is_digest = hex.len() == 64 && hex.iter().all(u8::is_ascii_hexdigit);
    let endings: [&[u8]; 5] = [b".json", b".tar", b".tar.gz", b".tgz", b".tar.zst"];
    is_digest || endings.iter().any(|ending| name.ends_with(ending))
}

/// Reads the images of an archive file into the store: [`import_archive`].
pub(super) fn import_archive_file(
    store: &ImageStore,
    path: &std::path::Path,
    job: &Job,
) -> Result<Vec<NamedImage>> {
    let shown = path.display().to_string();
    let file = File::open(path).map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::LocalIo,
        };
        Error::new(kind, format!("could not open `{shown}`")).with_source(error)
    })?;
    import_archive(store, file, &shown, job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Compression, Compressor, TarEntry, TarWriter, UnpackLimit};
    use crate::image::tests::{file, image};
    use crate::image::{ArchiveForm, Image, media_type, write_archive};
    use crate::reference::Reference;
    use std::path::Path;

    fn store(dir: &Path, name: &str) -> ImageStore {
        ImageStore::open(dir.join(name)).expect("store")
    }

    fn archive(members: &[(&str, TarKind, &[u8])]) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        for (path, kind, content) in members {
            tar.append_bytes(&TarEntry::new(*path, kind.clone(), 0o644), content).expect("in memory");
        }
        tar.finish().expect("in memory")
    }

    fn blob(content: &[u8]) -> TarKind {
        TarKind::File { size_bytes: content.len() as u64 }
    }

    #[test]
    fn both_forms_come_back_with_their_names_and_the_same_bytes_each_time() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (from, to) = (store(dir.path(), "from"), store(dir.path(), "to"));
        let built = image(&from, &[vec![file("a", "1")], vec![file("b", "2")]]);
        let references: Vec<Reference> =
            ["x.io/app:1", "app"].map(|name| name.parse().expect("name")).to_vec();
        let named = [NamedImage { image: built.descriptor, references }];
        let job = Job::silent();
        for form in [ArchiveForm::Oci, ArchiveForm::Docker] {
            let write = || {
                let mut bytes = Vec::new();
                write_archive(&from, &named, form, &mut bytes, &job).expect("written");
                bytes
            };
            let bytes = write();
            assert!(bytes == write(), "{form:?}");
            let read = import_archive(&to, &bytes[..], "x", &job).expect("read");
            assert_eq!(read, named, "{form:?}");
        }
    }

    #[test]
    fn what_old_engines_save_is_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (from, to) = (store(dir.path(), "from"), store(dir.path(), "to"));
        let built = image(&from, &[vec![file("a", "1")], vec![file("a", "1")]]);
        let config = from.read(&built.manifest.config, 1 << 20).expect("config");
        let layer = std::fs::read(from.path(&built.manifest.layers[0].digest)).expect("layer");
        let manifest =
            br#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["one/layer.tar","two/layer.tar"]}]"#;
        let link = TarKind::Symlink { target: b"../one/layer.tar".to_vec() };
        let bytes = archive(&[
            ("c.json", blob(&config), &config),
            ("one/layer.tar", blob(&layer), &layer),
            ("two/layer.tar", link, b""),
            ("manifest.json", blob(manifest), manifest),
        ]);
        let mut gzip = Compressor::new(Vec::new(), Compression::gzip()).expect("compressor");
        io::Write::write_all(&mut gzip, &bytes).expect("compressed");
        for bytes in [bytes, gzip.finish().expect("compressed")] {
            let read = import_archive(&to, &bytes[..], "x", &Job::silent()).expect("read");
            assert_eq!(read[0].references[0].familiar(), "app:1");
            let image = Image::load(&to, &read[0].image).expect("sound");
            assert_eq!(image.config, built.config);
            assert_eq!(image.manifest.layers[0].media_type, media_type::OCI_LAYER_GZIP);
            let diff_id = built.config.rootfs.diff_ids[0];
            to.layer_index(&image.manifest.layers[0], diff_id, &Job::silent()).expect("the same layer");
        }
    }

    #[test]
    fn what_is_no_image_archive_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let to = store(dir.path(), "to");
        let text = b"x";
        let other = archive(&[("a.txt", blob(text), text)]);
        let config = archive(&[("index.json", blob(b"{}"), b"{}")]);
        let lacking = br#"[{"Config":"c.json","Layers":[]}]"#;
        let lacking = archive(&[("manifest.json", blob(lacking), lacking)]);
        let wrong = format!("blobs/sha256/{}", Digest::of(b"y").hex());
        let wrong = archive(&[(&wrong, blob(text), text)]);
        for (bytes, kind) in [
            (&b""[..], ErrorKind::InvalidInput),
            (b"no archive at all", ErrorKind::InvalidInput),
            (&other, ErrorKind::InvalidInput),
            (&config, ErrorKind::Corrupt),
            (&lacking, ErrorKind::NotFound),
            (&wrong, ErrorKind::Corrupt),
            (&lacking[..530], ErrorKind::Corrupt),
        ] {
            let error = import_archive(&to, bytes, "x", &Job::silent()).expect_err("refused");
            assert_eq!(error.kind(), kind, "{error:?}");
            assert_eq!(left_behind(&to), 0, "{error:?}");
        }
    }

    /// How many blobs are in the store or were being written.
    fn left_behind(store: &ImageStore) -> usize {
        let count = |part| std::fs::read_dir(store.dir().join(part)).expect("store").count();
        count("blobs/sha256") + count("incoming")
    }

    #[test]
    fn bombs_are_refused_and_leave_nothing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let to = store(dir.path(), "to").with_unpack_limit(UnpackLimit::of_bytes(1 << 20));
        let zeros = vec![0; 2 << 20];
        let bomb = archive(&[("a/layer.tar", blob(b"x"), b"x"), ("b/layer.tar", blob(&zeros), &zeros)]);
        let mut gzip = Compressor::new(Vec::new(), Compression::gzip()).expect("compressor");
        io::Write::write_all(&mut gzip, &bomb).expect("compressed");
        // What is declared and does not come is no reason to wait or to reserve anything.
        let mut declared = archive(&[("layer.tar", blob(b"x"), b"x")]);
        declared[124..136].copy_from_slice(b"77777777777\0");
        let sum =
            8 * 32 + declared[..148].iter().chain(&declared[156..512]).map(|b| u32::from(*b)).sum::<u32>();
        declared[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        for (bytes, says) in [
            (gzip.finish().expect("compressed"), "`x` unpacks to more than 1048576 bytes"),
            (declared, "the tar archive is damaged"),
        ] {
            let error = import_archive(&to, &bytes[..], "x", &Job::silent()).expect_err("refused");
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Corrupt, says));
            assert_eq!(left_behind(&to), 0);
        }
    }

    #[test]
    fn more_members_than_an_image_needs_are_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let to = store(dir.path(), "to");
        let job = Job::silent();
        let mut contents = Contents::new(&to, "x", &job);
        contents.names_left = 2 * NAME_OVERHEAD_BYTES;
        let link = TarKind::Symlink { target: b"../one/layer.tar".to_vec() };
        contents.take(b"a.tar", &link, &mut io::empty()).expect("one");
        let error = contents.take(b"b.tar", &link, &mut io::empty()).expect_err("two");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn what_was_there_before_stays_when_an_import_fails() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let to = store(dir.path(), "to");
        to.put(b"there").expect("put");
        let bytes = archive(&[("a.json", blob(b"there"), b"there"), ("b.json", blob(b"new"), b"new")]);
        import_archive(&to, &bytes[..], "x", &Job::silent()).expect_err("no image");
        assert!(to.has(&Digest::of(b"there")) && !to.has(&Digest::of(b"new")));
    }
}
