//! A scenario: a small context, a request, and what the image must turn out to be. Data, and nothing of how it is run.
//!
//! Texts may hold `{registry}`, `{busybox}`, `{debian}`, `{bases}` and `{root}`: [`Places`] knows what they stand for.
//! Next: `tree.rs`, how a context gets onto the disk; `expect.rs`, what an image is held against.
//!
//! ```
//! use windlass_tests::scenario::{at, scenario};
//!
//! let scenario = scenario("copy_keeps_the_mode")
//!     .file("tool", "#!/bin/sh\n").mode(0o755)
//!     .dockerfile("FROM scratch\nCOPY tool /bin/\n")
//!     .expect(at("/bin/tool").file("#!/bin/sh\n").mode(0o755).owner(0, 0));
//! assert_eq!(scenario.name, "copy_keeps_the_mode");
//! ```

mod expect;
mod tree;

use windlass_core::ErrorKind;
use windlass_core::backend::Feature;

pub use expect::{Expectation, absent, at, config, only};
pub use tree::{Content, Item};

/// Everything about one scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name in the list of tests: what happens, in snake case.
    pub name: &'static str,
    /// What lies under the root; the context is the directory `context`.
    pub items: Vec<Item>,
    /// Path of the Dockerfile within the context.
    pub dockerfile_path: &'static str,
    /// `None` if there is none.
    pub dockerfile: Option<Vec<u8>>,
    /// The request beyond context and Dockerfile.
    pub options: Options,
    /// What a backend needs for it, besides what its options need.
    pub needs: Vec<Feature>,
    /// What the image must be like; the backend's type name where only its image must be so.
    pub expectations: Vec<(Option<&'static str>, Expectation)>,
    /// How it fails. The first that is for a backend counts; a backend that has none makes an image.
    pub failures: Vec<Failure>,
    /// What a backend, named by its type, must warn of.
    pub warnings: Vec<(&'static str, &'static str)>,
    /// Differences between the backends that are by design, with the reason.
    pub differs: Vec<Difference>,
}

/// What is asked for, in the words of the command line.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--target`
    pub target: Option<&'static str>,
    /// `--platform`; with more than one the result is an index.
    pub platforms: Vec<&'static str>,
    /// `--build-arg`
    pub build_args: Vec<(&'static str, &'static str)>,
    /// `--label`
    pub labels: Vec<(&'static str, &'static str)>,
    /// `--annotation`
    pub annotations: Vec<(&'static str, &'static str)>,
    /// `--build-context`
    pub contexts: Vec<(&'static str, NamedContext)>,
    /// `SOURCE_DATE_EPOCH`, with times in layers rewritten.
    pub source_date_epoch: Option<i64>,
    /// The engine of this scenario is the one with the containerd image store.
    pub on_containerd: bool,
}

/// A named context; paths and references with placeholders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedContext {
    /// `docker-image://…`
    Image(&'static str),
    /// `oci-layout://directory:tag`
    Layout(&'static str, &'static str),
    /// A directory.
    Directory(&'static str),
}

/// How a build fails.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The type name of the backend; `None` for all of them.
    pub backend: Option<&'static str>,
    /// The kind of the error.
    pub kind: ErrorKind,
    /// Texts that must stand somewhere in what the user sees of it.
    pub says: Vec<&'static str>,
}

/// A place where two right builders differ, and why that is so.
#[derive(Debug, Clone)]
pub struct Difference {
    /// A path of the image, if it starts with `/`; `error/kind` or `error/line` if both fail; else a place of the
    /// config as in `history/1/created_by`; empty if one backend makes no image at all.
    pub place: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// Starts a scenario with an empty context and no Dockerfile.
pub fn scenario(name: &'static str) -> Scenario {
    Scenario {
        name,
        items: Vec::new(),
        dockerfile_path: "Dockerfile",
        dockerfile: None,
        options: Options::default(),
        needs: Vec::new(),
        expectations: Vec::new(),
        failures: Vec::new(),
        warnings: Vec::new(),
        differs: Vec::new(),
    }
}

impl Scenario {
    /// The Dockerfile.
    #[must_use]
    pub fn dockerfile(mut self, content: impl AsRef<[u8]>) -> Self {
        self.dockerfile = Some(content.as_ref().to_vec());
        self
    }

