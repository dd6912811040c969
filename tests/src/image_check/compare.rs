//! What two images differ in, in words for a test's failure message.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::{Entry, Image, Listing};

/// Differences that do not count.
#[derive(Debug, Clone, Default)]
pub struct Ignoring {
    /// Modification times of files: BuildKit keeps or makes them, windlass fixes them.
    pub mtimes: bool,
    /// Owners of files: whoever unpacks without being root gets all of them.
    pub owners: bool,
    /// Paths of the image, with everything below them.
    pub paths: Vec<&'static str>,
    /// Places in the image config, as `created` or `history/*/created`, where `*` is any one name or number.
    pub config: Vec<&'static str>,
}

impl Ignoring {
    /// What may differ between two builders that both did right: times, and the words of the history, and the layers'
    /// digests, which follow from the times.
    pub fn between_builders() -> Self {
        Self {
            mtimes: true,
            owners: false,
            paths: Vec::new(),
            config: vec![
                "created",
                "history/*/created",
                "history/*/comment",
                "history/*/author",
                "rootfs/diff_ids",
                "moby.buildkit.buildinfo.v1",
            ],
        }
    }

    fn skips_path(&self, path: &Path) -> bool {
        self.paths.iter().any(|skipped| path.starts_with(skipped.trim_start_matches('/')))
    }

    fn skips_config(&self, place: &[String]) -> bool {
        self.config.iter().any(|pattern| {
            let pattern: Vec<&str> = pattern.split('/').collect();
            pattern.len() == place.len()
                && pattern.iter().zip(place).all(|(name, at)| *name == "*" || name == at)
        })
    }
}

/// Lists what differs between the files and the configs of two images: empty means equal.
pub fn compare(left: &Image, right: &Image, ignoring: &Ignoring) -> Vec<String> {
    let mut differences = compare_files(&left.files, &right.files, ignoring);
    compare_json(&left.config, &right.config, ignoring, &mut Vec::new(), &mut differences);
    differences
}

/// Lists what differs between two file trees: empty means equal.
pub fn compare_files(left: &Listing, right: &Listing, ignoring: &Ignoring) -> Vec<String> {
    let paths: BTreeSet<&Path> = left.iter().chain(right.iter()).map(|(path, _)| path).collect();
    let mut differences = Vec::new();
    for path in paths.into_iter().filter(|path| !ignoring.skips_path(path)) {
        let name = path.display();
        match (left.get(path), right.get(path)) {
            (Some(one), Some(other)) if same(one, other, ignoring) => {}
            (Some(one), Some(other)) => {
                differences.push(format!("/{name}\n  left:  {one}\n  right: {other}"))
            }
            // Only some builders store an entry for the root itself; without one it is what the unpacker makes.
            _ if path.as_os_str().is_empty() => {}
            (Some(one), None) => differences.push(format!("/{name}\n  only left: {one}")),
            (None, Some(other)) => differences.push(format!("/{name}\n  only right: {other}")),
            (None, None) => {}
        }
    }
    differences
}

fn same(one: &Entry, other: &Entry, ignoring: &Ignoring) -> bool {
    // The numbers of files count within one image only; which paths share a file does matter.
    let comparable = |entry: &Entry| {
        let mtime = if ignoring.mtimes { 0 } else { entry.mtime };
        let (uid, gid) = if ignoring.owners { (0, 0) } else { (entry.uid, entry.gid) };
        Entry { mtime, uid, gid, file_number: 0, ..entry.clone() }
    };
    comparable(one) == comparable(other)
}

fn compare_json(
    left: &Value,
    right: &Value,
    ignoring: &Ignoring,
    place: &mut Vec<String>,
    differences: &mut Vec<String>,
) {
    if left == right || ignoring.skips_config(place) {
        return;
    }
    let names: BTreeSet<String> = match (left, right) {
        (Value::Object(one), Value::Object(other)) => one.keys().chain(other.keys()).cloned().collect(),
        (Value::Array(one), Value::Array(other)) => {
            (0..one.len().max(other.len())).map(|index| index.to_string()).collect()
        }
        _ => {
            differences.push(format!("config {}\n  left:  {left}\n  right: {right}", place.join("/")));
            return;
        }
    };
    for name in names {
        let at = |value: &Value| match value {
            Value::Array(items) => name.parse().ok().and_then(|index: usize| items.get(index).cloned()),
            other => other.get(&name).cloned(),
        };
        place.push(name.clone());
        let (one, other) = (at(left).unwrap_or_default(), at(right).unwrap_or_default());
        compare_json(&one, &other, ignoring, place, differences);
        place.pop();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differences(left: &Value, right: &Value, ignoring: &Ignoring) -> Vec<String> {
        let mut found = Vec::new();
        compare_json(left, right, ignoring, &mut Vec::new(), &mut found);
        found
    }

    #[test]
    fn config_is_compared_place_by_place() {
        let left = json!({"created": "1", "config": {"Env": ["A=1", "B=2"]}, "history": [{"created": "1"}]});
        let right = json!({"created": "2", "config": {"Env": ["A=1"]}, "history": [{"created": "2"}]});
        let found = differences(&left, &right, &Ignoring::between_builders());
        assert_eq!(found, ["config config/Env/1\n  left:  \"B=2\"\n  right: null"]);
        assert_eq!(differences(&left, &right, &Ignoring::default()).len(), 3);
    }
}
