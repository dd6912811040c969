//! A context of real size: thousands of source files as cargo has fetched them, the same from every backend.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libtest_mimic::{Completion, Failed, Trial};
use windlass_tests::image_check::{Ignoring, Image, Platform, compare};
use windlass_tests::scenario::scenario;

use crate::outputs::run;
use crate::rig::{Rig, Setup, shown};
use crate::suite::{BACKENDS, LOCAL};
use crate::world::World;

/// Enough to be of real size, few enough to be quick.
const FILES: usize = 4_000;

/// The tests of this file.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    let world = world.clone();
    vec![Trial::ignorable_test("same::context_of_thousands_of_files", move || match crates_of_cargo() {
        Some(crates) => sources(&world, &crates).map(|()| Completion::Completed),
        None => Ok(Completion::ignored_with("cargo has not fetched any crate on this machine")),
    })]
}

/// The directories of fetched crates, sorted.
fn crates_of_cargo() -> Option<Vec<PathBuf>> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let registries = fs::read_dir(home.join("registry/src")).ok()?.flatten();
    let crates = registries.filter_map(|registry| fs::read_dir(registry.path()).ok()).flatten().flatten();
    let mut crates: Vec<PathBuf> = crates.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    crates.sort();
    (!crates.is_empty()).then_some(crates)
}

fn sources(world: &World, crates: &[PathBuf]) -> Result<(), Failed> {
    let root = world.directory("same/context_of_thousands_of_files");
    let scenario = scenario("sources")
        .file(".dockerignore", "**/*.md\n!**/README.md\n**/tests\n**/.*\n")
        .dockerfile("FROM scratch\nCOPY . /src/\nCOPY */src/lib.rs /lib/\n");
    let mut images = Vec::new();
    for backend in BACKENDS {
        let setup = Setup::of(world, &root, backend);
        let rig = Rig::new(&root, setup).map_err(|error| shown(&error))?;
        let request = rig.request(world, &scenario).map_err(|error| shown(&error))?;
        if backend == BACKENDS[0] {
            copy_crates(crates, &root.join("context"))?;
        }
        let pushed = rig.push(world, request, "real-size").map_err(|error| shown(&error))?;
        let image = Image::from_registry(&pushed, &Platform::amd64())?;
        let first = images.first().unwrap_or(&image);
        let local = LOCAL.contains(&backend);
        let ignoring = if local { Ignoring::between_builders() } else { Ignoring::default() };
        let differences = compare(first, &image, &ignoring);
        assert!(differences.is_empty(), "{backend}: {}", differences.join("\n"));
        images.push(image);
    }
    let entries = images[0].files.iter().count();
    assert!(entries > FILES / 2, "only {entries} entries");
    Ok(())
}

/// Copies whole crates until there are enough files.
fn copy_crates(crates: &[PathBuf], context: &Path) -> Result<(), Failed> {
    let mut files = 0;
    for directory in crates {
        files += crate::left_over::files(directory).len();
        run(
            "cp",
            &[
                "--recursive",
                "--no-dereference",
                &directory.display().to_string(),
                &context.display().to_string(),
            ],
        )?;
        if files >= FILES {
            break;
        }
    }
    Ok(())
}
