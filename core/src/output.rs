//! Where a build puts its result: `-o type=oci,dest=out.tar` and its relatives.
//!
//! The syntax and the names are those of `docker buildx build --output`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use crate::backend::Feature;
use crate::error::{Error, ErrorKind, nearest};

const TYPES: &[&str] = &["image", "registry", "oci", "docker", "tar", "local", "cacheonly"];

/// What form the result takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// The backend's own image store (the default); with `push=true` the registry as well.
    Image,
    /// Pushed to the registry of its tags: `--push`.
    Registry,
    /// An OCI layout: an archive, or with `tar=false` a directory.
    Oci,
    /// Without `dest` the docker engine (`--load`); with it an archive for `docker load`.
    Docker,
    /// The root file system as one tar archive.
    Tar,
    /// The root file system as files.
    Local,
    /// Nothing: only the cache is filled.
    CacheOnly,
}

/// A place in the file system, or the standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destination {
    /// `dest=-`, or by another of its names: see [`is_stdout`].
    Stdout,
    /// `dest=PATH`
    Path(PathBuf),
}

/// Says whether a path is a name of the standard output: `-`, or what the system calls it.
pub fn is_stdout(path: &Path) -> bool {
    matches!(path.to_str(), Some("-" | "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1"))
}

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Output {
    /// What form the result takes.
    pub kind: OutputKind,
    /// Where it goes; `None` where the form needs no place.
    pub destination: Option<Destination>,
    /// Everything else, in the words of buildx: `compression=zstd`, `name=…`, `tar=false`.
    pub attributes: BTreeMap<String, String>,
}

impl Output {
    /// The result in the backend's own store, as when no output is given.
    pub fn image() -> Self {
        Self::of(OutputKind::Image)
    }

    /// `--push`
    pub fn push() -> Self {
        Self::of(OutputKind::Registry)
    }

    /// `--load`
    pub fn load() -> Self {
        Self::of(OutputKind::Docker)
    }

    fn of(kind: OutputKind) -> Self {
        Self { kind, destination: None, attributes: BTreeMap::new() }
    }

    /// Says whether the result goes to a registry.
    pub fn pushes(&self) -> bool {
        self.kind == OutputKind::Registry
            || (self.kind == OutputKind::Image && self.flag("push").unwrap_or(false))
    }

    /// Says whether the result is loaded into a docker engine.
    pub fn loads(&self) -> bool {
        self.kind == OutputKind::Docker && self.destination.is_none()
    }

    /// A boolean attribute: `None` if it is not given or is no boolean.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.attributes.get(name).and_then(|value| match value.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })
    }

    /// What a backend must be able to do for this output.
    pub fn feature(&self) -> Feature {
        match (self.kind, &self.destination) {
            (OutputKind::Image, _) if self.pushes() => Feature::Push,
            (OutputKind::Image, _) => Feature::Store,
            (OutputKind::Registry, _) => Feature::Push,
            (OutputKind::Oci, _) => Feature::OciArchive,
            (OutputKind::Docker, None) => Feature::Load,
            (OutputKind::Docker, Some(_)) => Feature::DockerArchive,
            (OutputKind::Tar | OutputKind::Local, _) => Feature::RootFilesystem,
            (OutputKind::CacheOnly, _) => Feature::CacheOnly,
        }
    }
}

/// As buildx writes it: `type=oci,dest=out.tar,compression=zstd`.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            OutputKind::Image => "image",
            OutputKind::Registry => "registry",
            OutputKind::Oci => "oci",
            OutputKind::Docker => "docker",
            OutputKind::Tar => "tar",
            OutputKind::Local => "local",
            OutputKind::CacheOnly => "cacheonly",
        };
        write!(f, "type={kind}")?;
        match &self.destination {
            Some(Destination::Stdout) => write!(f, ",dest=-")?,
            Some(Destination::Path(path)) => write_field(f, "dest", &path.to_string_lossy())?,
            None => {}
        }
        self.attributes.iter().try_for_each(|(name, value)| write_field(f, name, value))
    }
}

/// One field of a CSV record: quoted as a whole when it has a comma or a quote in it.
fn write_field(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    if value.contains([',', '"']) {
        write!(f, ",\"{name}={}\"", value.replace('"', "\"\""))
    } else {
        write!(f, ",{name}={value}")
    }
}

impl FromStr for Output {
    type Err = Error;

