//! `windlass config`

use std::path::Path;

use serde_json::json;
use windlass_core::config::{Asked, PROJECT_FILE, Setting, example, select};
use windlass_core::{Error, ErrorKind, Result};

use crate::args::{ConfigCommand, Format};
use crate::backends::RULES;
use crate::output::{Table, clean};
use crate::session::Program;
use crate::written_file;

pub(super) fn run(command: ConfigCommand, program: &Program) -> Result<()> {
    match command {
        ConfigCommand::Show { context, backends } => show(&context, &backends, program),
        ConfigCommand::Init { directory, force } => init(&directory, force, program),
    }
}

fn show(context: &Path, backends: &[String], program: &Program) -> Result<()> {
    let session = program.session(Some(context))?;
    session.output.refuse_paths()?;
    let asked = Asked { backends, environment: program.global.environment.as_deref(), option: None };
    let selection =
        select(&session.settings, &program.registry, &RULES, &asked, &program.surroundings.environment)?;
    selection.warnings.iter().for_each(|warning| session.output.warn(warning));
    let names: Vec<&str> = selection.backends.iter().map(|backend| backend.name.as_str()).collect();
    let directories = [("cache-dir", &session.host.cache_dir), ("state-dir", &session.host.state_dir)];
    if session.output.format == Format::Json {
        return session.output.json(&json!({
            "backends": names,
            "reason": selection.reason,
            "reason_text": selection.reason.to_string(),
            "directories": directories.iter().map(|(key, path)| (*key, path)).collect::<std::collections::BTreeMap<_, _>>(),
            "settings": session.settings.values,
        }));
    }
    let mut table = Table::new(["SETTING", "VALUE", "FROM"]);
    for setting in &session.settings.values {
        let in_force = directories.iter().find(|(key, _)| *key == setting.key && setting.value.is_none());
        let value = in_force.map_or_else(|| shown(setting), |(_, path)| path.display().to_string());
        table.row([clean(&setting.key), clean(&value), setting.origin.to_string()]);
    }
    let then = if names.len() > 1 { "backends: " } else { "backend: " };
    let first = format!("{then}{} ({})\n\n", names.join(", then "), selection.reason);
    session.output.result(&(first + &table.render()))
}

/// A value as one writes it: sizes and time spans back in their units.
fn shown(setting: &Setting) -> String {
    use windlass_core::config::{KEYS, Kind};

    let Some(value) = &setting.value else { return "-".to_owned() };
    let kind = KEYS.iter().find(|key| key.path == setting.key).map(|key| key.kind);
    match (kind, value.as_integer(), value.as_str(), value.as_array()) {
        (Some(Kind::Duration), Some(milliseconds), ..) => milliseconds_shown(milliseconds),
        (Some(Kind::Bytes), Some(bytes), ..) => bytes_shown(bytes),
        (_, _, Some(text), _) => text.to_owned(),
        (_, _, _, Some(items)) => {
            let items =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
            items.collect::<Vec<_>>().join(", ")
        }
        _ => value.to_string(),
    }
}

fn milliseconds_shown(milliseconds: i64) -> String {
    match milliseconds {
        0 => "0s".to_owned(),
        hours if hours % 3_600_000 == 0 => format!("{}h", hours / 3_600_000),
        minutes if minutes % 60_000 == 0 => format!("{}m", minutes / 60_000),
        seconds if seconds % 1_000 == 0 => format!("{}s", seconds / 1_000),
        other => format!("{other}ms"),
    }
}

/// The largest unit that gives a whole number.
fn bytes_shown(bytes: i64) -> String {
    let units = [
        ("GiB", 1 << 30),
        ("GB", 1_000_000_000),
        ("MiB", 1 << 20),
        ("MB", 1_000_000),
        ("KiB", 1 << 10),
        ("kB", 1_000),
    ];
    let whole = units.iter().find(|(_, size)| bytes > 0 && bytes % size == 0);
    whole.map_or_else(|| format!("{bytes}B"), |(unit, size)| format!("{}{unit}", bytes / size))
}

fn init(directory: &Path, force: bool, program: &Program) -> Result<()> {
    let output = program.speak(None);
    output.refuse_paths()?;
    let current_dir = &program.surroundings.current_dir;
    let directory =
        if directory == Path::new(".") { current_dir.clone() } else { current_dir.join(directory) };
    if !directory.is_dir() {
        let message = format!("the directory `{}` does not exist", directory.display());
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let path = directory.join(PROJECT_FILE);
    if path.symlink_metadata().is_ok() && !force {
        return Err(Error::new(ErrorKind::InvalidInput, format!("`{}` exists already", path.display()))
            .with_hint("replace it with `--force`"));
    }
    written_file::write(&path, example().as_bytes())?;
    match output.format {
        Format::Json => output.json(&json!({ "written": path })),
        Format::Text | Format::Paths => output.result(&format!("{}\n", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_one_writes_them() {
        for (bytes, text) in [(0, "0B"), (1 << 30, "1GiB"), (500_000_000, "500MB"), (1_234, "1234B")] {
            assert_eq!(bytes_shown(bytes), text);
        }
        for (milliseconds, text) in
            [(0, "0s"), (10_000, "10s"), (5_400_000, "90m"), (7_200_000, "2h"), (250, "250ms")]
        {
            assert_eq!(milliseconds_shown(milliseconds), text);
        }
    }
}
