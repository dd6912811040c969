//! ONBUILD

use crate::stage::Stage;

/// Records a trigger for the images that are built on this one. It leaves no history entry.
pub(super) fn apply(stage: &mut Stage, trigger: &str) {
    stage.config.config.on_build.push(trigger.to_owned());
}
