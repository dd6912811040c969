//! What is copied: kinds of files, their modes, and what they are called.

use windlass_tests::scenario::{Content, Scenario, absent, at, only, scenario};

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    [kinds(), names()].concat()
}

/// What files are.
fn kinds() -> Vec<Scenario> {
    vec![
        scenario("permission_bits_are_kept")
            .file("d/private", "")
            .mode(0o600)
            .file("d/tool", "")
            .mode(0o755)
            .file("d/setuid", "")
            .mode(0o4755)
            .file("d/setgid", "")
            .mode(0o2755)
            .file("d/readonly", "")
            .mode(0o444)
            .file("d/nothing", "")
            .mode(0o000)
            .directory("d/sticky")
            .mode(0o1777)
            .directory("d/group")
            .mode(0o2775)
            .directory("d/secret")
            .mode(0o700)
            .dockerfile("FROM scratch\nCOPY d /d\n")
            .expect(at("/d/private").mode(0o600))
            .expect(at("/d/tool").mode(0o755))
            .expect(at("/d/setuid").mode(0o4755))
            .expect(at("/d/setgid").mode(0o2755))
            .expect(at("/d/readonly").mode(0o444))
            .expect(at("/d/nothing").mode(0o000))
            .expect(at("/d/sticky").mode(0o1777))
            .expect(at("/d/group").mode(0o2775))
            .expect(at("/d/secret").mode(0o700)),
        scenario("links_in_a_directory_stay_links")
            .file("d/file", "content")
            .file("d/sub/inner", "inner")
            .symlink("d/relative", "file")
            .symlink("d/absolute", "/etc/passwd")
            .symlink("d/dangling", "no/such/file")
            .symlink("d/up", "../../../outside")
            .symlink("d/to-directory", "sub")
            .symlink("d/to-itself", "to-itself")
            .dockerfile("FROM scratch\nCOPY d /d\n")
            .expect(at("/d/relative").symlink("file"))
            .expect(at("/d/absolute").symlink("/etc/passwd"))
            .expect(at("/d/dangling").symlink("no/such/file"))
            .expect(at("/d/up").symlink("../../../outside"))
            .expect(at("/d/to-directory").symlink("sub"))
            .expect(at("/d/to-itself").symlink("to-itself"))
            .expect(absent("/d/to-directory/inner")),
        scenario("link_named_as_source_is_followed")
            .file("file", "content")
            .file("sub/inner", "inner")
            .symlink("link", "file")
            .symlink("dirlink", "sub")
            .dockerfile("FROM scratch\nCOPY link /d/\nCOPY dirlink /e\n")
            .expect(at("/d/link").file("content"))
            .expect(at("/e/inner").file("inner")),
        scenario("path_through_a_link_of_the_context")
            .file("sub/inner", "inner")
            .symlink("dirlink", "sub")
            .dockerfile("FROM scratch\nCOPY dirlink/inner /d/\n")
            .expect(only("/d", &["inner"])),
        scenario("hard_links_of_the_context")
            .file("d/first", "content")
            .hard_link("d/second", "d/first")
            .hard_link("d/sub/third", "d/first")
            .dockerfile("FROM scratch\nCOPY d /d\n")
            .expect(at("/d/first").file("content"))
            .expect(at("/d/second").same_file_as("/d/first"))
            .expect(at("/d/sub/third").same_file_as("/d/first")),
        scenario("hard_link_whose_first_name_is_ignored")
            .file("d/first", "content")
            .hard_link("d/second", "d/first")
            .hard_link("d/third", "d/first")
            .file(".dockerignore", "d/first\n")
            .dockerfile("FROM scratch\nCOPY d /d\n")
            .expect(only("/d", &["second", "third"]))
            .expect(at("/d/third").file("content")),
        // As docker's default image store does it; the one of containerd would keep them.
        scenario("extended_attributes_of_the_context_are_left_out")
            .file("d/file", "content")
            .xattr("user.windlass", "1")
            .directory("d/sub")
            .xattr("user.on-a-directory", "2")
            .dockerfile("FROM scratch\nCOPY d /d\n")
            .expect(at("/d/file").file("content").xattrs(&[]))
            .expect(at("/d/sub").directory().xattrs(&[])),
        scenario("empty_files_and_directories")
            .file("d/empty", "")
            .directory("d/nothing/in/here")
            .dockerfile("FROM scratch\nCOPY d /d\n")
            .expect(at("/d/empty").file(""))
            .expect(at("/d/nothing/in/here").directory().mode(0o755)),
        scenario("sockets_and_pipes_are_left_out")
            .file("d/file", "content")
            .special("d/pipe", Content::Fifo)
            .special("d/socket", Content::Socket)
            .dockerfile("FROM scratch\nCOPY d /d\n")
            .expect(at("/d/file").file("content"))
            .expect_on("oci", only("/d", &["file"]))
            .warns_on("oci", "d/pipe")
            .warns_on("oci", "d/socket")
            .differs("/d/pipe", "buildx sends it: it copies pipes; windlass leaves them out and warns")
            .differs("/d/socket", "buildx sends an empty file in its place, which no one can want"),
        scenario("file_of_some_megabytes")
            .file("big", noise(6_000_001))
            .file("zeros", vec![0; 3 << 20])
            .dockerfile("FROM scratch\nCOPY big zeros /\n")
            .expect(at("/big").file(noise(6_000_001)).size(6_000_001))
            .expect(at("/zeros").size(3 << 20)),
        scenario("files_of_all_small_sizes")
            .file("d/511", noise(511))
            .file("d/512", noise(512))
            .file("d/513", noise(513))
            .file("d/10240", noise(10_240))
            .dockerfile("FROM scratch\nCOPY d /d\n")
            .expect(at("/d/511").file(noise(511)))
            .expect(at("/d/512").file(noise(512)))
            .expect(at("/d/513").file(noise(513)))
            .expect(at("/d/10240").file(noise(10_240))),
    ]
}

