//! The corpus: the small Dockerfiles of `tests/corpus`, each built on both backends, and the images or errors compared.
//!
//! A case is a directory; its format is told in `tests/corpus/README.md` and read in `case.rs`. The base images that are
//! made for the corpus are in `bases.rs`, and what both of them are made of in `made.rs`.

mod bases;
mod case;
mod made;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Failed, Trial};

use crate::suite::Case;
use crate::world::World;

/// Makes the tests of the corpus, one a case.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let bases: Arc<OnceLock<Result<(), String>>> = Arc::default();
    let mut trials = vec![Trial::test("corpus::every_difference_is_listed", {
        let corpus = corpus.clone();
        move || every_difference_is_listed(&corpus)
    })];
    for directory in cases(&corpus) {
        let (world, bases, corpus) = (world.clone(), bases.clone(), corpus.clone());
        let name = name_of(&directory, &corpus);
        trials.push(Trial::ignorable_test(format!("corpus::{name}"), move || {
            bases.get_or_init(|| bases::push(&corpus, &world)).clone()?;
            let (scenario, backends) = case::read(&directory, &name)?;
            Case::new(&world, scenario).check_on(backends)
        }));
    }
    trials
}

/// The directories of all cases, in order: `AREA/NAME` with a Dockerfile or a `case.toml` in it.
fn cases(corpus: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = directories(corpus).iter().flat_map(|area| directories(area)).collect();
    found.sort();
    found
}

fn directories(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).collect()
}

/// `area::name`
fn name_of(directory: &Path, corpus: &Path) -> String {
    let parts = directory.strip_prefix(corpus).unwrap_or(directory).iter();
    parts.map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("::")
}

/// `DIFFERENCES.md` names each case that has a difference, as `area/name`, and no other.
fn every_difference_is_listed(corpus: &Path) -> Result<(), Failed> {
    let text = fs::read_to_string(corpus.join("DIFFERENCES.md"))?;
    let listed: BTreeSet<String> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| corpus.join(word).is_dir())
        .map(|word| word.replace('/', "::"))
        .collect();
    let mut different = BTreeSet::new();
    for directory in cases(corpus) {
        let name = name_of(&directory, corpus);
        let (scenario, backends) = case::read(&directory, &name)?;
        if !scenario.differs.is_empty() || backends.len() == 1 {
            different.insert(name);
        }
    }
    if listed == different {
        return Ok(());
    }
    let missing: Vec<_> = different.difference(&listed).collect();
    let needless: Vec<_> = listed.difference(&different).collect();
    Err(format!("`DIFFERENCES.md` lacks {missing:?} and needs no {needless:?}").into())
}
