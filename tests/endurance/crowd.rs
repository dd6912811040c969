//! Many processes at once on one store.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use windlass_tests::image_check::{Image, Platform};

use crate::place::{Place, Services, digest_in, noise};

const PROCESSES: usize = 20;
const IMAGES: usize = 4;

/// The tests of this file.
pub(crate) fn trials(services: &Arc<Services>) -> Vec<Trial> {
    vec![services.trial("twenty_processes_on_one_store", twenty)]
}

fn context(number: usize) -> String {
    format!("context-{number}")
}

/// Builds of four images, five processes each, some into the store and some to the registry, with prunes
/// between them.
fn twenty(place: &mut Place) -> Result<(), Failed> {
    let calm = Place::new(place.services.clone())?;
    let mut expected = Vec::new();
    for number in 0..IMAGES {
        for place in [&*place, &calm] {
            let (registry, directory) = (&place.services.registry, context(number));
            let dockerfile = format!("FROM {registry}/base/busybox:1\nCOPY --chown=root data shared /app/\n");
            place.write(&format!("{directory}/Dockerfile"), dockerfile)?;
            place.write(&format!("{directory}/data"), noise(number as u64 + 1, 1 << 20))?;
            place.write(&format!("{directory}/shared"), noise(99, 1 << 20))?;
        }
        expected.push(digest_in(&calm.done(&["build", &context(number), "-q", "-t", "calm:1"])?)?);
    }
    let mut running = Vec::new();
    for process in 0..PROCESSES {
        let (directory, pushed) = (context(process % IMAGES), place.name(&format!("crowd-{process}")));
        let stored = format!("crowd:{process}");
        let target = if process % 3 == 0 { vec!["--push", "-t", &pushed] } else { vec!["-t", &stored] };
        running.push((process, place.start(&[&["build", &directory, "-q"], &target[..]].concat())?));
        if process % 4 == 3 {
            place.done(&["image", "prune"])?;
        }
    }
    for (process, running) in running {
        let digest = digest_in(&running.wait()?.done()?)?;
        if digest != expected[process % IMAGES] {
            return Err(format!("process {process} built {digest}, not {expected:?}").into());
        }
        if process % 3 == 0 {
            let name = place.name(&format!("crowd-{process}"));
            let pushed = Image::from_registry(&name, &Platform::amd64())?;
            assert_eq!(pushed.root_digest, digest, "{name}");
        }
    }
    place.done(&["image", "prune"])?;
    place.sound()
}
