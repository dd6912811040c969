//! The tags of OpenHands' runtime images.

use md5::{Digest as _, Md5};

use super::{TAG_LIMIT, TypedImage, checked_tag, last_characters, short_hash};
use crate::error::Result;
use crate::reference::Reference;

/// Of a base image, so much stands in the versioned tag, in characters.
const SLUG_LIMIT: usize = 96;
/// A longer repository is shortened in the generic tag, to a hash and this many of its last characters.
const REPOSITORY_LIMIT: usize = 32;
const REPOSITORY_KEPT: usize = 24;

fn hex(md5: Md5) -> String {
    md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn md5_hex(bytes: impl AsRef<[u8]>) -> String {
    hex(Md5::new_with_prefix(bytes))
}

/// The lock hash: a hash of what the dependencies of a runtime image hang on.
#[derive(Clone, Debug)]
pub struct LockHash(Md5);

impl LockHash {
    /// Begins with the base image, as it is typed, and whether a browser is installed. Then come the bytes
    /// of the lock files in their order, in pieces of any size.
    pub fn new(base_image: &str, browser: bool) -> Self {
        let mut md5 = Md5::new();
        md5.update(base_image);
        if !browser {
            md5.update("False");
        }
        Self(md5)
    }

    /// Adds bytes of a lock file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash.
    pub fn finish(self) -> String {
        short_hash(&hex(self.0)).unwrap_or_default()
    }
}

/// The extension of tags for inputs that the hashes leave out, by their canonical JSON.
pub fn extension(canonical_json: &str) -> String {
    let hash = short_hash(&md5_hex(canonical_json)).unwrap_or_default();
    format!("_x{}", hash.get(..8).unwrap_or(&hash))
}

/// A base image in the versioned tag. A digest is shortened, and stands in place of the tag.
pub fn versioned_slug(base_image: &str) -> String {
    let image = TypedImage::new(base_image);
    let spelled = match image.short_digest() {
        Some(digits) => format!("{}:sha256-{digits}", image.repository),
        None => base_image.to_owned(),
    };
    let slug = spelled.replace('/', "_s_").replace(':', "_t_").to_lowercase();
    last_characters(&slug, SLUG_LIMIT).to_owned()
}

/// The repository and tag that stand for a base image whatever the sources: the image itself where its
/// repository is that of the runtime images.
///
/// # Errors
/// `InvalidInput` if no tag can be made of it.
pub fn generic_image(version: &str, runtime_repository: &str, base_image: &str) -> Result<(String, String)> {
    let image = TypedImage::new(base_image);
    if is_same_repository(TypedImage::new(runtime_repository).repository, image.repository) {
        let tag = image.tag.or(image.digest).unwrap_or("latest");
        return Ok((image.repository.to_owned(), tag.to_owned()));
    }
    let tag = match image.short_digest() {
        Some(digits) => format!("sha256-{digits}"),
        None => image.tag.unwrap_or("latest").to_owned(),
    };
    let mut repository = image.repository.to_owned();
    if repository.chars().count() > REPOSITORY_LIMIT {
        let end = last_characters(&repository, REPOSITORY_KEPT);
        let hash = md5_hex(&repository[..repository.len() - end.len()]);
        repository = format!("{}_{end}", &hash[..8]);
    }
    let repository = repository.replace('/', "_s_").replace(':', "_t_");
    let whole = format!("oh_v{version}_image_{repository}_tag_{tag}");
    let whole = match whole.len() > TAG_LIMIT {
        true => format!("oh_v{version}_image_{}", md5_hex(&whole)),
        false => whole,
    };
    Ok((runtime_repository.to_owned(), checked_tag(whole)?))
}

/// Whether two repositories are one, however they are spelled: `docker.io/library/debian` is `debian`.
fn is_same_repository(one: &str, other: &str) -> bool {
    let name = |text: &str| text.parse().map(|reference: Reference| reference.name());
    one == other || matches!((name(one), name(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: &str = "ghcr.io/openhands/runtime";
    const PYTHON: &str = "nikolaik/python-nodejs:python3.12-nodejs22";

    fn lock_hash(base_image: &str, browser: bool, files: [&[u8]; 2]) -> String {
        let mut hash = LockHash::new(base_image, browser);
        files.iter().for_each(|file| hash.update(file));
        hash.finish()
    }

    #[test]
    fn lock_hashes_are_those_of_the_original() {
        let project = b"[tool.poetry]\nname = \"demo\"\nversion = \"1.0.0\"\n";
        for (base_image, browser, hash) in [
            ("debian:11", true, "rfkyaj1iiv38kkns"),
            ("debian:11", false, "w8lka2zp6mz426si"),
            (PYTHON, true, "4f0wwkpcf6jxnacl"),
            (PYTHON, false, "uqapc9tcafhz7dsr"),
        ] {
            assert_eq!(
                lock_hash(base_image, browser, [project, b"# lock\n"]),
                hash,
                "{base_image} {browser}"
            );
        }
        for (browser, hash) in [(true, "y30qicsghn63hkb8"), (false, "3irxziledg1zx8pn")] {
            assert_eq!(lock_hash("some_base_image", browser, [b"mock-data"; 2]), hash);
        }
        assert_eq!(lock_hash("debian:11", true, [project, b"# pkg lock\n"]), "c5c6hsuz8ie6w2um");
    }

    #[test]
    fn the_extension_is_short() {
        let extension = extension("{\"extra-deps\":\"pip install x\"}");
        assert!(extension.starts_with("_x") && extension.len() == 10, "{extension}");
    }

    #[test]
    fn versioned_slugs_keep_the_end() {
        let long = format!("registry.example.com/{}/image-name:Tag-1.2.3", "x".repeat(80));
        for (base, slug) in [
            (PYTHON, "nikolaik_s_python-nodejs_t_python3.12-nodejs22".to_owned()),
            ("ubuntu", "ubuntu".to_owned()),
            ("ghcr.io/Org/Repo:Tag", "ghcr.io_s_org_s_repo_t_tag".to_owned()),
            ("localhost:5000/a/b:c", "localhost_t_5000_s_a_s_b_t_c".to_owned()),
            (&long, format!("{}_s_image-name_t_tag-1.2.3", "x".repeat(71))),
            (&format!("b{}", "a".repeat(96)), "a".repeat(96)),
            (
                &format!("a/b:1@sha256:{}", "0123456789abcdef".repeat(4)),
                "a_s_b_t_sha256-0123456789ab".to_owned(),
            ),
        ] {
            assert_eq!(versioned_slug(base), slug);
        }
    }

    #[test]
    fn generic_tags_are_those_of_the_original() {
        let a = "a".repeat(33);
        for (base, tag) in [
            ("debian:11", "oh_v0.62.0_image_debian_tag_11".to_owned()),
            (PYTHON, "oh_v0.62.0_image_nikolaik_s_python-nodejs_tag_python3.12-nodejs22".to_owned()),
            ("ubuntu", "oh_v0.62.0_image_ubuntu_tag_latest".to_owned()),
            ("Ubuntu:22.04", "oh_v0.62.0_image_Ubuntu_tag_22.04".to_owned()),
            ("ghcr.io/openhands/runtime:0.62-nikolaik", "0.62-nikolaik".to_owned()),
            ("ghcr.io/openhands/runtime", "latest".to_owned()),
            (
                "ghcr.io/all-hands-ai/some-longer-organisation/image:v1",
                "oh_v0.62.0_image_53a187ee_onger-organisation_s_image_tag_v1".to_owned(),
            ),
            (
                "docker.io/xingyaoww/sweb.eval.x86_64.astropy_s_astropy-12907:latest",
                "oh_v0.62.0_image_7c37a7ac_.astropy_s_astropy-12907_tag_latest".to_owned(),
            ),
            (&format!("{}:x", &a[1..]), format!("oh_v0.62.0_image_{}_tag_x", &a[1..])),
            (&format!("{a}:x"), format!("oh_v0.62.0_image_552e6a97_{}_tag_x", &a[..24])),
            (&format!("repo:{}", "t".repeat(90)), format!("oh_v0.62.0_image_repo_tag_{}", "t".repeat(90))),
            (
                &format!("repo:{}", "t".repeat(128)),
                "oh_v0.62.0_image_4f71f3f1d2e1a134501590af5095dacb".to_owned(),
            ),
        ] {
            assert_eq!(generic_image("0.62.0", R, base).expect(base), (R.to_owned(), tag), "{base}");
        }
    }

    #[test]
    fn what_the_original_got_wrong_is_right() {
        let digest = format!("alpine@sha256:{}", "0123456789abcdef".repeat(4));
        for (base, tag) in [
            ("localhost:5000/a:b", "oh_v0.62.0_image_localhost_t_5000_s_a_tag_b"),
            (&digest, "oh_v0.62.0_image_alpine_tag_sha256-0123456789ab"),
        ] {
            assert_eq!(generic_image("0.62.0", R, base).expect(base), (R.to_owned(), tag.to_owned()));
        }
        let (_, other) =
            generic_image("0.62.0", R, "mirror/ghcr.io/openhands/runtime-fork:1").expect("valid");
        assert!(other.ends_with("runtime-fork_tag_1"), "{other}");
        let spelled = generic_image("0.62.0", "docker.io/acme/runtime", "acme/runtime:1").expect("valid");
        assert_eq!(spelled, ("acme/runtime".to_owned(), "1".to_owned()));
    }
}
