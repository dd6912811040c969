//! `RUN ["rm", …]`: what is removed, with a program or without one.

use windlass_core::ErrorKind::{BuildFailed, Unsupported};
use windlass_tests::scenario::{Scenario, absent, at, only, scenario};

use crate::suite::ANY_REMOTE;

const ONE_LAYER: &str = "what a linked COPY replaces is removed in its layer, and the RUN has none";

/// The scenarios of this file. Those with a linked COPY are for the containerd store: the classic one copies
/// without `--link`.
pub(crate) fn scenarios() -> Vec<Scenario> {
    [replaced().into_iter().map(on_containerd).collect(), removed()].concat()
}

fn on_containerd(mut scenario: Scenario) -> Scenario {
    scenario.options.on_containerd = true;
    scenario
}

fn replaced() -> Vec<Scenario> {
    vec![
        scenario("removed_and_replaced_by_a_linked_copy")
            .file("old/kept.py", "1")
            .file("old/gone/deep.py", "2")
            .file("code/kept.py", "3")
            .file("code/new/mod.py", "4")
            .dockerfile(
                "FROM {debian}\nCOPY old /srv/code/\nUSER root\nRUN [\"rm\", \"-rf\", \"--\", \"/srv/code\"]\n\
                 COPY --link --chown=1000:1000 code/ /srv/code/\n",
            )
            .expect(only("/srv/code", &["kept.py", "new", "new/mod.py"]))
            .expect(at("/srv/code").directory().owner(1000, 1000))
            .expect(at("/srv/code/kept.py").file("3").owner(1000, 1000))
            .differs("history/4/empty_layer", ONE_LAYER),
        scenario("removed_from_the_base_and_replaced_by_a_linked_copy")
            .file("new/one", "1")
            .dockerfile(
                "FROM {debian}\nRUN [\"rm\", \"-rf\", \"/etc/apt\", \"/etc/default\", \"/none\"]\nENV A=1\n\
                 COPY --link new/ /etc/apt/\nCOPY new /etc/default/\n",
            )
            .expect(only("/etc/apt", &["one"]))
            .expect(only("/etc/default", &["one"]))
            .expect(at("/etc/passwd"))
            .differs("history/2/empty_layer", ONE_LAYER),
        scenario("removed_and_replaced_by_a_file")
            .file("one", "1")
            .dockerfile("FROM {debian}\nRUN [\"rm\", \"-rf\", \"/etc/apt\"]\nCOPY --link one /etc/apt\n")
            .expect(at("/etc/apt").file("1"))
            .differs("history/2/empty_layer", ONE_LAYER),
        scenario("removed_beside_a_linked_copy_that_goes_elsewhere")
            .file("one", "1")
            .dockerfile(
                "FROM {debian}\nRUN [\"rm\", \"-r\", \"-f\", \"/usr/share/doc\"]\nCOPY --link one /srv/\n",
            )
            .expect(absent("/usr/share/doc"))
            .expect(at("/srv/one").file("1")),
    ]
}

fn removed() -> Vec<Scenario> {
    vec![
        scenario("removed_without_a_replacement")
            .file("tree/a/b/c", "1")
            .file("tree/d", "2")
            .symlink("tree/alias", "a/b")
            .symlink("tree/last", "d")
            .dockerfile(
                "FROM {debian}\nARG V=1\nCOPY tree /srv/\nWORKDIR /srv\n\
                 RUN [\"rm\", \"-fr\", \"--\", \"alias/c\", \"last\", \"/bin/bash\", \"missing\"]\n",
            )
            .expect(only("/srv", &["a", "a/b", "alias", "d"]))
            .expect(at("/srv/alias").symlink("a/b"))
            .expect(absent("/usr/bin/bash")),
        scenario("removed_and_put_back")
            .file("tree/a", "1")
            .file("tree/sub/b", "2")
            .dockerfile(
                "FROM {debian}\nCOPY tree /srv/tree/\nRUN [\"rm\", \"-r\", \"/srv/tree\"]\n\
                 RUN [\"rm\", \"-f\", \"/srv/none\"]\nCOPY tree/a /srv/tree/sub/\n",
            )
            .expect(only("/srv/tree", &["sub", "sub/a"])),
        scenario("removed_from_a_stage_that_is_copied_from")
            .file("tree/a", "1")
            .file("tree/b", "2")
            .dockerfile(
                "FROM {debian} AS made\nCOPY tree /srv/tree/\nRUN [\"rm\", \"/srv/tree/a\"]\nFROM scratch\n\
                 COPY --from=made /srv/tree /\n",
            )
            .expect(only("/", &["b"])),
        scenario("removed_by_a_trigger_of_the_base")
            .file("one", "1")
            .dockerfile(
                "FROM {debian} AS base\nONBUILD RUN [\"rm\", \"-rf\", \"/etc/apt\"]\nFROM base\nCOPY one /srv/\n",
            )
            .expect(absent("/etc/apt")),
        scenario("removing_what_is_not_there")
            .dockerfile("FROM {debian}\nRUN [\"rm\", \"/srv/none\"]\n")
            .fails(BuildFailed, &["/srv/none", "RUN [\"rm\""]),
        scenario("removing_a_directory_without_saying_so")
            .dockerfile("FROM {debian}\nRUN [\"rm\", \"-f\", \"/etc\"]\n")
            .fails(BuildFailed, &["/etc", "RUN [\"rm\""]),
        scenario("removing_as_somebody_else_is_refused")
            .dockerfile("FROM {debian}\nUSER nobody\nRUN [\"rm\", \"-rf\", \"/srv/none\"]\n")
            .expect(at("/etc/passwd"))
            .fails_on("oci", Unsupported, &["RUN", "Dockerfile:3"])
            .fails_on(ANY_REMOTE, BuildFailed, &["RUN", "Dockerfile:3"])
            .differs("", "who is not root may be refused by the files of the image, which only a process meets"),
    ]
}
