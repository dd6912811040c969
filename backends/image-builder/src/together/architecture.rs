//! What a snapshot runs on: there are two architectures.

use std::fmt;

use serde::{Serialize, Serializer};
use windlass_core::backend_registry::Host;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::platform::Platform;

/// The variable that says what the images of the image-builder are for.
pub const ARCHITECTURE_VARIABLE: &str = "TOGETHER_REMOTE_ARCHITECTURE";

/// An architecture that snapshots run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `amd64`
    Amd64,
    /// `arm64`
    Arm64,
}

impl Architecture {
    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The architecture of a platform; `None` for one that snapshots do not run on.
    pub fn of(platform: &Platform) -> Option<Self> {
        match (platform.os.as_str(), platform.architecture.as_str()) {
            ("linux", "amd64" | "x86_64") => Some(Self::Amd64),
            ("linux", "arm64" | "aarch64") => Some(Self::Arm64),
            _ => None,
        }
    }

    /// The platform that images for it are built for.
    pub fn platform(self) -> Platform {
        Platform::from_parts("linux", self.name(), None)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Architecture {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// An architecture that the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedArchitecture {
    /// Which.
    pub architecture: Architecture,
    /// By what, for messages: `--platform`.
    pub by: &'static str,
}

impl AskedArchitecture {
    /// What `--platform` asks for.
    ///
    /// # Errors
    /// `InvalidInput` if it is no platform; `Unsupported` if snapshots do not run on it.
    pub fn of_platform(text: &str) -> Result<Self> {
        let platform: Platform = text.parse()?;
        match Architecture::of(&platform) {
            Some(architecture) => Ok(Self { architecture, by: "--platform" }),
            None => Err(not_for_snapshots(&format!("`--platform {text}`"))),
        }
    }

    /// What [`ARCHITECTURE_VARIABLE`] asks for; an empty variable counts as unset.
    ///
    /// # Errors
    /// `InvalidConfig` for a word that the variable does not have: only `amd64` and `arm64`.
    pub fn of_environment(host: &Host) -> Result<Option<Self>> {
        let architecture = match host.variable(ARCHITECTURE_VARIABLE) {
            None => return Ok(None),
            Some("amd64") => Architecture::Amd64,
            Some("arm64") => Architecture::Arm64,
            // The words of the original.
            Some(other) => {
                let message = format!(
                    r#"Invalid {ARCHITECTURE_VARIABLE}="{other}"; expected one of: ["amd64","arm64"]"#
                );
                return Err(Error::new(ErrorKind::InvalidConfig, message));
            }
        };
        Ok(Some(Self { architecture, by: ARCHITECTURE_VARIABLE }))
    }

    /// Refuses an image for something else.
    ///
    /// # Errors
    /// `InvalidInput` if the image is for another architecture.
    pub fn accept(self, image: &str, seen: Architecture) -> Result<()> {
        if seen == self.architecture {
            return Ok(());
        }
        let message = format!("`{image}` is for {seen}, and `{}` asks for {}", self.by, self.architecture);
        Err(Error::new(ErrorKind::InvalidInput, message)
            .with_hint("no snapshot was made: it could not run; change what is asked for, or the base image"))
    }
}

/// The error for a platform that snapshots do not run on.
pub(super) fn not_for_snapshots(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{what}: snapshots do not run on that"))
        .with_hint("there are snapshots for `linux/amd64` and `linux/arm64`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_known() {
        for (text, expected) in [
            ("linux/amd64", Architecture::Amd64),
            ("x86_64", Architecture::Amd64),
            ("linux/arm64", Architecture::Arm64),
            ("aarch64", Architecture::Arm64),
            ("linux/arm64/v8", Architecture::Arm64),
        ] {
            assert_eq!(AskedArchitecture::of_platform(text).expect(text).architecture, expected);
        }
        for text in ["linux/riscv64", "windows/amd64"] {
            assert_eq!(AskedArchitecture::of_platform(text).expect_err(text).kind(), ErrorKind::Unsupported);
        }
    }

    #[test]
    fn another_architecture_is_refused() {
        let asked = AskedArchitecture::of_platform("linux/arm64").expect("known");
        assert!(asked.accept("r/a:1", Architecture::Arm64).is_ok());
        let error = asked.accept("r/a:1", Architecture::Amd64).expect_err("another");
        assert_eq!(error.message(), "`r/a:1` is for amd64, and `--platform` asks for arm64");
    }
}
