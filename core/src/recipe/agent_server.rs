//! The tags of agent-server images.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::{TAG_LIMIT, TypedImage, checked_tag};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// Of a base image, so much stands in a tag by default, in characters.
pub const SLUG_LIMIT: usize = 64;
/// A shortened slug ends in `-` and so many hexadecimal digits.
const SLUG_DIGITS: usize = 12;
/// What stands for a commit or branch that is not known.
const UNKNOWN: &str = "unknown";
/// So many characters of a commit stand in the short tags.
const SHORT_COMMIT: usize = 7;

/// A base image as a part of a tag, of at most `limit` characters.
///
/// # Errors
/// `InvalidInput` if the limit does not leave room for more than the hash: it must exceed 13.
pub fn slug(image: &str, limit: usize) -> Result<String> {
    let Some(room) = limit.checked_sub(SLUG_DIGITS + 1).filter(|room| *room > 0) else {
        let message = format!("a limit of {limit} characters leaves no room for the base image");
        return Err(Error::new(ErrorKind::InvalidInput, message).with_hint("it must exceed 13"));
    };
    let typed = TypedImage::new(image);
    // What stands behind `@` has no place in a tag.
    let whole = match typed.short_digest() {
        Some(digits) => {
            let name = image.split('@').next().unwrap_or_default();
            format!("{}_sha256_{digits}", spelled(name))
        }
        None => spelled(image),
    };
    if whole.chars().count() <= limit {
        return Ok(whole);
    }
    let hash = Digest::of(&whole).hex();
    let (name, tag) = match whole.rsplit_once("_tag_") {
        Some((name, tag)) => (name, Some(tag)),
        None => (whole.as_str(), None),
    };
    let repository = name.rsplit_once("_s_").map_or(name, |(_, last)| last);
    Ok(format!("{}-{}", cut(repository, tag, room), &hash[..SLUG_DIGITS]))
}

fn spelled(image: &str) -> String {
    image.replace('/', "_s_").replace(':', "_tag_")
}

/// Cuts a repository and its tag to so many characters together: the repository first, and all of it
/// where the tag alone is too long.
fn cut(repository: &str, tag: Option<&str>, room: usize) -> String {
    let tag = tag.map(|tag| format!("_tag_{tag}")).unwrap_or_default();
    let left = room.saturating_sub(tag.chars().count());
    repository.chars().take(left).chain(tag.chars()).take(room).collect()
}

/// What is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The compiled server: the tags do not name it.
    Binary,
    /// The same without what only people need.
    BinaryMinimal,
    /// The server from its sources.
    Source,
    /// The same without what only people need.
    SourceMinimal,
    /// What the others start from; needs no sources.
    BaseImage,
    /// The same without what only people need; needs no sources.
    BaseImageMinimal,
    /// What compiles the server.
    Builder,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Binary,
        Self::BinaryMinimal,
        Self::Source,
        Self::SourceMinimal,
        Self::BaseImage,
        Self::BaseImageMinimal,
        Self::Builder,
    ];

    /// Its name, which is that of a stage.
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::BinaryMinimal => "binary-minimal",
            Self::Source => "source",
            Self::SourceMinimal => "source-minimal",
            Self::BaseImage => "base-image",
            Self::BaseImageMinimal => "base-image-minimal",
            Self::Builder => "builder",
        }
    }

    /// Says whether the source tree is in its context.
    pub fn needs_sources(self) -> bool {
        !matches!(self, Self::BaseImage | Self::BaseImageMinimal)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|target| target.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::new(ErrorKind::InvalidInput, format!("unknown target `{text}`"))
                .with_hint(format!("known targets: {known}"))
        })
    }
}

