//! USER

use windlass_core::dockerfile::Expander;
use windlass_core::error::Result;

use crate::stage::Stage;

/// Sets the user that programs run as. Whether it exists is not asked: the container will.
pub(super) fn apply(stage: &mut Stage, user: &str, expander: Expander) -> Result<()> {
    let user = stage.expand(expander, user)?;
    stage.config.config.user.clone_from(&user);
    stage.record(format!("USER {user}"));
    Ok(())
}
