//! COPY: what it picks, and where it lands.

use windlass_tests::scenario::{Scenario, absent, at, config, only, scenario};

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    [landing(), sources(), onto_a_base()].concat()
}

/// Where a COPY lands.
fn landing() -> Vec<Scenario> {
    vec![
        scenario("copy_file_into_directory")
            .file("a.txt", "alpha\n")
            .dockerfile("FROM scratch\nCOPY a.txt /d/\n")
            .expect(at("/d").directory().mode(0o755).owner(0, 0))
            .expect(at("/d/a.txt").file("alpha\n").mode(0o644).owner(0, 0))
            .expect(only("/", &["d", "d/a.txt"])),
        scenario("copy_file_under_another_name")
            .file("a.txt", "alpha\n")
            .dockerfile("FROM scratch\nCOPY a.txt /d/b.txt\n")
            .expect(only("/d", &["b.txt"])),
        scenario("copy_file_over_a_file_of_the_base")
            .file("a.txt", "alpha\n")
            .dockerfile("FROM {busybox}\nCOPY a.txt /etc/passwd\n")
            .expect(at("/etc/passwd").file("alpha\n")),
        scenario("copy_directory_means_its_contents")
            .file("src/one", "1")
            .file("src/sub/two", "2")
            .directory("src/empty")
            .dockerfile("FROM scratch\nCOPY src /d\n")
            .expect(only("/d", &["one", "sub", "sub/two", "empty"])),
        scenario("copy_directory_with_trailing_slashes")
            .file("src/one", "1")
            .dockerfile("FROM scratch\nCOPY src/ /d/\n")
            .expect(only("/", &["d", "d/one"])),
        scenario("copy_directory_keeps_modes_below_the_top")
            .directory("src")
            .mode(0o750)
            .file("src/sub/one", "1")
            .dockerfile("FROM scratch\nCOPY src /d\n")
            .expect(at("/d").directory().mode(0o755))
            .expect(at("/d/sub").directory().mode(0o755)),
        scenario("copy_several_sources")
            .file("a.txt", "alpha\n")
            .file("sub/b.txt", "beta\n")
            .file("c/x", "x")
            .dockerfile("FROM scratch\nCOPY a.txt sub/b.txt c /d/\n")
            .expect(only("/d", &["a.txt", "b.txt", "x"])),
        scenario("copy_same_source_twice_in_one_instruction")
            .file("a.txt", "alpha\n")
            .file("sub/a.txt", "beta\n")
            .dockerfile("FROM scratch\nCOPY a.txt sub/a.txt /d/\n")
            .expect(at("/d/a.txt").file("beta\n")),
        scenario("copy_to_a_relative_workdir")
            .file("a.txt", "alpha\n")
            .dockerfile("FROM scratch\nWORKDIR /srv\nWORKDIR app\nCOPY a.txt here/\nCOPY a.txt ./b.txt\n")
            .expect(only("/srv", &["app", "app/b.txt", "app/here", "app/here/a.txt"])),
        scenario("copy_everything_to_the_workdir")
            .file("a.txt", "alpha\n")
            .file("sub/b.txt", "beta\n")
            .dockerfile("FROM scratch\nWORKDIR /app\nCOPY . .\n")
            .expect(only("/app", &["Dockerfile", "a.txt", "sub", "sub/b.txt"])),
        scenario("copy_everything_to_the_root_when_there_is_no_workdir")
            .file("a.txt", "alpha\n")
            .dockerfile("FROM scratch\nCOPY . .\n")
            .expect(only("/", &["Dockerfile", "a.txt"])),
        scenario("copy_cleans_paths")
            .file("sub/a.txt", "alpha\n")
            .dockerfile("FROM scratch\nCOPY ./sub//../sub/a.txt /x/./y/../z//\nCOPY /sub/a.txt /b\n")
            .expect(only("/", &["b", "x", "x/z", "x/z/a.txt"])),
        scenario("copy_with_tabs_between_the_words")
            .file("a.txt", "alpha\n")
            .dockerfile("FROM\tscratch\nCOPY\t a.txt \t /d/ \t\n")
            .expect(only("/d", &["a.txt"])),
        scenario("source_date_epoch_is_every_time")
            .file("a.txt", "alpha\n")
            .file("sub/b.txt", "beta\n")
            .dockerfile("FROM scratch\nCOPY a.txt sub /d/\nENV A=1\n")
            .source_date_epoch(1_700_000_000)
            .expect(at("/d").mtime(1_700_000_000))
            .expect(at("/d/a.txt").mtime(1_700_000_000))
            .expect(config("/created", "2023-11-14T22:13:20Z"))
            .expect(config("/history/0/created", "2023-11-14T22:13:20Z")),
        scenario("copy_in_json_form")
            .file("with space.txt", "alpha\n")
            .dockerfile("FROM scratch\nCOPY [\"with space.txt\", \"/a dir/\"]\n")
            .expect(only("/", &["a dir", "a dir/with space.txt"])),
        scenario("later_copy_wins")
            .file("a.txt", "alpha\n")
            .file("b.txt", "beta\n")
            .dockerfile("FROM scratch\nCOPY a.txt /x\nCOPY b.txt /x\n")
            .expect(at("/x").file("beta\n")),
        scenario("copy_variables_in_source_and_destination")
            .file("v2/a.txt", "alpha\n")
            .dockerfile("FROM scratch\nARG V=1\nENV HOME_DIR=/home/me\nCOPY v${V}/a.txt $HOME_DIR/\n")
            .build_arg("V", "2")
            .expect(only("/home/me", &["a.txt"]))
            .differs(
                "history/0/created_by",
                "BuildKit 0.13 writes an ARG as it stands in the Dockerfile; later ones its value",
            ),
        scenario("copy_link_makes_a_layer_of_its_own")
            .file("a.txt", "alpha\n")
            .dockerfile("FROM {busybox}\nCOPY --link a.txt /srv/app/\n")
            .expect(at("/srv/app/a.txt").file("alpha\n")),
        scenario("chmod_of_file_and_directory")
            .file("a.txt", "alpha\n")
            .file("src/sub/one", "1")
            .dockerfile("FROM scratch\nCOPY --chmod=0640 a.txt /d/\nCOPY --chmod=711 src /e\n")
            .expect(at("/d/a.txt").mode(0o640))
            .expect(at("/e/sub").directory().mode(0o711))
            .expect(at("/e/sub/one").mode(0o711)),
        scenario("chown_by_numbers")
            .file("a.txt", "alpha\n")
            .file("src/one", "1")
            .dockerfile(
                "FROM scratch\nCOPY --chown=12:34 a.txt /d/\nCOPY --chown=56 a.txt /u\nCOPY --chown=7:8 src /e/f\n",
            )
            .expect(at("/d/a.txt").owner(12, 34))
            .expect(at("/u").owner(56, 56))
            .expect(at("/e/f/one").owner(7, 8)),
        scenario("chown_by_names_of_the_base")
            .file("a.txt", "alpha\n")
            .dockerfile(
                "FROM {busybox}\nCOPY --chown=app:staff a.txt /1\nCOPY --chown=www-data a.txt /2\n\
                 COPY --chown=1000:staff a.txt /3\nCOPY --chown=app:7 a.txt /4\n",
            )
            .expect(at("/1").owner(1000, 50))
            .expect(at("/2").owner(33, 33))
            .expect(at("/3").owner(1000, 50))
            .expect(at("/4").owner(1000, 7)),
        scenario("chown_by_names_of_a_passwd_that_was_copied")
            .file("passwd", "root:x:0:0::/:/bin/sh\nme:x:77:78::/:/bin/sh\n")
            .file("group", "root:x:0:\nus:x:79:\n")
            .file("a.txt", "alpha\n")
            .dockerfile("FROM scratch\nCOPY passwd group /etc/\nCOPY --chown=me:us a.txt /\n")
            .expect(at("/a.txt").owner(77, 79)),
    ]
}

