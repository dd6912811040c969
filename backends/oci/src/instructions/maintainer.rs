//! MAINTAINER

use crate::stage::Stage;

/// Sets the author of the image.
pub(super) fn apply(stage: &mut Stage, name: &str) {
    stage.config.author = Some(name.to_owned());
    stage.record(format!("MAINTAINER {name}"));
}
