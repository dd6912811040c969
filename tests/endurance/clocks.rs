//! Clocks that are wrong: images do not depend on them, and no change of a file goes unnoticed.

use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Completion, Failed, Trial};

use crate::place::{Outcome, Place, Services, absent, digest_in, noise};

/// The tests of this file.
pub(crate) fn trials(services: &Arc<Services>) -> Vec<Trial> {
    vec![clock(services, "1970-01-02 00:00:00"), clock(services, "2200-01-01 00:00:00")]
}

fn clock(services: &Arc<Services>, time: &'static str) -> Trial {
    let (services, year) = (services.clone(), &time[..4]);
    Trial::ignorable_test(format!("the_clock_is_in_{year}"), move || {
        if !Command::new("faketime").arg("--version").output().is_ok_and(|output| output.status.success()) {
            return absent("`faketime` is not installed");
        }
        let place = Place::new(services)?;
        builds(&place, time).map(|()| Completion::Completed)
    })
}

/// Builds with the clock at this time.
fn build_at(place: &Place, time: &str, arguments: &[&str]) -> Result<String, Failed> {
    let mut command = Command::new("faketime");
    command.args(["-f", time]).arg(place.services.program()?).args(["build", ".", "-q"]).args(arguments);
    // The times of files stay those of the kernel, as with a clock that is really wrong for a while.
    command.env("NO_FAKE_STAT", "1").env("FAKE_UTIME", "0");
    place.settle(&mut command);
    digest_in(&Outcome::of(command.output()?).done()?)
}

fn builds(place: &Place, time: &str) -> Result<(), Failed> {
    let calm = Place::new(place.services.clone())?;
    let set = |content: &[u8]| -> Result<(), Failed> {
        for place in [place, &calm] {
            place.dockerfile("FROM {busybox}\nCOPY --chown=root data /data/\nWORKDIR /made\n")?;
            place.write("data/file", content)?;
        }
        Ok(())
    };
    let pushed = place.name(&format!("clock-{}", &time[..4]));
    // The same size each time: only the times of the file tell.
    for (number, seed) in [1, 2, 3, 1].into_iter().enumerate() {
        set(&noise(seed, 4096))?;
        let expected = calm.build(&["-t", &format!("calm:{number}")])?;
        let wrong = build_at(place, time, &["-t", &format!("wrong:{number}")])?;
        let again = build_at(place, time, &["--push", "-t", &pushed])?;
        let right = place.build(&["-t", &format!("right:{number}")])?;
        if [&wrong, &again, &right] != [&expected; 3] {
            return Err(format!("{number}: {expected} is right, not {wrong}, {again}, {right}").into());
        }
        place.done(&["image", "prune"])?;
    }
    place.sound()
}