/// What a COPY picks.
fn sources() -> Vec<Scenario> {
    vec![
        scenario("wildcard_in_the_last_part")
            .files(&["a.txt", "b.txt", "c.md", "sub/d.txt", ".hidden.txt"])
            .dockerfile("FROM scratch\nCOPY *.txt /d/\n")
            .expect(only("/d", &[".hidden.txt", "a.txt", "b.txt"])),
        scenario("wildcard_in_a_directory_part")
            .files(&["p1/a", "p2/b", "q1/c"])
            .dockerfile("FROM scratch\nCOPY p?/* /d/\n")
            .expect(only("/d", &["a", "b"])),
        scenario("wildcard_of_directories_merges_their_contents")
            .file("p1/a", "1")
            .file("p1/same", "1")
            .file("p2/b", "2")
            .file("p2/same", "2")
            .dockerfile("FROM scratch\nCOPY p* /d/\n")
            .expect(only("/d", &["a", "b", "same"]))
            .expect(at("/d/same").file("2")),
        scenario("wildcard_with_a_class")
            .files(&["a1", "b1", "c1", "d1"])
            .dockerfile("FROM scratch\nCOPY [a-b]1 [^a-c]1 /d/\n")
            .expect(only("/d", &["a1", "b1", "d1"])),
        scenario("wildcard_escaped")
            .files(&["arr[0].txt", "arr0.txt", "star"])
            .dockerfile("FROM scratch\nCOPY arr[[]0].txt /d/\n")
            .expect(only("/d", &["arr[0].txt"])),
        scenario("wildcard_that_matches_one_file")
            .files(&["only.txt"])
            .dockerfile("FROM scratch\nCOPY onl*.txt /d/renamed\n")
            .expect(only("/d", &["renamed"])),
    ]
}

