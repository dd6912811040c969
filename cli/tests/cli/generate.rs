//! `windlass context generate`, as pipelines call it.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::sandbox::Sandbox;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const GENERATE: [&str; 2] = ["context", "generate"];
const ARCHIVE: &str = "runtime-build/agent-server-0123456-python.tar.gz";
const MARKER: &str = ".made-by-windlass";

fn checkout() -> Sandbox {
    Sandbox::with(&[
        (".git/HEAD", "ref: refs/heads/main\n"),
        (".git/refs/heads/main", COMMIT),
        ("pyproject.toml", "[project]\nname = \"x\"\nversion = \"1.2.3\"\n"),
        ("uv.lock", "lock\n"),
        ("openhands/sdk/a.py", "a\n"),
        ("openhands/tools/b.py", "b\n"),
        ("openhands/workspace/c.py", "c\n"),
        ("openhands/agent_server/d.py", "d\n"),
    ])
}

/// The messages, without their times.
fn messages(stdout: &str) -> Vec<&str> {
    stdout
        .lines()
        .map(|line| {
            let (time, message) = line.split_once("] [runtime-build] ").expect(line);
            assert_eq!((time.len(), &time[..3]), (20, "[20"), "{line}");
            message
        })
        .collect()
}

#[test]
fn the_messages_are_those_of_the_script() {
    let sandbox = checkout();
    for cleans in [false, true] {
        let stdout = sandbox.run(&GENERATE).done();
        let mut messages = messages(&stdout);
        let size = messages.remove(messages.len() - 3);
        assert!(size.starts_with("File size: ") && size.ends_with("KB"), "{size}");
        let mut expected = vec![
            "Creating build context for target: binary".to_owned(),
            "Base image: nikolaik/python-nodejs:python3.12-nodejs22".to_owned(),
            format!("Git SHA: {COMMIT}"),
        ];
        expected.extend(cleans.then(|| "Cleaning output directory: runtime-build".to_owned()));
        expected.extend(
            [
                "Generated Dockerfile",
                "Copying source code...",
                "Copying openhands/agent_server...",
                "Copying openhands/sdk...",
                "Copying openhands/tools...",
                "Copying openhands/workspace...",
                "Copied pyproject.toml",
                "Copied uv.lock",
                &format!("Creating tarball: {ARCHIVE}"),
                &format!("Build context created: {ARCHIVE}"),
                "Runtime API credentials not provided, skipping upload",
                "✅ Build context generation completed successfully!",
            ]
            .map(str::to_owned),
        );
        assert_eq!(messages, expected);
    }
    assert_eq!(sandbox.names("runtime-build"), [MARKER, "agent-server-0123456-python.tar.gz"]);
}

#[test]
fn an_empty_output_directory_is_none() {
    let sandbox = checkout();
    let line = [&GENERATE[..], &["--output-dir", ""]].concat();
    sandbox.run(&line).done();
    assert_eq!(sandbox.names("runtime-build").len(), 2);
    sandbox.run_with(&line, &[("OUTPUT_DIR", "out")]).done();
    assert_eq!(sandbox.names("out").len(), 2);
    // What no script of its kind knows is wrong before it begins.
    sandbox.run_with(&GENERATE, &[("SOURCE_DATE_EPOCH", "soon")]).refused(2, &["SOURCE_DATE_EPOCH `soon`"]);
}