/// What the tags are made of. An empty text counts as none everywhere.
#[derive(Clone, Debug)]
pub struct TagInput<'a> {
    /// The base image, as it is typed.
    pub base_image: &'a str,
    /// The longest form of it in a tag, in characters.
    pub slug_limit: usize,
    /// The commit of the sources.
    pub commit: Option<&'a str>,
    /// The git reference of the sources: `refs/heads/main`, `refs/tags/v1.2.3`, or a branch.
    pub git_reference: Option<&'a str>,
    /// Tags of the user's own, the main one first.
    pub custom: Vec<&'a str>,
    /// What is built.
    pub target: Target,
    /// The architecture, where the tags shall name it.
    pub architecture: Option<&'a str>,
    /// Whether one tag names the base image. Default: yes.
    pub with_base: bool,
    /// The version of the package, where release tags are wanted.
    pub release_of: Option<&'a str>,
}

impl<'a> TagInput<'a> {
    /// The input for a base image, everything else unknown or by default.
    pub fn new(base_image: &'a str) -> Self {
        Self {
            base_image,
            slug_limit: SLUG_LIMIT,
            commit: None,
            git_reference: None,
            custom: Vec::new(),
            target: Target::Binary,
            architecture: None,
            with_base: true,
            release_of: None,
        }
    }

    /// All tags in their order, each once.
    ///
    /// # Errors
    /// `InvalidInput` for one that registries would refuse.
    pub fn tags(&self) -> Result<Vec<String>> {
        let commit = self.commit.filter(|commit| !commit.is_empty()).unwrap_or(UNKNOWN);
        let short = short_commit(commit);
        let branch = self.git_reference.and_then(branch);
        let mut tags = Vec::new();
        for custom in self.custom.iter().map(|custom| custom.trim()).filter(|custom| !custom.is_empty()) {
            tags.extend([short, commit].map(|commit| format!("{commit}-{custom}")));
            tags.extend(branch.as_ref().map(|branch| format!("{branch}-{custom}")));
        }
        if self.with_base {
            tags.push(format!("{short}-{}", slug(self.base_image, self.slug_limit)?));
        }
        if let Some(version) = self.release_of {
            tags.extend(release_tags(&release_source(self.git_reference.unwrap_or_default(), version)));
        }
        let architecture = self.architecture.map(|name| format!("-{name}")).unwrap_or_default();
        let target = match self.target {
            Target::Binary => String::new(),
            target => format!("-{target}"),
        };
        let mut seen = BTreeSet::new();
        let named = tags.into_iter().map(|tag| checked_tag(format!("{tag}{architecture}{target}")));
        let named = named.filter(|tag| tag.as_ref().map_or(true, |tag| seen.insert(tag.clone())));
        named.collect()
    }

    /// The tag that the build cache of this branch is kept under.
    ///
    /// # Errors
    /// As [`slug`].
    pub fn cache_tag(&self) -> Result<String> {
        let base = self.base_cache_tag()?;
        Ok(match cache_suffix(self.git_reference.unwrap_or(UNKNOWN)) {
            Some(branch) => within_limit(&format!("{base}-{branch}")),
            None => within_limit(&base),
        })
    }

    /// The tag of the main branch's cache, which is the second source of every build.
    ///
    /// # Errors
    /// As [`slug`].
    pub fn main_cache_tag(&self) -> Result<String> {
        Ok(within_limit(&format!("{}-main", self.base_cache_tag()?)))
    }

    fn base_cache_tag(&self) -> Result<String> {
        Ok(format!("buildcache-{}-{}", self.target, slug(self.base_image, self.slug_limit)?))
    }
}

/// A tag that would be too long ends in a hash of the whole.
fn within_limit(whole: &str) -> String {
    if whole.len() <= TAG_LIMIT {
        return whole.to_owned();
    }
    let hash = &Digest::of(whole).hex()[..8];
    let kept: String = whole.chars().take(TAG_LIMIT - 9).collect();
    format!("{kept}-{hash}")
}

/// The first characters of a commit.
pub fn short_commit(commit: &str) -> &str {
    commit.get(..SHORT_COMMIT).unwrap_or(commit)
}

/// A git reference as a part of a tag; `None` for tags, other `refs/…`, and what is not known.
pub fn branch(git_reference: &str) -> Option<String> {
    let name = match git_reference.strip_prefix("refs/heads/") {
        Some(name) => name,
        None if git_reference.starts_with("refs/") || git_reference == UNKNOWN => return None,
        None => git_reference,
    };
    Some(sanitized(name, |character| matches!(character, '.' | '-')).to_lowercase())
        .filter(|name| !name.is_empty())
}

