//! Which `--build-context` a name in a Dockerfile means.

use std::collections::BTreeMap;

use crate::reference::Reference;
use crate::request::NamedContext;

/// Finds the named context that stands for `name`: a stage, an image reference, or any other name.
/// `debian`, `debian:latest` and `docker.io/library/debian` are the same name, as for buildx.
pub fn find_context<'a>(
    contexts: &'a BTreeMap<String, NamedContext>,
    name: &str,
) -> Option<(&'a str, &'a NamedContext)> {
    if contexts.is_empty() || name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
        return None;
    }
    let wanted = normal(name);
    contexts.iter().find(|(key, _)| normal(key) == wanted).map(|(key, context)| (key.as_str(), context))
}

fn normal(name: &str) -> String {
    match name.to_ascii_lowercase().parse::<Reference>() {
        Ok(reference) => {
            let familiar = reference.familiar();
            familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned()
        }
        Err(_) => name.to_owned(),
    }
}