#[test]
fn variables_and_options_name_what_is_written() {
    let sandbox = checkout();
    let variables = [
        ("OUTPUT_DIR", "out"),
        ("BASE_IMAGE", "debian:12"),
        ("TARGET", "nonsense"),
        ("CUSTOM_TAGS", " java , python "),
        ("OUTPUT_NAME", ""),
        ("GITHUB_SHA", "fedcba9876543210"),
    ];
    let line = [&GENERATE[..], &["--target", "source-minimal", "--format", "json"]].concat();
    let result = sandbox.run_with(&line, &variables).json();
    for (key, value) in [
        ("archive", "out/agent-server-fedcba9-java.tar.gz"),
        ("target", "source-minimal"),
        ("base_image", "debian:12"),
        ("commit", "fedcba9876543210"),
        ("image", "agent-server:fedcba9-java"),
    ] {
        assert_eq!(result[key], value, "{key}");
    }
    assert_eq!(result["tags"], serde_json::json!(["java", "python"]));
    assert_eq!(result["built"], serde_json::Value::Null);
    // Quiet: the path alone, whatever the variable says.
    let line = [&GENERATE[..], &["-q", "--output-dir", "else/where"]].concat();
    let stdout = sandbox.run_with(&line, &[("OUTPUT_DIR", "/"), ("OUTPUT_NAME", "mine.tgz")]).done();
    assert_eq!(stdout, "else/where/mine.tgz\n");
    // Nobody asked for an upload, so nobody is told that there is none.
    let stdout = sandbox.run(&[&GENERATE[..], &["--no-upload"]].concat()).done();
    assert!(!stdout.contains("skipping upload"), "{stdout}");
}

#[test]
fn failures_end_with_1_and_wrong_usage_with_2() {
    let sandbox = checkout();
    sandbox.write("theirs/a", "a");
    let before = sandbox.names("");
    for (variable, value, words) in [
        ("OUTPUT_DIR", "/", "`/` contains the source directory `openhands/agent_server`"),
        ("OUTPUT_DIR", ".", "contains the source directory"),
        ("OUTPUT_DIR", "openhands/sdk/out/../x", "lies in the source directory"),
        ("OUTPUT_DIR", "..", "contains the source directory"),
        ("OUTPUT_DIR", "theirs", "windlass did not make it, and it holds `a`"),
        ("OUTPUT_DIR", "uv.lock", "is a file"),
        ("TARGET", "x", "Invalid TARGET 'x'. Must be one of: binary, binary-minimal, source, source-minimal"),
        ("CUSTOM_TAGS", "a b", "cannot be a tag"),
        ("OUTPUT_NAME", "../x", "not the name of a file"),
    ] {
        let outcome = sandbox.run_with(&GENERATE, &[(variable, value)]);
        assert_eq!(outcome.code, Some(1), "{outcome:#?}");
        let first = outcome.stderr.lines().next().unwrap_or_default();
        assert!(first.contains("[runtime-build] ERROR: Build failed: ") && first.contains(words), "{first}");
        assert!(!outcome.stdout.contains("Cleaning"), "{outcome:#?}");
        let error = sandbox.run_with(&[&GENERATE[..], &["--format", "json"]].concat(), &[(variable, value)]);
        error.refused(1, &["\"exit_code\":1"]);
    }
    // The home directory, wherever the sources are.
    let home = sandbox.home().display().to_string();
    let outcome = sandbox.run(&[&GENERATE[..], &["--output-dir", &home, "--force"]].concat());
    assert!(outcome.code == Some(1) && outcome.stderr.contains("home directory"), "{outcome:#?}");
    assert_eq!(sandbox.names(""), before);
    sandbox
        .run(&[&GENERATE[..], &["--target", "x"]].concat())
        .refused(2, &["invalid value 'x'", "source-minimal"]);
    sandbox.run(&[&GENERATE[..], &["--recipe", "agent"]].concat()).refused(2, &["no recipe `agent`"]);
    sandbox.run(&[&GENERATE[..], &["--timeout", "soon"]].concat()).refused(2, &["--timeout soon"]);
    sandbox.run(&[&GENERATE[..], &["--format", "paths"]].concat()).refused(2, &["context list"]);
    sandbox.run(&[&GENERATE[..], &["--output-dir", "theirs", "--force"]].concat()).done();
    assert_eq!(sandbox.names("theirs"), [MARKER, "agent-server-0123456-python.tar.gz"]);
}

