//! ARG

use std::collections::BTreeMap;

use windlass_core::dockerfile::{Argument, Expander};
use windlass_core::error::Result;

use crate::stage::Stage;

/// Declares arguments. The value is that of `--build-arg`; else the default; else that of the
/// global scope, without which the argument stays unset.
pub(super) fn apply(
    stage: &mut Stage,
    arguments: &[Argument],
    build_args: &BTreeMap<String, String>,
    global: &BTreeMap<String, String>,
    expander: Expander,
) -> Result<()> {
    let mut created_by = "ARG".to_owned();
    for argument in arguments {
        let value = match (build_args.get(&argument.name), &argument.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(stage.expand(expander, default)?),
            (None, None) => global.get(&argument.name).cloned(),
        };
        created_by.push_str(&format!(" {}", argument.name));
        stage.arguments.push(argument.name.clone());
        if let Some(value) = value {
            created_by.push_str(&format!("={value}"));
            stage.variables.insert(argument.name.clone(), value);
        }
    }
    stage.record(created_by);
    Ok(())
}
