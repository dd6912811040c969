//! What would be sent, and why.

use crate::sandbox::Sandbox;

fn tree() -> Sandbox {
    Sandbox::with(&[
        ("Dockerfile", "FROM scratch\nCOPY . /\n"),
        (".dockerignore", "# nothing large\n*.log\n!keep.log\nnode_modules\nDockerfile\n"),
        ("a.txt", "aaaa"),
        ("b/large.bin", &"x".repeat(2_000)),
        ("b/node_modules/c.js", "c"),
        ("drop.log", "d"),
        ("keep.log", "k"),
        ("node_modules/x.js", "x"),
    ])
}

#[test]
fn paths_are_one_a_line_in_the_order_of_the_archive() {
    let sandbox = tree();
    let expected =
        ".dockerignore\nDockerfile\na.txt\nb\nb/large.bin\nb/node_modules\nb/node_modules/c.js\nkeep.log\n";
    assert_eq!(sandbox.run(&["context", "list", "--format", "paths"]).done(), expected);
    assert_eq!(sandbox.run(&["context", "ls", ".", "--format", "paths"]).done(), expected);
}

#[test]
fn the_table_has_sizes_and_a_total() {
    let outcome = tree().run(&["context", "list", "--sort", "size"]);
    assert!(outcome.stderr.ends_with("6 files, 2.1 kB\n"), "{outcome:#?}");
    let first: Vec<String> = outcome
        .done()
        .lines()
        .nth(1)
        .map(|row| row.split_whitespace().map(str::to_owned).collect())
        .expect("a row");
    assert_eq!(first[1..], ["2.0", "kB", "b/large.bin"]);
}

#[test]
fn json_has_every_entry() {
    let json = tree().run(&["context", "list", "--format", "json"]).json();
    assert_eq!((&json["files"], json["entries"].as_array().map(Vec::len)), (&6.into(), Some(8)));
    let large = json["entries"]
        .as_array()
        .and_then(|entries| entries.iter().find(|entry| entry["path"] == "b/large.bin"));
    assert_eq!(
        large.map(|entry| (&entry["kind"], &entry["size_bytes"])),
        Some((&"file".into(), &2_000.into()))
    );
}

#[test]
fn why_names_file_and_line() {
    let sandbox = tree();
    for (path, answer) in [
        ("drop.log", "`drop.log` is not sent: .dockerignore:2 excludes it: `*.log`\n"),
        ("keep.log", "`keep.log` is sent: .dockerignore:3 includes it: `!keep.log`\n"),
        (
            "node_modules/x.js",
            "`node_modules/x.js` is not sent: .dockerignore:4 excludes it: `node_modules`\n",
        ),
        ("./b/../a.txt", "`a.txt` is sent: no line of `.dockerignore` is about it\n"),
        (
            "Dockerfile",
            "`Dockerfile` is sent because the builder needs it, but COPY does not see it: .dockerignore:5 excludes it: `Dockerfile`\n",
        ),
        ("absent.log", "`absent.log` does not exist: .dockerignore:2 excludes it: `*.log`\n"),
    ] {
        assert_eq!(sandbox.run(&["context", "list", "--why", path]).done(), answer);
    }
    let absolute = sandbox.path("drop.log");
    let absolute = absolute.to_str().expect("UTF-8");
    assert!(sandbox.run(&["context", "list", "--why", absolute]).done().contains("is not sent"));
    sandbox.run(&["context", "list", "--why", "/etc/passwd"]).refused(2, &["outside the context"]);
    let json = sandbox.run(&["context", "list", "--why", "drop.log", "--format", "json"]).json();
    assert_eq!((&json["sent"], &json["line"]), (&false.into(), &2.into()));
}

#[test]
fn hash_depends_on_content_alone() {
    let (one, two) = (tree(), tree());
    let hash = |sandbox: &Sandbox| sandbox.run(&["context", "hash"]).done();
    assert!(hash(&one).starts_with("sha256:"));
    assert_eq!(hash(&one), hash(&two));
    assert_eq!(hash(&one), hash(&one));
    two.write("drop.log", "changed, but ignored");
    assert_eq!(hash(&one), hash(&two));
    two.write("a.txt", "bbbb");
    assert_ne!(hash(&one), hash(&two));
}