#[test]
fn a_missing_package_is_named_and_the_earlier_archive_stays() {
    let sandbox = checkout();
    sandbox.run(&GENERATE).done();
    let archive = sandbox.path(ARCHIVE);
    let before = std::fs::read(&archive).expect("written");
    std::fs::remove_dir_all(sandbox.path("openhands/sdk")).expect("removed");
    let outcome = sandbox.run(&GENERATE);
    let words = "ERROR: Build failed: Required directory not found: `openhands/sdk`";
    assert!(outcome.code == Some(1) && outcome.stderr.contains(words), "{outcome:#?}");
    assert_eq!(std::fs::read(&archive).expect("still there"), before);
    // The sources of another directory, and its commit.
    let outcome = sandbox.run(&["context", "generate", "--source", "nowhere"]);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("`nowhere/openhands/sdk`"), "{outcome:#?}");
    let elsewhere = Sandbox::with(&[]);
    let source = checkout();
    let typed = source.path("").display().to_string();
    elsewhere.run(&["context", "generate", "--source", &typed]).done();
    assert_eq!(elsewhere.names("runtime-build"), [MARKER, "agent-server-0123456-python.tar.gz"]);
}

/// An archive, then sources that take long enough to pack that there is time to meet the work. Gives the
/// archive's bytes.
fn with_much_to_do(sandbox: &Sandbox) -> Vec<u8> {
    sandbox.run(&GENERATE).done();
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(8 << 20)
    .collect();
    for index in 0..12 {
        std::fs::write(sandbox.path(&format!("openhands/sdk/{index}")), &noise).expect("a file");
    }
    std::fs::read(sandbox.path(ARCHIVE)).expect("written")
}

/// Starts to generate, and sends a signal while the archive is being written. Gives the exit code.
fn meet_the_work(sandbox: &Sandbox, signal: &str) -> Option<i32> {
    let mut command = sandbox.command(&GENERATE);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let limit = Instant::now() + Duration::from_secs(60);
    while sandbox.leftovers().is_empty() {
        let ended = child.try_wait().expect("waits");
        assert!(Instant::now() < limit && ended.is_none(), "the work was not met");
        std::thread::sleep(Duration::from_millis(1));
    }
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    child.wait().expect("ends").code()
}

#[test]
fn a_kill_leaves_the_earlier_archive_and_the_next_run_nothing_else() {
    let sandbox = checkout();
    let before = with_much_to_do(&sandbox);
    assert_eq!(meet_the_work(&sandbox, "-KILL"), None);
    assert!(std::fs::read(sandbox.path(ARCHIVE)).expect("still there") == before);
    assert_eq!(sandbox.names("runtime-build"), [MARKER, "agent-server-0123456-python.tar.gz"]);
    assert_eq!(sandbox.leftovers().len(), 1);
    sandbox.run(&GENERATE).done();
    assert_eq!(sandbox.leftovers(), [""; 0]);
    assert!(std::fs::read(sandbox.path(ARCHIVE)).expect("new") != before);
}

#[test]
fn ctrl_c_leaves_the_earlier_archive_and_nothing_else() {
    let sandbox = checkout();
    let before = with_much_to_do(&sandbox);
    assert_eq!(meet_the_work(&sandbox, "-INT"), Some(130));
    assert_eq!(sandbox.leftovers(), [""; 0]);
    assert!(std::fs::read(sandbox.path(ARCHIVE)).expect("still there") == before);
}

