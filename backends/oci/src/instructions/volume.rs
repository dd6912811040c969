//! VOLUME

use windlass_core::dockerfile::Expander;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::image::Empty;

use crate::stage::Stage;

/// Adds volumes.
pub(super) fn apply(stage: &mut Stage, volumes: &[String], expander: Expander) -> Result<()> {
    let mut shown = Vec::new();
    for volume in volumes {
        let volume = stage.expand(expander, volume)?;
        if volume.is_empty() {
            return Err(Error::new(ErrorKind::InvalidDockerfile, "a volume cannot be empty"));
        }
        stage.config.config.volumes.insert(volume.clone(), Empty {});
        shown.push(volume);
    }
    stage.record(format!("VOLUME [{}]", shown.join(" ")));
    Ok(())
}
