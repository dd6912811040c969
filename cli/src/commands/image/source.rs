//! Where an image is, as the user puts it.

use std::path::Path;

use windlass_core::error::Result;
use windlass_core::image::{Descriptor, ImageSource, ImageStore, NamedImage};
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;
use windlass_core::request::split_layout;
use windlass_core::{Error, ErrorKind};

use super::resolve;
use crate::session::Session;

/// Reads a source. A path is what has a prefix that says so, begins with `/`, `./` or `../`, or is
/// the name of a file or of an OCI layout in the current directory; the rest are references.
///
/// # Errors
/// `InvalidInput` for a malformed reference; `NotFound` for a path that does not exist.
pub(super) fn parse(text: &str, current_dir: &Path) -> Result<ImageSource> {
    if let Some(source) = ImageSource::parse_prefixed(text)? {
        return Ok(source);
    }
    if current_dir.join(text).is_file() {
        return Ok(ImageSource::Archive(current_dir.join(text)));
    }
    let is_path = ["/", "./", "../"].iter().any(|start| text.starts_with(start));
    if let Ok((directory, tag, digest)) = split_layout(text) {
        let directory = current_dir.join(directory);
        if directory.join("oci-layout").is_file() || (is_path && directory.is_dir()) {
            let (tag, digest) = (tag.map(str::to_owned), digest.map(str::parse).transpose()?);
            return Ok(ImageSource::OciLayout { dir: directory, tag, digest });
        }
    }
    if is_path {
        return Err(Error::new(ErrorKind::NotFound, format!("`{text}` does not exist")));
    }
    text.parse::<Reference>().map(ImageSource::Store)
}

/// Brings the images of a source into the local store, if they are not there.
pub(super) async fn all(text: &str, store: &ImageStore, session: &Session<'_>) -> Result<Vec<NamedImage>> {
    match parse(text, &session.program.surroundings.current_dir)? {
        ImageSource::Store(reference) => {
            let image = resolve(store, &reference).map_err(|error| match looks_like_a_file(text) {
                true => error.with_hint(format!("there is no file `{text}` either")),
                false => error,
            })?;
            Ok(vec![NamedImage { image, references: vec![reference] }])
        }
        elsewhere => {
            let client = &session.host.registry_client;
            session.work(None, async |job| elsewhere.import(client, store, None, job).await).await
        }
    }
}

/// The same for a source that must have one image.
pub(super) async fn one(text: &str, store: &ImageStore, session: &Session<'_>) -> Result<NamedImage> {
    let mut images = all(text, store, session).await?;
    match images.pop() {
        Some(image) if images.is_empty() => Ok(image),
        _ => Err(several(text, images.len() + 1)),
    }
}

/// The image for one platform, of what a source stands for.
pub(super) fn platform_of(
    store: &ImageStore,
    image: &Descriptor,
    platform: &str,
    source: &str,
) -> Result<Descriptor> {
    let platform: Platform = platform.parse()?;
    let chosen = store.choose(image, &platform, &format!("`{source}`"))?;
    if store.has(&chosen.digest) {
        return Ok(chosen);
    }
    let message = format!("the image for `{platform}` of `{source}` is not in the local store");
    Err(Error::new(ErrorKind::NotFound, message)
        .with_hint("fetch it first: `windlass image pull --platform`"))
}

/// The error of an archive with more images than can be meant.
pub(super) fn several(text: &str, count: usize) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("`{text}` holds {count} images, and one is wanted"))
        .with_hint("load it with `windlass image load`, then name one of its images")
}

fn looks_like_a_file(text: &str) -> bool {
    [".tar", ".tgz", ".tar.gz", ".tar.zst"].iter().any(|end| text.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_references_are_told_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let here = directory.path();
        std::fs::create_dir_all(here.join("layout")).expect("a directory");
        std::fs::create_dir_all(here.join("plain")).expect("a directory");
        std::fs::write(here.join("layout/oci-layout"), "{}").expect("a file");
        std::fs::write(here.join("app.tar"), "").expect("a file");
        let layout = |tag: Option<&str>| ImageSource::OciLayout {
            dir: here.join("layout"),
            tag: tag.map(str::to_owned),
            digest: None,
        };
        let store = |text: &str| ImageSource::Store(text.parse().expect("valid"));
        for (text, expected) in [
            ("app.tar", ImageSource::Archive(here.join("app.tar"))),
            ("layout", layout(None)),
            ("layout:1", layout(Some("1"))),
            ("plain", store("plain")),
            ("plain:1", store("plain:1")),
            ("other.tar", store("other.tar")),
            ("docker-image://a:1", ImageSource::Registry("a:1".parse().expect("valid"))),
        ] {
            assert_eq!(parse(text, here).expect(text), expected);
        }
        assert_eq!(parse("./absent", here).expect_err("absent").kind(), ErrorKind::NotFound);
        assert_eq!(parse("UPPER", here).expect_err("invalid").kind(), ErrorKind::InvalidInput);
    }
}