/// A service that takes one build and says how it ended. Gives the body of the build.
fn service(listener: TcpListener, status: &'static str) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut build = Vec::new();
        for connection in listener.incoming() {
            let connection = connection.expect("a connection");
            let mut reader = BufReader::new(connection.try_clone().expect("cloned"));
            let mut head = Vec::new();
            let mut length = 0;
            for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                    length = value.parse().expect("a length");
                }
                head.push(line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("the body");
            let line = head.first().cloned().unwrap_or_default();
            let (code, answer) = if line.starts_with("POST /build ") {
                build = body;
                ("202 Accepted", r#"{"build_id": "b-1"}"#.to_owned())
            } else if line.starts_with("GET /registry_prefix ") {
                ("200 OK", r#"{"registry_prefix": "registry.example.com/team/"}"#.to_owned())
            } else if line.starts_with("GET /build_status") {
                ("200 OK", format!(r#"{{"status": "{status}", "error": "no space"}}"#))
            } else {
                ("404 Not Found", "{}".to_owned())
            };
            let head = format!("HTTP/1.1 {code}\r\nContent-Type: application/json\r\nConnection: close\r\n");
            let sent = write!(&connection, "{head}Content-Length: {}\r\n\r\n{answer}", answer.len());
            sent.expect("answered");
            // The log, which is asked for at the end, is not there.
            if line.contains("/build_logs") || (line.contains("/build_status") && status == "SUCCESS") {
                break;
            }
        }
        build
    })
}

#[test]
fn a_service_that_is_named_builds_what_was_written() {
    let sandbox = checkout();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let serving = service(listener, "SUCCESS");
    let variables = [("RUNTIME_API_URL", address.as_str()), ("RUNTIME_API_KEY", "secret-key")];
    let outcome = sandbox.run_with(&GENERATE, &variables);
    let stdout = outcome.done();
    let all = messages(&stdout);
    let uploading = all.iter().position(|message| message.starts_with("📤")).expect("uploaded");
    assert_eq!(
        all[uploading..],
        [
            "📤 Uploading build context to Runtime API...",
            "🛠️  Build started with ID: b-1",
            "🎯 Target image: registry.example.com/team/agent-server:0123456-python",
            "Monitoring build progress...",
            "✅ Build completed successfully!",
            "✅ Build context generation completed successfully!",
        ]
    );
    let body: serde_json::Value = serde_json::from_slice(&serving.join().expect("served")).expect("JSON");
    assert_eq!(body["target_image"], "registry.example.com/team/agent-server:0123456-python");
    // The very bytes of the archive.
    let mut decode = Command::new("base64")
        .arg("-d")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("base64");
    let text = body["context"].as_str().expect("text").to_owned();
    decode.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    let sent = decode.wait_with_output().expect("decoded").stdout;
    assert!(sent == std::fs::read(sandbox.path(ARCHIVE)).expect("written"));
}

#[test]
fn a_build_that_fails_or_cannot_be_sent_ends_with_1() {
    let sandbox = checkout();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    drop(service(listener, "FAILURE"));
    let variables = [("RUNTIME_API_URL", address.as_str()), ("RUNTIME_API_KEY", "secret-key")];
    let outcome = sandbox.run_with(&GENERATE, &variables);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    for words in ["ERROR: ❌ Build failed: ", "no space", "ERROR: Runtime API upload/build failed"] {
        assert!(outcome.stderr.contains(words), "{words}: {outcome:#?}");
    }
    assert!(!outcome.stdout.contains("completed successfully"), "{outcome:#?}");
    // Half of what is needed is nothing, and is pointed out.
    let outcome = sandbox.run_with(&GENERATE, &variables[..1]);
    assert!(outcome.stderr.contains("RUNTIME_API_KEY is not"), "{outcome:#?}");
    assert!(outcome.done().contains("Runtime API credentials not provided, skipping upload"));
    // What is no address is said before anything is written.
    std::fs::remove_dir_all(sandbox.path("runtime-build")).expect("removed");
    let wrong = [("RUNTIME_API_URL", "https://user:pass@a"), ("RUNTIME_API_KEY", "secret-key")];
    let outcome = sandbox.run_with(&GENERATE, &wrong);
    assert!(outcome.code == Some(1) && !outcome.stderr.contains("pass@"), "{outcome:#?}");
    assert!(!sandbox.path("runtime-build").exists());
    // And with --no-upload nobody looks at it.
    sandbox.run_with(&[&GENERATE[..], &["--no-upload"]].concat(), &wrong).done();
}
