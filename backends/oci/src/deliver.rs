//! Bringing a finished image to its outputs: the store, registries, files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, Result, ResultExt};
use windlass_core::image::{
    self, ArchiveForm, Descriptor, Image, ImageStore, NamedImage, export_layout, root_filesystem_dir,
    root_filesystem_tar, write_archive,
};
use windlass_core::output::{Destination, Output, OutputKind};
use windlass_core::platform::Platform;
use windlass_core::request::BuildRequest;
use windlass_core::written_file::{self, WrittenFile};

use crate::base::Bases;
use crate::outputs;

const WRITE_BUFFER: usize = 1 << 20;

/// Refuses outputs that cannot work, before any work: `several` platforms in a form that holds one,
/// files in directories that do not exist.
///
/// # Errors
/// `InvalidInput`.
pub(crate) fn check(request: &BuildRequest, current_dir: &Path, several: bool) -> Result<()> {
    for output in &request.outputs {
        let error = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
        if several && matches!(output.kind, OutputKind::Docker | OutputKind::Tar) {
            return error(format!("`--output {output}` holds one platform, and several are asked for"));
        }
        let Some(Destination::Path(path)) = &output.destination else { continue };
        let path = current_dir.join(path);
        let parent = path.parent().unwrap_or(Path::new("/"));
        if is_file(output) && path.is_dir() {
            return error(format!("`{}` of `--output {output}` is a directory", path.display()));
        }
        if is_file(output) && !parent.is_dir() {
            return error(format!(
                "the directory `{}` of `--output {output}` does not exist",
                parent.display()
            ));
        }
        if !is_file(output) && path.exists() && !path.is_dir() {
            return error(format!("`{}` of `--output {output}` is no directory", path.display()));
        }
    }
    Ok(())
}

/// Finds out before any work that a file could not be written after it.
///
/// # Errors
/// `LocalIo`.
pub(crate) fn check_writable(request: &BuildRequest, current_dir: &Path) -> Result<()> {
    for output in request.outputs.iter().filter(|output| is_file(output)) {
        if let Some(Destination::Path(path)) = &output.destination {
            written_file::check_writable(&current_dir.join(path))?;
        }
    }
    Ok(())
}

/// Says whether an output is one file, and not a directory.
fn is_file(output: &Output) -> bool {
    match output.kind {
        OutputKind::Oci => output.flag("tar") != Some(false),
        OutputKind::Local => false,
        _ => true,
    }
}

/// Brings the image to all outputs, one after the other, and returns the files and directories that
/// were written.
///
/// # Errors
/// What the outputs meet. Those that were served before keep the image.
pub(crate) async fn all(
    bases: &Bases,
    request: &BuildRequest,
    current_dir: &Path,
    image: &Descriptor,
    job: &Job,
) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for output in &request.outputs {
        let references = outputs::names(output, request)?;
        let named = NamedImage { image: image.clone(), references };
        match output.kind {
            OutputKind::CacheOnly => continue,
            OutputKind::Image => {
                // A name in the store means that all of the image is there.
                image::fetch_missing(&bases.client, &bases.store, image, job).await?;
                named.references.iter().try_for_each(|name| bases.store.tag(name, image))?;
            }
            OutputKind::Registry => {}
            _ => {
                image::fetch_missing(&bases.client, &bases.store, image, job).await?;
                written.extend(export(&bases.store, output, named.clone(), current_dir, job).await?);
            }
        }
        if output.pushes() {
            // It ends by itself when the user stops it, and gives up its uploads first.
            let references = outputs::pushed_names(output, request, image.digest)?;
            image::push(&bases.client, &bases.store, image, &references, job).await?;
        }
    }
    Ok(written)
}

/// Writes files, and returns where; nothing for the standard output.
async fn export(
    store: &ImageStore,
    output: &Output,
    image: NamedImage,
    current_dir: &Path,
    job: &Job,
) -> Result<Option<PathBuf>> {
    let step = job.events.step(format!("exporting to {output}"));
    let path = match &output.destination {
        Some(Destination::Path(path)) => Some(current_dir.join(path)),
        Some(Destination::Stdout) | None => None,
    };
    let (store, output, target) = (store.clone(), output.clone(), path.clone());
    let work = move |job: &Job| {
        let result = match &target {
            Some(path) => to_path(&store, &output, image, path, job),
            None => to_stdout(&store, &output, image, job),
        };
        step.end(result)
    };
    job.blocking(work).await?;
    Ok(path)
}

fn to_path(store: &ImageStore, output: &Output, image: NamedImage, path: &Path, job: &Job) -> Result<()> {
    match output.kind {
        OutputKind::Oci if !is_file(output) => export_layout(store, &[image], path, job),
        OutputKind::Oci => whole_file(path, |out| write_archive(store, &[image], ArchiveForm::Oci, out, job)),
        OutputKind::Docker => {
            whole_file(path, |out| write_archive(store, &[image], ArchiveForm::Docker, out, job))
        }
        OutputKind::Tar => {
            let image = only_image(store, &image.image)?;
            whole_file(path, |out| root_filesystem_tar(store, &image, out, job))
        }
        OutputKind::Local => {
            let manifests = store.manifests(&image.image)?;
            let [one] = &manifests[..] else {
                return manifests.iter().try_for_each(|manifest| {
                    let image = Image::load(store, manifest)?;
                    let dir = path.join(directory_of(&image.config.platform()));
                    root_filesystem_dir(store, &image, &dir, job)
                });
            };
            root_filesystem_dir(store, &Image::load(store, one)?, path, job)
        }
        _ => Err(unsupported(output)),
    }
}

