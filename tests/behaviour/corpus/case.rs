//! Reads a case of the corpus: the format of `case.toml`, turned into a scenario.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use libtest_mimic::Failed;
use serde::Deserialize;
use serde_json::Value;
use windlass_core::ErrorKind;
use windlass_core::backend::Feature;
use windlass_tests::scenario::{
    Content, Expectation, Item, NamedContext, Options, Scenario, absent, at, config, only, scenario,
};

use super::made::Made;
use crate::suite::{BACKENDS, LOCAL};

/// The areas that are about the context, which is what is sent to a service. The services of the tests build with `oci`:
/// what they make of the rest shows nothing that it does not show itself.
const ON_SERVICES: [&str; 5] = ["chmod", "copy", "directives", "errors", "fs-traps"];

/// `case.toml`; all of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    dockerfile: Option<String>,
    target: Option<String>,
    platforms: Vec<String>,
    build_args: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    contexts: BTreeMap<String, String>,
    source_date_epoch: Option<i64>,
    needs: Vec<String>,
    make: Vec<Made>,
    expect: Vec<Expect>,
    fails: Option<Fails>,
    warns: Vec<String>,
    differs: Vec<Differs>,
    alone: Option<String>,
}

/// What the image must be like, on every backend.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Expect {
    on: Option<String>,
    path: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    content: Option<String>,
    mode: Option<String>,
    owner: Option<(u64, u64)>,
    target: Option<String>,
    same_as: Option<String>,
    mtime: Option<i64>,
    config: Option<String>,
    value: Value,
    below: Option<String>,
    only: Vec<String>,
}

/// How the build fails.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Fails {
    kind: Option<String>,
    says: Vec<String>,
    /// The one backend that fails, if the other makes an image.
    only: Option<String>,
    oci: FailsOn,
    docker: FailsOn,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FailsOn {
    kind: Option<String>,
    says: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Differs {
    place: String,
    reason: String,
}

/// Reads the case in a directory, and says which backends it is for.
pub(super) fn read(directory: &Path, name: &str) -> Result<(Scenario, &'static [&'static str]), Failed> {
    let text = fs::read_to_string(directory.join("case.toml")).unwrap_or_default();
    let file: File = toml::from_str(&text).map_err(|error| format!("`case.toml`: {error}"))?;
    let backends = match file.alone {
        Some(_) => &BACKENDS[..1],
        None if ON_SERVICES.iter().any(|area| name.starts_with(&format!("{area}::"))) => &BACKENDS[..],
        None => &LOCAL[..],
    };
    if file.alone.is_some() && file.expect.is_empty() && file.fails.is_none() {
        return Err("a case that is compared with nothing must say what it expects".into());
    }
    let mut case = scenario(kept(name));
    // Paths of the case become paths of the scenario, whose context is the directory `context`.
    let within = if directory.join("context").is_dir() { "" } else { "context/" };
    add_files(directory, within.as_bytes(), &mut case)?;
    if directory.join("context").is_dir() {
        fs::read(directory.join("Dockerfile")).map(|content| case.dockerfile = Some(content))?;
    }
    for made in &file.make {
        let mut item = made.item()?;
        item.path = [within.as_bytes(), &item.path].concat();
        if let Content::HardLink(first) = &mut item.content {
            *first = [within.as_bytes(), first].concat();
        }
        case.items.push(item);
    }
    file.finish(case).map(|case| (case, backends))
}

fn add_files(directory: &Path, within: &[u8], case: &mut Scenario) -> Result<(), Failed> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let path = [within, name.as_bytes()].concat();
        let content = match name.to_str() {
            Some("case.toml") if within.is_empty() || within == b"context/" => continue,
            Some("Dockerfile") if within == b"context/" => {
                case.dockerfile = Some(fs::read(entry.path())?);
                continue;
            }
            Some("Dockerfile") if within.is_empty() => continue,
            _ if kind.is_dir() => {
                add_files(&entry.path(), &[&path[..], b"/"].concat(), case)?;
                continue;
            }
            _ if kind.is_symlink() => {
                Content::Symlink(fs::read_link(entry.path())?.as_os_str().as_bytes().to_vec())
            }
            _ => Content::Bytes(fs::read(entry.path())?),
        };
        // What git keeps of a mode, and nothing of the umask of whoever checked it out.
        let executable = kind.is_file() && entry.metadata()?.permissions().mode() & 0o100 != 0;
        let mode = kind.is_file().then_some(if executable { 0o755 } else { 0o644 });
        case.items.push(Item { path, content, mode, xattrs: Vec::new() });
    }
    Ok(())
}