/// Any git reference as the end of a cache tag; `None` for one that is not known.
pub fn cache_suffix(git_reference: &str) -> Option<String> {
    if git_reference == UNKNOWN {
        return None;
    }
    let name = git_reference.strip_prefix("refs/heads/").unwrap_or(git_reference);
    let name = sanitized(name, |character| matches!(character, '.' | '-')).to_lowercase();
    Some(if name.is_empty() { UNKNOWN.to_owned() } else { name })
}

/// Runs of what has no place in a tag become one `-`; none stands at the beginning, nor a dot.
fn sanitized(text: &str, kept: impl Fn(char) -> bool) -> String {
    let mut name = String::new();
    let mut gap = false;
    for character in text.chars() {
        if character.is_ascii_alphanumeric() || kept(character) {
            name.push(character);
            gap = false;
        } else if !gap {
            name.push('-');
            gap = true;
        }
    }
    name.trim_start_matches(['.', '-']).to_owned()
}

/// What release tags are made of: the git tag, or the version of the package where that says the same.
pub fn release_source(git_reference: &str, package_version: &str) -> String {
    match git_reference.strip_prefix("refs/tags/") {
        Some(tag) if is_semver(tag.strip_prefix('v').unwrap_or(tag)) => match package_version {
            "" => tag.strip_prefix('v').unwrap_or(tag).to_owned(),
            version => version.to_owned(),
        },
        Some(tag) => tag.to_owned(),
        None => package_version.to_owned(),
    }
}

/// The tags of a release: `v1`, `v1.2`, `v1.2.3` of a version, one of anything else, none of nothing.
pub fn release_tags(release: &str) -> Vec<String> {
    let release = release.trim();
    if release.is_empty() {
        return Vec::new();
    }
    let (prefix, version) = match release.strip_prefix('v') {
        Some(version) => ("v", version),
        None => ("", release),
    };
    if let (true, [major, minor, patch]) = (is_semver(version), &version.split('.').collect::<Vec<_>>()[..]) {
        return vec![
            format!("{prefix}{major}"),
            format!("{prefix}{major}.{minor}"),
            format!("{prefix}{major}.{minor}.{patch}"),
        ];
    }
    let kept = |character| matches!(character, '_' | '.' | '-');
    let name = sanitized(release, kept);
    let name = name.trim_matches(['.', '-']);
    vec![if name.is_empty() { UNKNOWN } else { name }.to_owned()]
}