fn to_stdout(store: &ImageStore, output: &Output, image: NamedImage, job: &Job) -> Result<()> {
    let out = BufWriter::with_capacity(WRITE_BUFFER, io::stdout().lock());
    match output.kind {
        OutputKind::Oci => write_archive(store, &[image], ArchiveForm::Oci, out, job),
        OutputKind::Docker if output.destination.is_some() => {
            write_archive(store, &[image], ArchiveForm::Docker, out, job)
        }
        OutputKind::Tar => root_filesystem_tar(store, &only_image(store, &image.image)?, out, job),
        _ => Err(unsupported(output)),
    }
}

fn unsupported(output: &Output) -> Error {
    let message = format!("the backend `oci` cannot do `--output {output}`");
    Error::unsupported(output.feature(), message)
}

fn only_image(store: &ImageStore, image: &Descriptor) -> Result<Image> {
    match &store.manifests(image)?[..] {
        [manifest] => Image::load(store, manifest),
        _ => Err(Error::new(ErrorKind::InvalidInput, "a root file system is that of one platform")),
    }
}

/// `linux_arm_v7`, as BuildKit calls the directories of several platforms.
fn directory_of(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

/// Writes a file: see [`WrittenFile`].
fn whole_file(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    let failed = || format!("could not write `{}`", path.display());
    // What goes wrong with the disk concerns this file; everything else says itself what it concerns.
    let write = |out: &mut BufWriter<&File>| match write(out) {
        Err(error) if error.kind() == ErrorKind::LocalIo => Err(error).or_error(ErrorKind::LocalIo, failed),
        result => result,
    };
    let mut file = WrittenFile::create(path)?;
    let mut out = BufWriter::with_capacity(WRITE_BUFFER, &*file.writer());
    write(&mut out)?;
    out.flush().or_error(ErrorKind::LocalIo, failed)?;
    drop(out);
    file.keep()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};
    use windlass_core::context::Context;
    use windlass_core::image::{ImageConfig, Manifest, media_type, to_bytes};
    use windlass_core::registry::{RegistryClient, RegistrySettings};
    use windlass_core::request::DockerfileSource;

    use super::*;

    /// A registry that opens uploads and never takes what is sent to them.
    async fn answer(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>, stop: Job) {
        let (reader, mut writer) = stream.split();
        let mut lines = BufReader::new(reader).lines();
        let request = lines.next_line().await.expect("a request").unwrap_or_default();
        while lines.next_line().await.expect("a head").is_some_and(|line| !line.is_empty()) {}
        let method = request.split(' ').next().unwrap_or_default().to_owned();
        seen.lock().expect("lock").push(method.clone());
        let head = match method.as_str() {
            "POST" => "202 Accepted\r\nLocation: /up",
            "DELETE" => "204 No Content",
            "PUT" => {
                stop.cancel.cancel();
                return std::future::pending().await;
            }
            _ => "404 Not Found",
        };
        let head = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        writer.write_all(head.as_bytes()).await.expect("an answer");
    }

    #[test]
    fn a_link_to_an_open_file_stays_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        // As `/dev/stdout` is one, with the standard output in a file; that one itself is not to be risked.
        let file = File::create(dir.path().join("file")).expect("a file");
        let link = dir.path().join("link");
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        std::os::unix::fs::symlink(&open, &link).expect("a link");
        let content = |out: &mut BufWriter<&File>| {
            out.write_all(b"content").expect("written");
            Ok(())
        };
        whole_file(&link, content).expect("written");
        assert_eq!(std::fs::read_link(&link).expect("still a link"), Path::new(&open));
        assert_eq!(std::fs::read(dir.path().join("file")).expect("readable"), b"content");
    }

    #[tokio::test]
    async fn an_upload_that_is_stopped_is_given_up_at_the_registry() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let host = listener.local_addr().expect("address");
        let (seen, job) = (Arc::new(Mutex::new(Vec::new())), Job::silent());
        let (record, stop) = (seen.clone(), job.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, record.clone(), stop.clone()));
            }
        });
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let config = to_bytes(&ImageConfig::empty(&Platform::host()));
        let config = store.put_as(media_type::OCI_CONFIG, &config).expect("put");
        let manifest = to_bytes(&Manifest::new(media_type::OCI_MANIFEST, config, Vec::new()));
        let image = store.put_as(media_type::OCI_MANIFEST, &manifest).expect("put");
        let client = RegistryClient::new(RegistrySettings::default()).expect("client");
        let source = DockerfileSource {
            shown: "x".into(),
            path: None,
            in_context: None,
            content: "FROM scratch".into(),
        };
        let mut request = BuildRequest::new(Context::empty(), source);
        request.tags = vec![format!("{host}/a:1").parse().expect("reference")];
        request.outputs = vec![Output::push()];
        let bases = Bases::new(store, client, false, Default::default());
        let error = all(&bases, &request, dir.path(), &image, &job).await.expect_err("stopped");
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(seen.lock().expect("lock").last().map(String::as_str), Some("DELETE"));
    }
}
