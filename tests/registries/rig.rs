//! What a test has at hand: the world, a place, a repository of its own, an image to send.

use std::ops::Deref;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use windlass_tests::image_check::{Ignoring, Image, Platform, compare};
use windlass_tests::place::{Outcome, Place, Program};
use windlass_tests::service::{Fault, FaultProxy, Registry};

use crate::world::World;

/// Short waits, and sizes that small blobs reach. A proxy is only where a test puts one.
const SETTINGS: &str = "\
[retries]
count = 3
first-wait = \"10ms\"
[timeouts]
answer = \"2s\"
silence = \"1s\"
blob-answer = \"2s\"
[transfers]
whole-limit = \"64KiB\"
piece-size = \"32KiB\"
";

/// Two layers: one that is sent whole, and one that is sent in pieces.
pub(crate) const SMALL_BYTES: usize = 20 << 10;
pub(crate) const LARGE_BYTES: usize = 150 << 10;
/// A piece of the settings above.
pub(crate) const PIECE_BYTES: u64 = 32 << 10;

/// Makes tests.
#[derive(Clone)]
pub(crate) struct Rig {
    world: Option<Arc<World>>,
    program: Arc<Program>,
}

impl Rig {
    pub(crate) fn new(world: Option<World>) -> Self {
        Self { world: world.map(Arc::new), program: Arc::default() }
    }

    /// A test of this name, which is also that of its repository.
    pub(crate) fn trial(
        &self,
        name: &str,
        test: impl FnOnce(&Test) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        let (rig, repository) = (self.clone(), name.replace("::", "/"));
        Trial::test(name, move || {
            let world = rig.world.ok_or("nothing is up")?;
            let place = Place::new(&rig.program)?;
            let own = Test { world, place, repository };
            own.settings("")?;
            test(&own)
        })
    }
}

/// One test.
pub(crate) struct Test {
    pub(crate) world: Arc<World>,
    pub(crate) place: Place,
    /// Of every registry.
    pub(crate) repository: String,
}

impl Deref for Test {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Test {
    /// Writes the settings of all tests, and these.
    pub(crate) fn settings(&self, more: &str) -> Result<(), Failed> {
        self.write("windlass.toml", format!("{SETTINGS}{more}"))
    }

    /// A proxy in front of the open registry.
    pub(crate) fn proxy(&self, faults: Vec<Fault>) -> Result<FaultProxy, Failed> {
        Ok(FaultProxy::start(self.world.open.address(), faults)?)
    }

    /// `REGISTRY/REPOSITORY:1`
    pub(crate) fn tag(&self, address: &str) -> String {
        format!("{address}/{}:1", self.repository)
    }

    /// Runs the program; credentials are where a test puts them.
    pub(crate) fn windlass(&self, arguments: &[&str]) -> Result<Outcome, Failed> {
        self.windlass_with(arguments, &[])
    }

    /// Runs the program with these variables besides.
    pub(crate) fn windlass_with(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Outcome, Failed> {
        let docker = self.home(".docker").display().to_string();
        let own = [("DOCKER_CONFIG", docker.as_str()), ("NO_COLOR", "1")];
        let more: Vec<(&str, &str)> = own.into_iter().chain(variables.iter().copied()).collect();
        self.run_with(arguments, &more)
    }

    /// Makes an image of these many bytes a layer that cannot be compressed: an OCI layout `layout`.
    pub(crate) fn make_image(&self, layers: &[usize]) -> Result<Image, Failed> {
        let mut dockerfile = "FROM scratch\n".to_owned();
        for (number, size) in layers.iter().enumerate() {
            self.write(&format!("file{number}"), noise(&format!("{} {number}", self.repository), *size))?;
            dockerfile += &format!("COPY file{number} /\n");
        }
        self.write("Dockerfile", dockerfile)?;
        self.windlass(&["build", ".", "-o", "type=oci,dest=layout,tar=false"])?.good()?;
        Ok(Image::from_layout(&self.path("layout"), None, &Platform::amd64())?)
    }

    /// Sends `layout` to the repository of this test.
    pub(crate) fn push(&self, address: &str) -> Result<Outcome, Failed> {
        self.windlass(&["image", "push", "layout", &self.tag(address)])
    }

    /// The open registry has exactly this image, and no upload is open.
    pub(crate) fn arrived(&self, image: &Image) -> Result<(), Failed> {
        let pushed = Image::from_registry(&self.tag(self.world.open.address()), &Platform::amd64())?;
        let differences = compare(image, &pushed, &Ignoring::default());
        assert_eq!(pushed.root_digest, image.root_digest);
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        self.leaves_nothing(&self.world.open)
    }

    /// No upload is open at a registry, and nothing half-written lies in the store.
    pub(crate) fn leaves_nothing(&self, registry: &Registry) -> Result<(), Failed> {
        let uploads = registry.open_uploads(&self.repository);
        assert!(uploads.is_empty(), "left open: {uploads:?}");
        let incoming = self.store().join("incoming");
        let left = std::fs::read_dir(&incoming).map_or(0, Iterator::count);
        assert_eq!(left, 0, "half-written in {}", incoming.display());
        Ok(())
    }

    /// Writes a file with credentials in Docker's form and gives the directory, for `DOCKER_CONFIG`.
    pub(crate) fn credentials(&self, document: &serde_json::Value) -> Result<(), Failed> {
        std::fs::create_dir_all(self.home(".docker"))?;
        Ok(std::fs::write(self.home(".docker/config.json"), document.to_string())?)
    }

    /// The account of the registries, for this host.
    pub(crate) fn log_in(&self, host: &str) -> Result<(), Failed> {
        self.credentials(&serde_json::json!({ "auths": { host: account() } }))
    }
}

/// The entry of the account in `auths`.
pub(crate) fn account() -> serde_json::Value {
    // windlass:secret
    serde_json::json!({ "auth": "d2luZGxhc3M6c2VjcmV0" })
}

/// So many bytes of request bodies came through a proxy.
pub(crate) fn sent_bytes(proxy: &FaultProxy) -> u64 {
    proxy.seen("", "/blobs/uploads/").iter().map(|seen| seen.body_bytes).sum()
}

/// Bytes of the blobs of an image.
pub(crate) fn blob_bytes(image: &Image) -> u64 {
    let config = image.manifest["config"]["size"].as_u64().unwrap_or_default();
    image.layers.iter().map(|layer| layer.size_bytes).sum::<u64>() + config
}

/// Bytes that look random and are the same every time.
pub(crate) fn noise(seed: &str, size_bytes: usize) -> Vec<u8> {
    let mut state = seed.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = Vec::with_capacity(size_bytes + 8);
    while bytes.len() < size_bytes {
        bytes.extend(next().to_le_bytes());
    }
    bytes.truncate(size_bytes);
    bytes
}

/// Runs another program to its good end and gives what it printed.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Result<String, Failed> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{program} {}`: {stderr}", arguments.join(" ")).into())
}
