//! Where contents come from if not from plain files: here-documents, archives, other stages and contexts.

use std::io::Write as _;

use windlass_core::ErrorKind;
use windlass_tests::scenario::{NamedContext, Scenario, absent, at, only, scenario};

/// Why histories differ where a layer is nobody's instruction.
const UNNAMED_LAYER: &str =
    "BuildKit puts it at the end, under the name of another; windlass where its layer is";

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    [here_documents(), archives(), from()].concat()
}

fn here_documents() -> Vec<Scenario> {
    vec![
        scenario("heredoc_expands_variables")
            .dockerfile("FROM scratch\nARG WHO=world\nCOPY <<EOF /greeting\nhello $WHO ${NO:-one} \\$WHO\nEOF\n")
            .expect(at("/greeting").file("hello world one $WHO\n").mode(0o644).owner(0, 0)),
        scenario("heredoc_quoted_is_literal")
            .dockerfile("FROM scratch\nARG WHO=world\nCOPY <<\"EOF\" /one\nhello $WHO \\$x\nEOF\nCOPY <<'EOF' /two\n$WHO\nEOF\n")
            .expect(at("/one").file("hello $WHO \\$x\n"))
            .expect(at("/two").file("$WHO\n")),
        scenario("heredoc_with_a_dash_drops_tabs")
            .dockerfile("FROM scratch\nCOPY <<-EOF /x\n\tone\n\t\ttwo\n\t  three\n\tEOF\n")
            .expect(at("/x").file("one\ntwo\n  three\n")),
        scenario("heredocs_several_in_one_copy")
            .dockerfile("FROM scratch\nCOPY <<one <<two /d/\n1\none\n2\n\ntwo\n")
            .expect(only("/d", &["one", "two"]))
            .expect(at("/d/one").file("1\n"))
            .expect(at("/d/two").file("2\n\n")),
        scenario("heredoc_beside_a_file_with_flags")
            .file("a.txt", "alpha\n")
            .dockerfile("FROM scratch\nCOPY --chown=5:6 --chmod=600 a.txt <<doc /d/\nx\ndoc\n")
            .expect(at("/d/a.txt").owner(5, 6).mode(0o600))
            .expect(at("/d/doc").file("x\n").owner(5, 6).mode(0o600)),
        scenario("heredoc_that_is_empty")
            .dockerfile("FROM scratch\nCOPY <<EOF /empty\nEOF\n")
            .expect(at("/empty").file("")),
        scenario("heredoc_looks_like_instructions")
            .dockerfile("FROM scratch\nCOPY <<EOF /Dockerfile\nFROM nothing\n# no comment\nRUN \\\n  x\nEOF\nENV A=1\n")
            .expect(at("/Dockerfile").file("FROM nothing\n# no comment\nRUN \n  x\n")),
        scenario("heredoc_in_add")
            .dockerfile("FROM scratch\nADD <<EOF /x.tar\nno archive\nEOF\n")
            .expect(at("/x.tar").file("no archive\n")),
    ]
}

/// A tar with a directory, a file with owner and mode, and links.
fn tar_of_some_things() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(123);
        header.set_gid(456);
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        header
    };
    let (directory, file, program) = (
        header(tar::EntryType::Directory, 0o750, 0),
        header(tar::EntryType::Regular, 0o640, 6),
        header(tar::EntryType::Regular, 0o4755, 3),
    );
    let mut symlink = header(tar::EntryType::Symlink, 0o777, 0);
    let mut hard_link = header(tar::EntryType::Link, 0o640, 0);
    let result = (|| {
        builder.append_data(&mut directory.clone(), "top/", std::io::empty())?;
        builder.append_data(&mut file.clone(), "top/file", &b"alpha\n"[..])?;
        builder.append_data(&mut program.clone(), "top/deep/program", &b"run"[..])?;
        builder.append_link(&mut symlink, "top/link", "deep/program")?;
        builder.append_link(&mut hard_link, "top/same", "top/file")?;
        builder.into_inner()
    })();
    result.expect("a tar in memory")
}

/// A tar with nothing but a hard link.
fn tar_of_a_link(name: &str, target: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_mode(0o755);
    header.set_size(0);
    let result = builder.append_link(&mut header, name, target).and_then(|()| builder.into_inner());
    result.expect("a tar in memory")
}

/// A tar with these names, written into the headers as they are, and not a number that can be left out.
fn tar_of_names(names: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_gnu();
        // The crate refuses such names, so they go into the field itself.
        header.as_gnu_mut().expect("a GNU header").name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_size(1);
        header.set_cksum();
        builder.append(&header, &b"x"[..]).expect("a tar in memory");
    }
    builder.into_inner().expect("a tar in memory")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("gzip in memory")
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("bzip2 in memory")
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("xz in memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("zstd in memory")
}