impl File {
    fn finish(self, mut case: Scenario) -> Result<Scenario, Failed> {
        if let Some(path) = &self.dockerfile {
            case.dockerfile_path = kept(path);
        }
        case.options = Options {
            target: self.target.as_deref().map(kept),
            platforms: self.platforms.iter().map(|platform| kept(platform)).collect(),
            build_args: pairs(&self.build_args),
            labels: pairs(&self.labels),
            annotations: pairs(&self.annotations),
            contexts: self.contexts.iter().map(|(name, text)| (kept(name), named_context(text))).collect(),
            source_date_epoch: self.source_date_epoch,
            // It exports what BuildKit makes without a detour over the layers of docker's own store.
            on_containerd: true,
        };
        for name in &self.needs {
            let feature = Feature::ALL.iter().find(|feature| feature.label() == name);
            case.needs.push(*feature.ok_or_else(|| format!("no feature `{name}`"))?);
        }
        for expect in self.expect {
            let on = expect.on.as_deref().map(kept);
            let expectation = expect.read()?;
            case.expectations.push((on, expectation));
        }
        case.warnings = self.warns.iter().map(|text| ("oci", kept(text))).collect();
        if let Some(fails) = self.fails {
            case = fails.add_to(case)?;
        }
        Ok(self.differs.iter().fold(case, |case, one| case.differs(kept(&one.place), kept(&one.reason))))
    }
}

impl Fails {
    fn add_to(self, mut case: Scenario) -> Result<Scenario, Failed> {
        for (backend, own) in [("oci", &self.oci), ("docker", &self.docker)] {
            if self.only.as_deref().is_some_and(|only| only != backend) {
                continue;
            }
            let kind = own.kind.as_deref().or(self.kind.as_deref()).unwrap_or("InvalidDockerfile");
            let says: Vec<&str> = self.says.iter().chain(&own.says).map(|text| kept(text)).collect();
            let says: Vec<&'static str> = says.into_iter().map(kept).collect();
            case = case.fails_on(backend, kind_of_error(kind)?, &says);
        }
        Ok(case)
    }
}

impl Expect {
    fn read(self) -> Result<Expectation, Failed> {
        if let Some(place) = &self.config {
            return Ok(config(kept(place), self.value));
        }
        if let Some(directory) = &self.below {
            return Ok(only(kept(directory), &self.only.iter().map(|path| kept(path)).collect::<Vec<_>>()));
        }
        let path = kept(self.path.as_deref().ok_or("an `expect` needs `path`, `config` or `below`")?);
        let mut expected = at(path);
        match self.kind.as_deref() {
            Some("nothing") => return Ok(absent(path)),
            Some("directory") => expected = expected.directory(),
            Some(other) => return Err(format!("no type `{other}`").into()),
            None => {}
        }
        if let Some(content) = &self.content {
            expected = expected.file(content);
        }
        if let Some(mode) = &self.mode {
            expected = expected.mode(u32::from_str_radix(mode, 8)?);
        }
        if let Some((uid, gid)) = self.owner {
            expected = expected.owner(uid, gid);
        }
        if let Some(target) = &self.target {
            expected = expected.symlink(kept(target));
        }
        if let Some(first) = &self.same_as {
            expected = expected.same_file_as(kept(first));
        }
        if let Some(mtime) = self.mtime {
            expected = expected.mtime(mtime);
        }
        Ok(expected)
    }
}

/// A scenario's texts live as long as the program; so do those that are read from files.
fn kept(text: &str) -> &'static str {
    text.to_owned().leak()
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<(&'static str, &'static str)> {
    map.iter().map(|(name, value)| (kept(name), kept(value))).collect()
}

/// In the spelling of the command line; a directory is relative to the case.
fn named_context(text: &str) -> NamedContext {
    if let Some(reference) = text.strip_prefix("docker-image://") {
        return NamedContext::Image(kept(reference));
    }
    match text.strip_prefix("oci-layout://").and_then(|layout| layout.rsplit_once(':')) {
        Some((directory, tag)) => NamedContext::Layout(kept(directory), kept(tag)),
        None => NamedContext::Directory(kept(&format!("{{root}}/{text}"))),
    }
}

fn kind_of_error(name: &str) -> Result<ErrorKind, Failed> {
    Ok(match name {
        "InvalidInput" => ErrorKind::InvalidInput,
        "InvalidDockerfile" => ErrorKind::InvalidDockerfile,
        "BuildFailed" => ErrorKind::BuildFailed,
        "NotFound" => ErrorKind::NotFound,
        "Unsupported" => ErrorKind::Unsupported,
        other => return Err(format!("no case expects an error of kind `{other}`").into()),
    })
}