/// What files are called.
fn names() -> Vec<Scenario> {
    const LONG: &str = "a-name-of-one-hundred-and-twenty-bytes-which-the-old-tar-header-has-no-room-for-so-that-it-must-\
                        go-into-a-record-of-its-own";
    const LONGEST: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
                           yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\
                           zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";
    assert_eq!(LONGEST.len(), 255, "as long as a name can be");
    let deep = (1..60).map(|n| format!("directory-{n:02}")).collect::<Vec<_>>().join("/");
    vec![
        scenario("names_that_are_not_ascii")
            .file("d/ünï çödé.txt", "1")
            .file("d/日本語/ファイル", "2")
            .file("d/🚀", "3")
            .file("d/e\u{301}", "decomposed")
            .file("d/\u{e9}", "composed")
            .dockerfile("FROM scratch\nCOPY d /d\nCOPY d/日本語 /日本\n")
            .expect(at("/d/ünï çödé.txt").file("1"))
            .expect(at("/d/e\u{301}").file("decomposed"))
            .expect(at("/d/\u{e9}").file("composed"))
            .expect(at("/日本/ファイル").file("2")),
        scenario("names_with_odd_characters")
            .files(&[
                "d/a b",
                "d/tab\there",
                "d/new\nline",
                "d/quote\"'",
                "d/back\\slash",
                "d/$HOME",
                "d/#x",
                "d/-rf",
                "d/a:b",
                "d/%41",
                "d/...",
                "d/ lead",
                "d/trail ",
            ])
            .dockerfile("FROM scratch\nCOPY d /d\n")
            .expect(only(
                "/d",
                &[
                    "a b",
                    "tab\there",
                    "new\nline",
                    "quote\"'",
                    "back\\slash",
                    "$HOME",
                    "#x",
                    "-rf",
                    "a:b",
                    "%41",
                    "...",
                    " lead",
                    "trail ",
                ],
            )),
        scenario("long_names")
            .file(format!("d/{LONG}"), "long")
            .file(format!("d/{LONGEST}"), "longest")
            .symlink("d/link", LONG)
            .symlink(format!("d/l{}", &LONG[1..]), LONGEST)
            .dockerfile("FROM scratch\nCOPY d /d\n")
            .expect(at(format!("/d/{LONG}")).file("long"))
            .expect(at(format!("/d/{LONGEST}")).file("longest"))
            .expect(at("/d/link").symlink(LONG)),
        scenario("deep_paths")
            .file(format!("d/{deep}/file"), "deep")
            .dockerfile("FROM scratch\nCOPY d /d\n")
            .expect(at(format!("/d/{deep}/file")).file("deep")),
        scenario("names_that_are_not_utf8")
            .file(b"d/latin-\xe9-1", "1")
            .file(b"d/\xff\xfe/x", "2")
            .dockerfile("FROM scratch\nCOPY d /d\n"),
        scenario("names_that_mean_something_in_a_layer")
            .files(&["d/ok", "d/.wh", "d/wh.x"])
            .dockerfile("FROM scratch\nCOPY d /d\n")
            .expect(only("/d", &["ok", ".wh", "wh.x"])),
    ]
}

/// Bytes that do not compress, the same every time.
pub(crate) fn noise(size_bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size_bytes + 8);
    while bytes.len() < size_bytes {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size_bytes);
    bytes
}
