//! Ctrl-C: the work ends by itself, nothing half-written stays.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::sandbox::{Outcome, Sandbox};

/// A context that takes long enough to pack that there is time to interrupt it.
fn large() -> Sandbox {
    let sandbox = Sandbox::with(&[("Dockerfile", "FROM scratch\nCOPY . /\n")]);
    let mut state = 1_u64;
    let mut bytes = vec![0_u8; 4 << 20];
    for byte in &mut bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    for index in 0..12 {
        std::fs::write(sandbox.path(&format!("data-{index}")), &bytes).expect("a file");
    }
    sandbox
}

fn start(sandbox: &Sandbox, line: &[&str]) -> Child {
    let mut command: Command = sandbox.command(line);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

/// Waits until something of the output is being written, so that the signal meets the work.
fn wait_for_work(sandbox: &Sandbox, child: &mut Child) {
    let limit = Instant::now() + Duration::from_secs(20);
    while sandbox.leftovers().is_empty() {
        assert!(Instant::now() < limit && child.try_wait().expect("waits").is_none(), "the work was not met");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_first_signal_stops_the_work_and_leaves_nothing() {
    for signal in ["-INT", "-TERM"] {
        let sandbox = large();
        let mut child = start(&sandbox, &["context", "pack", "-o", "out.tar.gz", "--level", "9"]);
        wait_for_work(&sandbox, &mut child);
        send(&child, signal);
        let outcome = Outcome::of(&child.wait_with_output().expect("ends"));
        outcome.refused(130, &["error: cancelled"]);
        assert_eq!(sandbox.leftovers(), [""; 0]);
        assert!(!sandbox.path("out.tar.gz").exists());
    }
}

#[test]
fn a_build_that_is_stopped_leaves_nothing() {
    let sandbox = large();
    let mut child =
        start(&sandbox, &["build", "-o", "type=oci,dest=out.tar", "--set", "compression.level=9"]);
    wait_for_work(&sandbox, &mut child);
    send(&child, "-INT");
    Outcome::of(&child.wait_with_output().expect("ends")).refused(130, &["error: cancelled"]);
    assert_eq!(sandbox.leftovers(), [""; 0]);
    assert!(!sandbox.path("out.tar").exists());
}

#[test]
fn waiting_for_stdin_ends_with_the_first_signal() {
    let sandbox = Sandbox::with(&[]);
    let mut command = sandbox.command(&["build", "-f", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let stdin = child.stdin.take();
    std::thread::sleep(Duration::from_millis(500));
    send(&child, "-INT");
    Outcome::of(&child.wait_with_output().expect("ends")).refused(130, &["error: cancelled"]);
    drop(stdin);
}

#[test]
fn the_second_signal_leaves_at_once() {
    let sandbox = Sandbox::with(&[]);
    // A Dockerfile that is a pipe without a writer: opening it cannot be stopped.
    let made = Command::new("mkfifo").arg(sandbox.path("Dockerfile")).status().expect("mkfifo runs");
    assert!(made.success());
    let mut child = start(&sandbox, &["build"]);
    std::thread::sleep(Duration::from_millis(500));
    send(&child, "-INT");
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("waits").is_none(), "the first signal must not end this");
    send(&child, "-INT");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
}

#[test]
fn a_time_limit_exits_4_and_leaves_nothing() {
    let sandbox = large();
    let line = ["build", "-o", "type=oci,dest=out.tar", "--set", "compression.level=9", "--timeout", "250ms"];
    sandbox.run(&line).refused(4, &["error: stopped after 0.2s", "--timeout"]);
    assert_eq!(sandbox.leftovers(), [""; 0]);
    assert!(!sandbox.path("out.tar").exists());
}

#[test]
fn a_load_that_is_stopped_leaves_nothing() {
    let sandbox = large();
    sandbox.run(&["build", "-q", "-o", "type=oci,dest=whole.tar"]).done();
    let whole = std::fs::read(sandbox.path("whole.tar")).expect("an archive");
    let store = sandbox.home().join(".cache/windlass/images");
    std::fs::remove_dir_all(&store).expect("a store");
    let mut command = sandbox.command(&["image", "load", "-t", "app:1"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    // The rest never comes.
    stdin.write_all(&whole[..whole.len() / 2]).expect("taken");
    wait_for_work(&sandbox, &mut child);
    send(&child, "-INT");
    Outcome::of(&child.wait_with_output().expect("ends")).refused(130, &["error: cancelled"]);
    drop(stdin);
    assert_eq!(sandbox.leftovers(), [""; 0]);
    assert_eq!(std::fs::read_dir(store.join("blobs/sha256")).expect("a store").count(), 0);
}
