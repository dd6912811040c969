//! Sources of real size on a base that is only in the registry: what it costs, and whether everything arrives.
//!
//! The files are those of the libraries of Perl and Python that the packages of `tests/setup/packages.sh` bring, the
//! same wherever the tests run; they are repeated, each time with another last line, until there are enough.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use windlass_tests::image_check::{Ignoring, Image, compare_files};

use crate::project::{self, RECIPE};
use crate::registry::digest_of;
use crate::report::Report;
use crate::rig::{Case, command, lines, same, sent_bytes};
use crate::world::World;

/// So many at least.
const FILES: usize = 5_000;
/// Larger files take their time and prove nothing more.
const FILE_BYTES: u64 = 48 << 10;
/// What a build may send beside its layer: config and manifest.
const BYTES_BESIDE: u64 = 20 << 10;
/// What a build of one layer may ask: 16 times that is, three questions, the manifest and config of the lock image, its
/// three layers, an upload in pieces, one of the config, the manifest. A few more are no fault.
const REQUESTS: usize = 20;

/// The tests of this file.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    vec![world.trial("large_tree::thousands_of_sources_upon_a_registry", thousands)]
}

fn thousands(case: &Case) -> Result<(), Failed> {
    project::write(case, &case.base("debian:bookworm"))?;
    let (oci, docker) = (case.on("oci")?, case.on("docker")?);
    let options = ["--recipe", RECIPE, "--push", "--format", "json"];
    let small = Report::read(&oci.runtime("build", &options)?)?;
    same("mode", small.mode(), "scratch")?;
    let copies = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let from = format!("docker://{}", small.reference("lock"));
    let to = format!("docker://{}:{}", docker.repository(), small.tag("lock"));
    command("skopeo", &[&["copy", "--quiet"], &copies[..], &[&from, &to]].concat())?;
    // Another machine: neither the base nor anything that was built on it is here.
    case.forget()?;
    let expected = write_tree(&case.path("app"))?;
    assert!(expected.len() >= FILES, "only {} files", expected.len());

    let proxy = case.proxy(Vec::new())?;
    let repository = format!("{}/{}", proxy.address(), oci.repository);
    let line = [&["runtime", "build", "--repository", &repository], &options[..]].concat();
    let report = Report::read(&oci.run(&line)?)?;
    same("mode", report.mode(), "lock")?;
    let image = case.image(&format!("{}:{}", oci.repository(), report.tag("source")))?;
    let layer = image.layers.last().ok_or("no layer")?;
    let below = case.world.registry.manifest(&oci.repository, small.tag("lock"))?;
    same("layers", image.layers.len(), below["layers"].as_array().map_or(0, Vec::len) + 1)?;
    same("sources", sources(&image), expected)?;

    let (all, fetched) = (proxy.seen("", ""), proxy.seen("GET", "/blobs/"));
    let config = below["config"]["digest"].as_str().unwrap_or_default();
    let only_the_config = fetched.iter().all(|seen| seen.path().ends_with(config));
    assert!(only_the_config && fetched.len() <= 1, "fetched: {:#?}", lines(&fetched));
    assert!(all.len() <= REQUESTS, "{} requests: {:#?}", all.len(), lines(&all));
    let (sent, limit) = (sent_bytes(&all), layer.size_bytes + BYTES_BESIDE);
    assert!(sent <= limit, "{sent} bytes were sent, and {limit} are enough");

    let other = Report::read(&docker.runtime("build", &options)?)?;
    same("mode", other.mode(), "lock")?;
    let other = case.image(other.result())?;
    let differences = compare_files(&image.files, &other.files, &Ignoring::between_builders());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

/// The files of the image's sources, and their content.
fn sources(image: &Image) -> BTreeMap<PathBuf, String> {
    let below = image.files.iter().filter_map(|(path, entry)| {
        let path = path.strip_prefix("srv/code").ok()?;
        Some((path.to_owned(), format!("sha256:{}", entry.sha256.as_deref()?)))
    });
    below.collect()
}

/// Replaces a directory by a tree of thousands of files, and says what is in it.
fn write_tree(root: &Path) -> Result<BTreeMap<PathBuf, String>, Failed> {
    fs::remove_dir_all(root)?;
    let python = command("python3", &["-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"])?;
    let mut found = Vec::new();
    for library in [Path::new("/usr/share/perl"), Path::new(python.trim())] {
        find(library, library, &mut found)?;
    }
    found.sort();
    let mut tree = BTreeMap::new();
    assert!(found.len() > FILES / 20, "only {} files of libraries", found.len());
    for copy in 0.. {
        for (library, path) in &found {
            if tree.len() >= FILES && copy > 0 {
                return Ok(tree);
            }
            let mut content = fs::read(library.join(path))?;
            content.extend(format!("# copy {copy}\n").into_bytes());
            let place = Path::new(&format!("copy{copy}")).join(path);
            let file = root.join(&place);
            fs::create_dir_all(file.parent().ok_or("no parent")?)?;
            fs::write(&file, &content)?;
            tree.insert(place, digest_of(&content));
        }
    }
    Ok(tree)
}

/// Finds source files below a library.
fn find(library: &Path, directory: &Path, found: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), Failed> {
    for entry in fs::read_dir(directory)? {
        let (entry, kind) =
            entry.and_then(|entry| Ok((entry.file_type()?, entry))).map(|(kind, entry)| (entry, kind))?;
        let path = entry.path();
        let is_cache = ["__pycache__", "dist-packages", "site-packages"]
            .contains(&&*entry.file_name().to_string_lossy());
        if kind.is_dir() && !is_cache {
            find(library, &path, found)?;
        } else if kind.is_file() && entry.metadata()?.len() <= FILE_BYTES {
            let is_source = path
                .extension()
                .is_some_and(|extension| ["py", "pm", "pl", "pod"].iter().any(|known| extension == *known));
            if is_source {
                found.push((library.to_owned(), path.strip_prefix(library)?.to_owned()));
            }
        }
    }
    Ok(())
}