/// Adds one archive and expects what is in it.
fn unpacks(name: &'static str, archive: Vec<u8>) -> Scenario {
    scenario(name)
        .file("archive", archive)
        .dockerfile("FROM scratch\nADD archive /d/\n")
        .expect(only("/d", &["top", "top/deep", "top/deep/program", "top/file", "top/link", "top/same"]))
        .expect(at("/d/top").directory().mode(0o750).owner(123, 456))
        .expect(at("/d/top/file").file("alpha\n").mode(0o640).owner(123, 456))
        .expect(at("/d/top/deep/program").file("run").mode(0o4755))
        .expect(at("/d/top/link").symlink("deep/program"))
        .expect(at("/d/top/same").same_file_as("/d/top/file"))
}

fn archives() -> Vec<Scenario> {
    let tar = tar_of_some_things();
    vec![
        unpacks("add_unpacks_tar", tar.clone()),
        unpacks("add_unpacks_tar_gz", gzip(&tar)),
        unpacks("add_unpacks_tar_bz2", bzip2(&tar)),
        unpacks("add_unpacks_tar_xz", xz(&tar)),
        unpacks("add_unpacks_tar_zst", zstd(&tar)),
        scenario("add_unpacks_with_chown")
            .file("archive", tar.clone())
            .dockerfile("FROM scratch\nADD --chown=7:8 archive /d/\n")
            .expect(at("/d").owner(7, 8))
            .expect_on("oci", at("/d/top/file").file("alpha\n").mode(0o640).owner(7, 8))
            .differs(
                "/d/top",
                "the engine's BuildKit 0.13 leaves the owners of an archive; later ones obey `--chown`",
            ),
        scenario("add_unpacks_to_a_name_without_slash")
            .file("archive", gzip(&tar))
            .dockerfile("FROM scratch\nADD archive /d\n")
            .expect(at("/d/top/file").file("alpha\n")),
        scenario("add_of_a_directory_unpacks_nothing_in_it")
            .file("src/archive.tar", tar.clone())
            .dockerfile("FROM scratch\nADD src /d/\n")
            .expect(only("/d", &["archive.tar"])),
        scenario("add_keeps_absolute_names_below_the_destination")
            .file("archive", tar_of_names(&["ok", "/abs/x", "./a/../b"]))
            .dockerfile("FROM scratch\nADD archive /d/e/\n")
            .expect(only("/d/e", &["abs", "abs/x", "b", "ok"]))
            .expect(at("/d/e/ok").owner(0, 0).mtime(0)),
        scenario("add_keeps_names_that_climb_below_the_destination")
            .file("archive", tar_of_names(&["ok", "../up", "a/../../../../up2"]))
            .dockerfile("FROM scratch\nADD archive /d/e/\n")
            .expect(only("/d/e", &["ok", "up", "up2"])),
        scenario("add_unpacks_over_a_base")
            .file("archive", gzip(&tar))
            .dockerfile("FROM {busybox}\nADD archive /lib64\n")
            .expect(at("/lib/top/file").file("alpha\n").owner(123, 456)),
        scenario("add_of_an_archive_that_links_to_a_file_of_the_base")
            .file("archive", tar_of_a_link("more/names/same", "bin/busybox"))
            .dockerfile("FROM {busybox}\nADD archive /\n")
            .expect(at("/more/names/same").same_file_as("/bin/busybox")),
        scenario("add_of_an_archive_that_links_to_nothing")
            .file("archive", tar_of_a_link("same", "no/such/file"))
            .dockerfile("FROM {busybox}\nADD archive /\n")
            .fails_on("oci", ErrorKind::BuildFailed, &["archive", "`same` has no target"])
            .fails_on("docker", ErrorKind::InvalidDockerfile, &["archive", "no such file"])
            .differs("error/kind", "of BuildKit's errors, only the words say what they are"),
        scenario("add_of_what_is_no_archive_copies")
            .file("a.txt.gz", gzip(b"no tar in here"))
            .file("b.tar", "only called so")
            .file("src/one", "1")
            .dockerfile("FROM scratch\nADD a.txt.gz b.tar src /d/\n")
            .expect(at("/d/a.txt.gz").file(gzip(b"no tar in here")))
            .expect(at("/d/b.tar").file("only called so"))
            .expect(at("/d/one").file("1")),
        scenario("copy_unpacks_nothing")
            .file("archive.tar", tar.clone())
            .dockerfile("FROM scratch\nCOPY archive.tar /d/\n")
            .expect(at("/d/archive.tar").file(tar)),
    ]
}