    /// The Dockerfile, at this path of the context.
    #[must_use]
    pub fn dockerfile_at(mut self, path: &'static str, content: &str) -> Self {
        self.dockerfile_path = path;
        self.dockerfile(content)
    }

    /// `--target`
    #[must_use]
    pub fn target(mut self, stage: &'static str) -> Self {
        self.options.target = Some(stage);
        self
    }

    /// `--platform`; several calls make an index.
    #[must_use]
    pub fn platform(mut self, platform: &'static str) -> Self {
        self.options.platforms.push(platform);
        self
    }

    /// `--build-arg`
    #[must_use]
    pub fn build_arg(mut self, name: &'static str, value: &'static str) -> Self {
        self.options.build_args.push((name, value));
        self
    }

    /// `--label`
    #[must_use]
    pub fn label(mut self, name: &'static str, value: &'static str) -> Self {
        self.options.labels.push((name, value));
        self
    }

    /// `--build-context`
    #[must_use]
    pub fn context(mut self, name: &'static str, context: NamedContext) -> Self {
        self.options.contexts.push((name, context));
        self
    }

    /// `SOURCE_DATE_EPOCH`: then the modification times must be equal as well.
    #[must_use]
    pub fn source_date_epoch(mut self, seconds: i64) -> Self {
        self.options.source_date_epoch = Some(seconds);
        self
    }

    /// The backend must have this.
    #[must_use]
    pub fn needs(mut self, feature: Feature) -> Self {
        self.needs.push(feature);
        self
    }

    /// The image must be so. Several calls add up.
    #[must_use]
    pub fn expect(mut self, expectation: Expectation) -> Self {
        self.expectations.push((None, expectation));
        self
    }

    /// The image that this backend makes must be so; say with [`differs`](Self::differs) why the others need not.
    #[must_use]
    pub fn expect_on(mut self, backend: &'static str, expectation: Expectation) -> Self {
        self.expectations.push((Some(backend), expectation));
        self
    }

    /// Every backend that has no failure of its own must fail so, saying all of these.
    #[must_use]
    pub fn fails(self, kind: ErrorKind, says: &[&'static str]) -> Self {
        self.add_failure(None, kind, says)
    }

    /// This backend must fail so. One that has no failure at all makes an image: say why with
    /// [`differs`](Self::differs).
    #[must_use]
    pub fn fails_on(self, backend: &'static str, kind: ErrorKind, says: &[&'static str]) -> Self {
        self.add_failure(Some(backend), kind, says)
    }

    fn add_failure(mut self, backend: Option<&'static str>, kind: ErrorKind, says: &[&'static str]) -> Self {
        self.failures.push(Failure { backend, kind, says: says.to_vec() });
        self
    }

    /// This backend must make the image and warn, in words with this text.
    #[must_use]
    pub fn warns_on(mut self, backend: &'static str, text: &'static str) -> Self {
        self.warnings.push((backend, text));
        self
    }

    /// How this backend must fail; `None` if it makes an image.
    pub fn failure(&self, backend: &str) -> Option<&Failure> {
        self.failures.iter().find(|failure| failure.backend.is_none_or(|only| only == backend))
    }

    /// The images may differ at this place, for this reason.
    #[must_use]
    pub fn differs(mut self, place: &'static str, reason: &'static str) -> Self {
        self.differs.push(Difference { place, reason });
        self
    }
}

/// What the placeholders in a scenario's texts stand for.
#[derive(Debug, Clone)]
pub struct Places {
    /// `{registry}`: `127.0.0.1:PORT`.
    pub registry: String,
    /// `{bases}`: the directory of the base images as OCI layouts.
    pub bases: String,
    /// `{root}`: the directory of the scenario, in which `context` lies.
    pub root: String,
}

impl Places {
    /// The text with all placeholders replaced.
    pub fn fill(&self, text: &str) -> String {
        text.replace("{busybox}", "{registry}/base/busybox:1")
            .replace("{debian}", "{registry}/base/debian:bookworm")
            .replace("{registry}", &self.registry)
            .replace("{bases}", &self.bases)
            .replace("{root}", &self.root)
    }

    /// The same for a text that need not be UTF-8: where it is not, it has no placeholders.
    pub fn fill_bytes(&self, text: &[u8]) -> Vec<u8> {
        std::str::from_utf8(text).map_or_else(|_| text.to_vec(), |text| self.fill(text).into_bytes())
    }
}