/// COPY onto what a base image brings.
fn onto_a_base() -> Vec<Scenario> {
    vec![
        scenario("copy_below_a_link_of_the_base")
            .file("a.txt", "alpha\n")
            .dockerfile("FROM {busybox}\nCOPY a.txt /lib64/sub/\nCOPY a.txt /var/run/\n")
            .expect(at("/lib/sub/a.txt").file("alpha\n"))
            .expect(at("/run/a.txt").file("alpha\n"))
            .expect(at("/lib64").symlink("lib"))
            .expect(at("/var/run").symlink("../run")),
        scenario("copy_below_a_link_of_debian")
            .file("a.txt", "alpha\n")
            .dockerfile("FROM {debian}\nCOPY a.txt /lib/windlass/\nCOPY --chown=daemon:mail a.txt /bin/a\n")
            .expect(at("/usr/lib/windlass/a.txt").file("alpha\n").owner(0, 0))
            .expect(at("/usr/bin/a").file("alpha\n").owner(1, 8))
            .expect(at("/lib").symlink("usr/lib"))
            .expect(at("/bin").symlink("usr/bin")),
        scenario("copy_directory_onto_a_link_to_a_directory")
            .file("src/one", "1")
            .dockerfile("FROM {busybox}\nCOPY src /lib64\nCOPY src /var/run/\n")
            .expect(at("/lib/one").file("1"))
            .expect(at("/lib64").symlink("lib")),
        scenario("copy_below_a_link_that_was_copied")
            .file("a.txt", "alpha\n")
            .file("tree/real/x", "x")
            .symlink("tree/alias", "real")
            .symlink("tree/absolute", "/real")
            .dockerfile("FROM scratch\nCOPY tree /\nCOPY a.txt /alias/\nCOPY a.txt /absolute/b.txt\n")
            .expect(only("/real", &["a.txt", "b.txt", "x"])),
        scenario("copy_file_onto_a_link_to_a_file")
            .file("a.txt", "alpha\n")
            .file("tree/real", "real")
            .symlink("tree/alias", "real")
            .dockerfile("FROM scratch\nCOPY tree /\nCOPY a.txt /alias\n")
            .expect(at("/alias").symlink("real"))
            .expect(at("/real").file("alpha\n")),
        scenario("copied_directories_bring_their_modes_and_owners")
            .file("a.txt", "alpha\n")
            .file("tree/tmp/t", "t")
            .file("tree/home/app/h", "h")
            .dockerfile("FROM {busybox}\nCOPY a.txt /tmp/\nCOPY a.txt /root/\nCOPY tree /\n")
            .expect(at("/root").directory().mode(0o700))
            .expect(at("/tmp/a.txt").file("alpha\n"))
            .expect(at("/tmp").directory().mode(0o755))
            .expect(at("/home/app").directory().mode(0o755).owner(0, 0))
            .expect(at("/home/app/h").file("h")),
        scenario("copy_directory_over_a_directory_merges")
            .file("one/a", "1")
            .file("one/sub/b", "1")
            .file("two/a", "2")
            .file("two/sub/c", "2")
            .dockerfile("FROM scratch\nCOPY one /d\nCOPY two /d\n")
            .expect(only("/d", &["a", "sub", "sub/b", "sub/c"]))
            .expect(at("/d/a").file("2")),
        scenario("copy_a_link_over_a_file")
            .file("one/x", "file")
            .symlink("two/x", "elsewhere")
            .dockerfile("FROM scratch\nCOPY one /d\nCOPY two /d\n")
            .expect(at("/d/x").symlink("elsewhere")),
        scenario("copy_a_file_over_a_link")
            .symlink("one/x", "elsewhere")
            .file("two/x", "file")
            .dockerfile("FROM scratch\nCOPY one /d\nCOPY two /d\n")
            .expect(at("/d/x").file("file"))
            .expect(absent("/d/elsewhere")),
    ]
}
