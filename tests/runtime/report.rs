//! What `windlass runtime build --format json` says.

use libtest_mimic::Failed;
use serde_json::Value;
use windlass_tests::place::Outcome;

/// The tags of a runtime image, the most exact first.
pub(crate) const TAGS: [&str; 3] = ["source", "lock", "versioned"];

/// A report of a build, or a plan.
#[derive(Debug)]
pub(crate) struct Report(pub(crate) Value);

impl Report {
    /// Reads it; the run must have ended well.
    pub(crate) fn read(outcome: &Outcome) -> Result<Self, Failed> {
        Ok(Self(serde_json::from_str(outcome.good()?)?))
    }

    /// `scratch`, `versioned`, `lock`, or `reuse`.
    pub(crate) fn mode(&self) -> &str {
        let decision = &self.0["decision"];
        if decision["action"] == "reuse" { "reuse" } else { decision["mode"].as_str().unwrap_or("unknown") }
    }

    /// What it was built on.
    pub(crate) fn base_image(&self) -> &str {
        self.0["decision"]["base_image"].as_str().unwrap_or_default()
    }

    /// The reference of one of [`TAGS`].
    pub(crate) fn reference(&self, tag: &str) -> &str {
        self.0["names"]["tags"][tag].as_str().unwrap_or_default()
    }

    /// The same without its repository.
    pub(crate) fn tag(&self, tag: &str) -> &str {
        self.reference(tag).rsplit(':').next().unwrap_or_default()
    }

    /// Which of [`TAGS`] are set.
    pub(crate) fn set(&self) -> Vec<&'static str> {
        self.among(&self.0["decision"]["tags"])
    }

    /// Which of [`TAGS`] exist and stay as they are.
    pub(crate) fn kept(&self) -> Vec<&'static str> {
        self.among(&self.0["decision"]["kept"])
    }

    fn among(&self, references: &Value) -> Vec<&'static str> {
        let has = |tag: &&str| {
            references.as_array().into_iter().flatten().any(|reference| reference == self.reference(tag))
        };
        TAGS.into_iter().filter(has).collect()
    }

    /// The reference of the result.
    pub(crate) fn result(&self) -> &str {
        self.0["result"].as_str().unwrap_or_default()
    }

    /// Its digest.
    pub(crate) fn digest(&self) -> &str {
        self.0["digest"].as_str().unwrap_or_default()
    }
}
