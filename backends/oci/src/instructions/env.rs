//! ENV

use windlass_core::dockerfile::Expander;
use windlass_core::error::Result;

use crate::stage::Stage;

/// Sets variables of the image and of the instructions below.
///
/// All values are expanded before the first one is set: `ENV a=1 b=$a` takes the `a` from above.
pub(super) fn apply(stage: &mut Stage, pairs: &[(String, String)], expander: Expander) -> Result<()> {
    let expand = |word: &String| stage.expand(expander, word);
    let pairs: Vec<(String, String)> =
        pairs.iter().map(|(name, value)| Ok((expand(name)?, expand(value)?))).collect::<Result<_>>()?;
    let mut created_by = "ENV".to_owned();
    for (name, value) in pairs {
        created_by.push_str(&format!(" {name}={value}"));
        let pair = format!("{name}={value}");
        let env = &mut stage.config.config.env;
        match env.iter_mut().find(|known| known.split('=').next() == Some(&name)) {
            Some(known) => *known = pair,
            None => env.push(pair),
        }
        stage.variables.insert(name, value);
    }
    stage.record(created_by);
    Ok(())
}