fn from() -> Vec<Scenario> {
    vec![
        scenario("copy_from_a_stage_by_name")
            .file("tool", "run").mode(0o755)
            .dockerfile(
                "FROM scratch AS build\nCOPY --chown=5:6 tool /out/bin/\nCOPY Dockerfile /\n\
                 FROM scratch\nCOPY --from=build /out /\n",
            )
            .expect(only("/", &["bin", "bin/tool"]))
            .expect(at("/bin/tool").file("run").mode(0o755).owner(5, 6)),
        scenario("copy_from_a_stage_by_number")
            .file("a", "1")
            .file("b", "2")
            .dockerfile("FROM scratch\nCOPY a /x\nFROM scratch\nCOPY b /x\nFROM scratch\nCOPY --from=0 /x /0\nCOPY --from=1 x /1\n")
            .expect(at("/0").file("1"))
            .expect(at("/1").file("2")),
        scenario("copy_from_a_stage_in_other_letters")
            .file("a", "1")
            .dockerfile("FROM scratch AS Build\nCOPY a /x\nFROM scratch\nCOPY --from=BUILD /x /\n")
            .expect(at("/x").file("1")),
        scenario("copy_from_an_image")
            .dockerfile(
                "FROM scratch\nCOPY --from={busybox} /etc/passwd /p\nCOPY --from={busybox} /bin/busybox /bin/sh /bin/\n\
                 COPY --from={busybox} --chown=3:4 /home /home\n",
            )
            .expect(at("/p").mode(0o644).owner(0, 0))
            .expect(at("/bin/busybox").mode(0o755))
            .expect(at("/home/app").directory().mode(0o2775).owner(3, 4)),
        scenario("copy_from_keeps_owners")
            .dockerfile("FROM scratch\nCOPY --from={busybox} /home /home\n")
            .expect(at("/home/app").directory().mode(0o2775).owner(1000, 1000)),
        scenario("copy_from_goes_through_links")
            .file("a", "1")
            .dockerfile(
                "FROM {busybox} AS build\nCOPY a /lib/deep/a\n\
                 FROM scratch\nCOPY --from=build /lib64/deep /d\nCOPY --from=build /var/run /r\n",
            )
            .expect(at("/d/a").file("1"))
            .expect(at("/r").directory()),
        scenario("copy_from_with_wildcards")
            .files(&["t/a.txt", "t/b.txt", "t/c.md"])
            .dockerfile("FROM scratch AS build\nCOPY t /t\nFROM scratch\nCOPY --from=build /t/*.txt /d/\n")
            .expect(only("/d", &["a.txt", "b.txt"])),
        scenario("copy_from_sees_the_top_of_all_layers")
            .file("one/x", "1")
            .file("one/only", "1")
            .file("two/x", "2")
            .dockerfile("FROM scratch AS build\nCOPY one /d\nCOPY two /d\nFROM scratch\nCOPY --from=build /d /d\n")
            .expect(at("/d/x").file("2"))
            .expect(at("/d/only").file("1")),
        scenario("copy_from_a_hard_link")
            .file("archive", tar_of_some_things())
            .dockerfile("FROM scratch AS build\nADD archive /\nFROM scratch\nCOPY --from=build /top/same /x\nCOPY --from=build /top /top\n")
            .expect(at("/x").file("alpha\n").owner(123, 456))
            .expect(at("/top/same").file("alpha\n")),
        scenario("copy_from_a_directory_context")
            .beside("assets/logo", "logo")
            .beside("assets/sub/x", "x")
            .beside("assets/drop.log", "x")
            .beside("assets/.dockerignore", "*.log\n")
            .dockerfile("FROM scratch\nCOPY --from=assets . /d/\n")
            .context("assets", NamedContext::Directory("{root}/assets"))
            .expect(only("/d", &[".dockerignore", "logo", "sub", "sub/x"])),
        scenario("from_a_directory_context")
            .beside("assets/logo", "logo")
            .beside("assets/sub/x", "x")
            .beside("assets/drop.log", "x")
            .beside("assets/.dockerignore", "*.log\n")
            .dockerfile("FROM assets AS a\nENV X=1\nFROM a\nCOPY --from=assets logo /sub/\n")
            .context("assets", NamedContext::Directory("{root}/assets"))
            .differs("history/*/created_by", UNNAMED_LAYER)
            .differs("history/*/empty_layer", UNNAMED_LAYER)
            .expect(only("/", &[".dockerignore", "logo", "sub", "sub/logo", "sub/x"])),
        scenario("copy_from_an_image_context")
            .dockerfile("FROM scratch\nCOPY --from=tools /etc/group /\n")
            .context("tools", NamedContext::Image("{busybox}"))
            .expect(at("/group").mode(0o644)),
        scenario("from_a_layout_context")
            .dockerfile("FROM base\nCOPY --from=base /etc/group /g\n")
            .context("base", NamedContext::Layout("{bases}/busybox", "1"))
            .expect(at("/bin/busybox").mode(0o755))
            .expect(at("/g").mode(0o644)),
        scenario("context_takes_the_place_of_an_image")
            .dockerfile("FROM docker.io/library/none-such:9\nENV A=1\n")
            .context("docker.io/library/none-such:9", NamedContext::Image("{busybox}"))
            .expect(at("/bin/busybox").mode(0o755)),
        scenario("context_takes_the_place_of_a_stage")
            .file("a", "1")
            .beside("instead/a", "2")
            .dockerfile("FROM scratch AS build\nCOPY a /a\nFROM scratch\nCOPY --from=build /a /a\n")
            .context("build", NamedContext::Directory("{root}/instead"))
            .expect(at("/a").file("2"))
            .expect(absent("/b")),
        scenario("copy_from_a_stage_that_has_not_this")
            .file("a", "1")
            .dockerfile("FROM scratch AS build\nCOPY a /a\nFROM scratch\nCOPY --from=build /missing /\n")
            .fails(ErrorKind::InvalidDockerfile, &["/missing", "COPY --from=build /missing /"]),
    ]
}
