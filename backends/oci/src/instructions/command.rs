//! CMD, ENTRYPOINT and SHELL

use windlass_core::dockerfile::CommandLine;

use crate::go_format;
use crate::stage::Stage;

/// Sets the default command.
pub(super) fn cmd(stage: &mut Stage, command: &CommandLine) {
    let line = with_shell(stage, command);
    let created_by = format!("CMD {}", go_format::quoted_list(&line));
    stage.config.config.cmd = none_if_empty(line);
    stage.config.config.args_escaped = true;
    stage.has_cmd = true;
    stage.record(created_by);
}

/// Sets the entrypoint. A CMD that came with the base is dropped: it was meant for another program.
pub(super) fn entrypoint(stage: &mut Stage, command: &CommandLine) {
    let line = with_shell(stage, command);
    let created_by = format!("ENTRYPOINT {}", go_format::quoted_list(&line));
    stage.config.config.entrypoint = none_if_empty(line);
    if !stage.has_cmd {
        stage.config.config.cmd = None;
    }
    stage.record(created_by);
}

/// Sets the shell of the shell forms below.
pub(super) fn shell(stage: &mut Stage, shell: &[String]) {
    stage.config.config.shell = shell.to_vec();
    stage.record(format!("SHELL [{}]", shell.join(" ")));
}

fn with_shell(stage: &Stage, command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(words) => words.clone(),
        CommandLine::Shell(line) => {
            let mut words = stage.config.config.shell.clone();
            if words.is_empty() {
                words = vec!["/bin/sh".to_owned(), "-c".to_owned()];
            }
            words.push(line.clone());
            words
        }
    }
}

/// An empty list is written as none, as Go's `omitempty` does.
fn none_if_empty(words: Vec<String>) -> Option<Vec<String>> {
    (!words.is_empty()).then_some(words)
}