/// Three numbers without leading zeros, and nothing else.
fn is_semver(text: &str) -> bool {
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 3 && parts.into_iter().all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_those_of_the_original() {
        let long = format!("registry.example.com/team/{}:{}", "n".repeat(40), "t".repeat(60));
        for (image, limit, expected) in [
            ("python:3.13", 64, "python_tag_3.13".to_owned()),
            ("python:3.13", 15, "python_tag_3.13".to_owned()),
            ("ghcr.io/org/repo:v1.0", 64, "ghcr.io_s_org_s_repo_tag_v1.0".to_owned()),
            (
                "nikolaik/python-nodejs:python3.12-nodejs22-slim",
                64,
                "nikolaik_s_python-nodejs_tag_python3.12-nodejs22-slim".to_owned(),
            ),
            ("localhost:5000/team/app:dev", 64, "localhost_tag_5000_s_team_s_app_tag_dev".to_owned()),
            (
                "docker.io/swebench/sweb.eval.x86_64.astropy_1776_astropy-12907:latest",
                64,
                "sweb.eval.x86_64.astropy_1776_astropy-12_tag_latest-80303147e400".to_owned(),
            ),
            (
                "docker.io/swebench/sweb.eval.x86_64.astropy_1776_astropy-8872:tag_latest-0a797356ebce",
                64,
                "sweb.eval.x86_64.astropy_17_tag_latest-0a797356ebce-e023ce15bc3b".to_owned(),
            ),
            (
                "localhost:5001/swebench/sweb.eval.x86_64.astropy_1776_astropy-8872:tag_latest-0a797356ebce",
                64,
                "sweb.eval.x86_64.astropy_17_tag_latest-0a797356ebce-0138a908f35e".to_owned(),
            ),
            (
                "ghcr.io/very-long-organization-name-here/very-long-repository-name-that-exceeds-max-length",
                64,
                "very-long-repository-name-that-exceeds-max-length-2a772685291d".to_owned(),
            ),
            (
                "ghcr.io/org/very-long-repository-name:v1.2.3",
                40,
                "very-long-reposi_tag_v1.2.3-54820527fa60".to_owned(),
            ),
            (&"a".repeat(65), 64, format!("{}-635361c48bb9", "a".repeat(51))),
            (&long, 64, format!("_tag_{}-93663cd2b785", "t".repeat(46))),
        ] {
            assert_eq!(slug(image, limit).expect(image), expected);
        }
        assert!(slug("a", 13).is_err());
        let digest = format!("ghcr.io/a/b@sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(slug(&digest, 64).expect("valid"), "ghcr.io_s_a_s_b_sha256_0123456789ab");
    }

    #[test]
    fn the_repository_is_cut_before_the_tag() {
        for (repository, tag, room, expected) in [
            ("repo", Some("v1"), 20, "repo_tag_v1"),
            ("averylongrepo", Some("tag"), 10, "av_tag_tag"),
            ("repo", Some("averylongtag"), 8, "_tag_ave"),
            ("averylongrepo", None, 5, "avery"),
        ] {
            assert_eq!(cut(repository, tag, room), expected);
        }
    }

    #[test]
    fn branches_are_parts_of_tags() {
        assert_eq!(branch("refs/heads/Feature/Foo_Bar").as_deref(), Some("feature-foo-bar"));
        assert_eq!(branch(".-x").as_deref(), Some("x"));
        for none in ["refs/pull/12/merge", "refs/tags/v1", "", "unknown"] {
            assert_eq!(branch(none), None, "{none}");
        }
        assert_eq!(cache_suffix("refs/pull/12/merge").as_deref(), Some("refs-pull-12-merge"));
        assert_eq!((cache_suffix("").as_deref(), cache_suffix("unknown")), (Some("unknown"), None));
    }

    #[test]
    fn releases_have_their_aliases() {
        for (release, tags) in [
            ("v1.2.3", &["v1", "v1.2", "v1.2.3"][..]),
            ("1.2.3-rc1", &["1.2.3-rc1"]),
            ("release/v1.2.3+build", &["release-v1.2.3-build"]),
            ("01.2.3", &["01.2.3"]),
            ("", &[]),
            ("///", &["unknown"]),
        ] {
            assert_eq!(release_tags(release), tags, "{release}");
        }
    }

    #[test]
    fn tags_come_in_order() {
        let base = "nikolaik/python-nodejs:python3.12-nodejs22-slim";
        let input = TagInput {
            commit: Some("abc1234567890"),
            git_reference: Some("refs/heads/Feature/X_y"),
            custom: "python, java ,".split(',').collect(),
            target: Target::SourceMinimal,
            architecture: Some("amd64"),
            ..TagInput::new(base)
        };
        let of = |custom: &str| {
            ["abc1234", "abc1234567890", "feature-x-y"]
                .map(|first| format!("{first}-{custom}-amd64-source-minimal"))
        };
        let mut expected = [of("python"), of("java")].concat();
        expected.push(
            "abc1234-nikolaik_s_python-nodejs_tag_python3.12-nodejs22-slim-amd64-source-minimal".to_owned(),
        );
        assert_eq!(input.tags().expect("tags"), expected);
        let unknown = TagInput::new("debian:11");
        assert_eq!(unknown.tags().expect("tags"), ["unknown-debian_tag_11"]);
        assert_eq!(unknown.cache_tag().expect("tag"), "buildcache-binary-debian_tag_11");
        assert_eq!(unknown.main_cache_tag().expect("tag"), "buildcache-binary-debian_tag_11-main");
    }
}
