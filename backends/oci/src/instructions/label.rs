//! LABEL

use windlass_core::dockerfile::Expander;
use windlass_core::error::Result;

use crate::stage::Stage;

/// Sets labels.
pub(super) fn apply(stage: &mut Stage, pairs: &[(String, String)], expander: Expander) -> Result<()> {
    let mut created_by = "LABEL".to_owned();
    for (name, value) in pairs {
        let (name, value) = (stage.expand(expander, name)?, stage.expand(expander, value)?);
        created_by.push_str(&format!(" {name}={value}"));
        stage.config.config.labels.insert(name, value);
    }
    stage.record(created_by);
    Ok(())
}
