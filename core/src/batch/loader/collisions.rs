//! Images of one list that would be written to the same place.

use std::collections::BTreeMap;

use super::super::draft::Draft;
use super::super::entry::{Entry, Work};
use super::Loader;
use crate::output::Destination;
use crate::reference::Reference;

impl Loader<'_> {
    /// No two images may have the same tag: the later one would be all that is left. What else is wrong
    /// with an image does not hide that.
    pub(super) fn check_tags(&mut self, drafts: &[Draft]) {
        let mut taken: BTreeMap<String, usize> = BTreeMap::new();
        for draft in drafts {
            let parsed = draft.tags.iter().filter_map(|(line, tag)| Some((*line, tag.trim().parse().ok()?)));
            // An image may say the same twice.
            let own: BTreeMap<String, usize> =
                parsed.map(|(line, tag): (usize, Reference)| (tag.familiar(), line)).collect();
            for (tag, line) in own {
                match taken.get(&tag) {
                    Some(other) => {
                        let text = format!("the tag `{tag}` is that of the image in line {other} too");
                        self.problems.add(line, text);
                    }
                    None => drop(taken.insert(tag, draft.line)),
                }
            }
        }
    }

    /// Nor may they be written to the same file, or be the same.
    pub(super) fn check_places(&mut self, entries: &[Entry]) {
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for entry in entries {
            let own = match &entry.work {
                Work::Recipe(_) => {
                    // Its names hang on hashes that are not known yet.
                    vec![(entry.hash.clone(), "the very same is asked for".to_owned())]
                }
                Work::Dockerfile(request) => {
                    let paths = request.outputs.iter().filter_map(|output| match &output.destination {
                        Some(Destination::Path(path)) => Some(path.display().to_string()),
                        _ => None,
                    });
                    paths.map(|path| (path.clone(), format!("the output `{path}` is written"))).collect()
                }
            };
            for (place, what) in own {
                if let Some(other) = places.insert(place, entry.line) {
                    self.problems.add(entry.line, format!("{what} by the image in line {other} too"));
                }
            }
        }
    }
}