    /// Reads `type=T,dest=D,…`, and as buildx does a lone path (`type=local`) or `-` (`type=tar`).
    fn from_str(text: &str) -> Result<Self, Error> {
        let fields = split_csv(text).ok_or_else(|| invalid(text, "a quote is not closed"))?;
        if let [lone] = &fields[..]
            && !lone.contains('=')
        {
            return match lone.as_str() {
                "" => Err(invalid(text, "it is empty")),
                "-" => Ok(Self { destination: Some(Destination::Stdout), ..Self::of(OutputKind::Tar) }),
                path => Ok(Self {
                    destination: Some(Destination::Path(path.into())),
                    ..Self::of(OutputKind::Local)
                }),
            };
        }
        let mut kind = None;
        let mut destination = None;
        let mut attributes = BTreeMap::new();
        for field in &fields {
            let (name, value) = field
                .split_once('=')
                .ok_or_else(|| invalid(text, &format!("`{field}` is not `name=value`")))?;
            match name.trim().to_ascii_lowercase().as_str() {
                "type" => kind = Some(parse_kind(text, value)?),
                "dest" | "output" if is_stdout(Path::new(value)) => destination = Some(Destination::Stdout),
                "dest" | "output" => destination = Some(Destination::Path(value.into())),
                name => {
                    attributes.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        let kind = kind.ok_or_else(|| invalid(text, "`type=` is missing"))?;
        let output = Self { kind, destination, attributes };
        output.check(text)?;
        Ok(output)
    }
}

impl Output {
    fn check(&self, text: &str) -> Result<(), Error> {
        let to_directory = self.kind == OutputKind::Local
            || (self.kind == OutputKind::Oci && self.flag("tar") == Some(false));
        match (self.kind, &self.destination) {
            (OutputKind::Oci | OutputKind::Tar | OutputKind::Local, None) => {
                Err(invalid(text, "`dest=` is missing"))
            }
            (_, Some(Destination::Stdout)) if to_directory => {
                Err(invalid(text, "a directory cannot go to the standard output"))
            }
            (OutputKind::Image | OutputKind::Registry | OutputKind::CacheOnly, Some(_)) => {
                Err(invalid(text, "this type takes no `dest=`"))
            }
            _ => Ok(()),
        }
    }
}

fn parse_kind(text: &str, value: &str) -> Result<OutputKind, Error> {
    Ok(match value {
        "image" => OutputKind::Image,
        "registry" => OutputKind::Registry,
        "oci" => OutputKind::Oci,
        "docker" => OutputKind::Docker,
        "tar" => OutputKind::Tar,
        "local" => OutputKind::Local,
        "cacheonly" => OutputKind::CacheOnly,
        unknown => {
            let error = invalid(text, &format!("`{unknown}` is not a type of output"));
            return Err(match nearest(unknown, TYPES.iter().copied()) {
                Some(name) => error.with_hint(format!("did you mean `type={name}`?")),
                None => error.with_hint(format!("known types: {}", TYPES.join(", "))),
            });
        }
    })
}

/// Splits one CSV record, as buildx reads its options: a quoted field may hold commas, `""` in it
/// is a quote. `None` if a quote is not closed.
pub fn split_csv(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut()?;
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    (!quoted).then_some(fields)
}

fn invalid(text: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("invalid output `{text}`")).with_source(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_buildx_reads() {
        for (text, back) in [
            ("type=oci,dest=out.tar", "type=oci,dest=out.tar"),
            ("type=oci,dest=d,tar=false", "type=oci,dest=d,tar=false"),
            ("out", "type=local,dest=out"),
            ("-", "type=tar,dest=-"),
            ("type=tar,dest=/dev/stdout", "type=tar,dest=-"),
            ("type=image,push=true", "type=image,push=true"),
            ("type=tar,\"dest=a,b\"", "type=tar,\"dest=a,b\""),
        ] {
            assert_eq!(text.parse::<Output>().expect(text).to_string(), back);
        }
        assert!("type=image,push=true".parse::<Output>().expect("valid").pushes());
        assert!("type=docker".parse::<Output>().expect("valid").loads());
    }

    #[test]
    fn refuses_what_cannot_work() {
        for text in [
            "",
            "type=oci",
            "type=local,dest=-",
            "type=orci,dest=x",
            "type=tar,dest",
            "dest=x",
            "type=image,dest=x",
        ] {
            assert!(text.parse::<Output>().is_err(), "{text}");
        }
    }
}