#[test]
fn pack_writes_the_same_bytes_every_time() {
    let (one, two) = (tree(), tree());
    assert_eq!(one.run(&["context", "pack", "-o", "out.tar.gz"]).done(), "out.tar.gz\n");
    two.run(&["context", "pack", "-o", "out.tar.gz"]).done();
    let bytes = |sandbox: &Sandbox| std::fs::read(sandbox.path("out.tar.gz")).expect("an archive");
    let first = bytes(&one);
    assert_eq!(first[..2], [0x1f, 0x8b]);
    assert_eq!(first, bytes(&two));
    // An archive of an earlier run is not packed into the next.
    one.run(&["context", "pack", "-o", "out.tar.gz"]).done();
    assert_eq!(first, bytes(&one));
    assert_eq!(one.leftovers(), [""; 0]);
}

#[test]
fn pack_knows_forms_and_levels_and_stdout() {
    let sandbox = tree();
    let start = |arguments: &[&str]| {
        let line = [&["context", "pack", "-o", "-"], arguments].concat();
        let output = sandbox.command(&line).output().expect("starts");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    assert_eq!(start(&["--compression", "zstd"])[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    assert_eq!(&start(&["--compression", "none"])[257..262], b"ustar");
    assert_ne!(start(&["--level", "1"]), start(&["--level", "9"]));
    let output = sandbox.command(&["context", "pack"]).output().expect("starts");
    assert_eq!(output.stdout, start(&[]), "stdout is the default");
    assert_eq!(start(&["--set", "compression.format=zstd"])[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    for (arguments, words) in [
        (&["--level", "10"][..], &["10"][..]),
        (&["--level", "-1"], &["-1"]),
        (&["--compression", "none", "--level", "3"], &["level"]),
        (&["--format", "json"], &["stdout"]),
        (&["--compression", "lzma"], &["lzma"]),
    ] {
        let line = [&["context", "pack", "-o", "-"], arguments].concat();
        sandbox.run(&line).refused(2, words);
    }
}

#[test]
fn what_is_wrong_is_said() {
    let sandbox = Sandbox::with(&[
        ("plain", "x"),
        ("bad/.dockerignore", "ok\n[\n"),
        ("bad/Dockerfile", "FROM scratch"),
    ]);
    for (line, code, words) in [
        (&["context", "list", "absent"][..], 2, &["`", "absent", "does not exist"][..]),
        (&["context", "list", "plain"], 2, &["is no directory"]),
        (&["context", "list", "bad"], 2, &[".dockerignore:2"]),
        (&["context", "list", "-f", "absent.Dockerfile"], 2, &["no Dockerfile at `absent.Dockerfile`"]),
        (&["context", "list", "https://example.com/x.git"], 2, &["is not a directory on this machine"]),
        (&["context", "pack", "-o", "absent/x.tar"], 2, &["could not write", "does not exist"]),
        (&["context", "pack", "-o", "bad"], 2, &["is a directory"]),
    ] {
        sandbox.run(line).refused(code, words);
    }
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn secrets_and_size_are_warned_about_unless_not_wanted() {
    let sandbox = Sandbox::with(&[(".env", "TOKEN=1"), ("data", "0123456789")]);
    let line = ["context", "list", "--set", "context.warn-size=10B"];
    let outcome = sandbox.run(&line);
    assert!(outcome.stderr.contains("warning: ") && outcome.stderr.contains("`.env`"), "{outcome:#?}");
    assert!(outcome.stderr.contains("the build context is large"), "{outcome:#?}");
    let settings = ["--set", "context.warn-secrets=no", "--set", "context.warn-size=0"];
    let outcome = sandbox.run(&[&line[..2], &settings].concat());
    assert!(!outcome.stderr.contains("warning"), "{outcome:#?}");
}

#[test]
fn a_line_end_in_a_name_makes_no_line() {
    let sandbox = Sandbox::with(&[("two\nlines", "")]);
    assert_eq!(sandbox.run(&["context", "list"]).done().lines().nth(1), Some("0644   0 B  two\\nlines"));
}

#[test]
fn a_build_warns_once() {
    let sandbox = Sandbox::with(&[("Dockerfile", "FROM scratch\nCOPY . /\n"), (".env", "TOKEN=1")]);
    let outcome = sandbox.run(&["build", "--explain"]);
    assert_eq!(outcome.stderr.matches("looks like a secret").count(), 1, "{outcome:#?}");
}
