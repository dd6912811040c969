//! Platforms: `os/architecture[/variant]`, and which one this machine is.
//!
//! Names and normalisation follow containerd's `platforms` package, which `docker` uses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, nearest};

const OSES: &[&str] = &["linux", "windows", "darwin", "freebsd", "wasip1"];
const ARCHITECTURES: &[&str] =
    &["amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "mips64le", "mips64", "loong64", "wasm"];

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    /// The operating system in Go's spelling: `linux`.
    pub os: String,
    /// The architecture in Go's spelling: `amd64`, `arm64`.
    pub architecture: String,
    /// The variant of the architecture: `v7` of `arm`.
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of images for this machine: Linux on this machine's architecture.
    pub fn host() -> Self {
        let (architecture, variant) = normalise(std::env::consts::ARCH, None);
        Self { os: "linux".to_owned(), architecture, variant }
    }

    /// Makes a platform from the fields of an image config, in normal form: `arm64/v8` is `arm64`.
    pub fn from_parts(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = normalise(architecture, variant);
        Self { os: os.to_owned(), architecture, variant }
    }

    /// Says whether an image for `offered` can stand in for one asked for as `self`.
    /// A variant that was not asked for does not matter.
    pub fn accepts(&self, offered: &Self) -> bool {
        self.os == offered.os
            && self.architecture == offered.architecture
            && (self.variant.is_none() || self.variant == offered.variant)
    }
}

/// `aarch64` and `arm64/v8` are `arm64`; `x86_64` is `amd64`; plain `arm` is `arm/v7`.
fn normalise(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let (architecture, variant) = match (architecture, variant.filter(|v| !v.is_empty())) {
        ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
        ("aarch64", variant) => ("arm64", variant),
        ("i386" | "i686" | "x86" | "386", _) => ("386", None),
        ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
        ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
        ("arm", Some("5")) => ("arm", Some("v5")),
        ("powerpc64le", variant) => ("ppc64le", variant),
        other => other,
    };
    (architecture.to_owned(), variant.map(str::to_owned))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Reads `os/architecture[/variant]`; also `os` or `architecture` alone, as `docker` does.
    fn from_str(text: &str) -> Result<Self, Error> {
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let host = Self::host();
        let platform = match parts[..] {
            ["local" | "host"] => host,
            [os] if OSES.contains(&os) => Self { os: os.to_owned(), ..host },
            [architecture] => Self::from_parts("linux", architecture, None),
            [os, architecture] => Self::from_parts(os, architecture, None),
            [os, architecture, variant] if !variant.is_empty() => {
                Self::from_parts(os, architecture, Some(variant))
            }
            _ => return Err(invalid(text)),
        };
        for (part, known) in [(&platform.os, OSES), (&platform.architecture, ARCHITECTURES)] {
            if !known.contains(&part.as_str()) {
                let error = invalid(text).with_detail("unknown part", part.clone());
                return Err(match nearest(part, known.iter().copied()) {
                    Some(name) => error.with_hint(format!("did you mean `{name}`?")),
                    None => error.with_hint(format!("known: {}", known.join(", "))),
                });
            }
        }
        Ok(platform)
    }
}

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("unknown platform `{text}`"))
        .with_hint("a platform is `os/architecture[/variant]`, such as `linux/amd64` or `linux/arm/v7`")
}

impl Serialize for Platform {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_normalises() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("arm64", "linux/arm64"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
        ] {
            assert_eq!(text.parse::<Platform>().expect(text).to_string(), expected);
        }
    }

    #[test]
    fn an_unknown_one_names_the_nearest() {
        let error = "linux/amd46".parse::<Platform>().expect_err("unknown");
        assert!(error.hints().iter().any(|hint| hint.contains("`amd64`")), "{error:?}");
        for text in ["", "linux/", "linux//v7", "a/b/c/d"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
