//! `windlass image push --to`: finished images.

use libtest_mimic::Trial;
use windlass_tests::service::runtime_api::{Field, Habits};

use crate::rig::{Rig, same};

pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("images::from_the_store_and_from_archives", Habits::default, |case| {
            case.run(&["build", "-b", "oci", "-t", "app:1"])?.good()?;
            for (file, form) in [("oci.tar", "oci"), ("docker.tar", "docker")] {
                case.run(&["image", "save", "app:1", "-o", file, "--type", form])?.good()?;
            }
            for source in ["app:1", "oci.tar", "docker.tar"] {
                let line = [
                    "image",
                    "push",
                    source,
                    "agent:1",
                    "agent:2",
                    "--to",
                    "runtime-api",
                    "--timeout",
                    "60m",
                ];
                let outcome = case.run(&line)?;
                same(source, outcome.line()?, "registry.example.com/team/agent:1")?;
            }
            let asked = case.service.calls("build");
            same("uploads", asked.len(), 3)?;
            for asked in &asked {
                let upload = asked.upload.as_ref().ok_or("an upload")?;
                same("raw", (upload.is_raw, upload.is_json), (true, false))?;
                let image = Field {
                    name: "context".to_owned(),
                    file_name: Some("image.tar.gz".to_owned()),
                    content_type: Some("application/gzip".to_owned()),
                };
                let field = |name: &str| Field { name: name.to_owned(), ..Field::default() };
                same("fields", &upload.fields, &vec![image, field("target_image"), field("tags_0")])?;
                let members = upload.members();
                for name in ["manifest.json", "index.json", "oci-layout"] {
                    same(name, members.iter().any(|(path, ..)| path == name), true)?;
                }
            }
            let state = case.run(&["builds", "--format", "json"])?;
            let listed: serde_json::Value = serde_json::from_str(state.good()?)?;
            same("in the ledger", listed.as_array().map(Vec::len), Some(3))
        }),
        rig.trial("images::what_is_not_there", Habits::default, |case| {
            let to = ["--to", "runtime-api"];
            case.run(&[&["image", "push", "absent:1"][..], &to].concat())?
                .refused(1, &["is not in the local store"])?;
            case.run(&["image", "push", "absent:1", "--to", "oci"])?
                .refused(2, &["no service that takes images"])?;
            same("requests", case.service.lines().len(), 0)
        }),
    ]
}
