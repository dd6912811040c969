use std::sync::Arc;

use super::super::entry::Work;
use super::*;
use crate::backend::Job;
use crate::request::BuildRequest;

fn read(files: &[(&str, &str)], list: &str) -> Result<(List, tempfile::TempDir)> {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(path, content).expect("write");
    }
    let recipes = Recipes::builtin().expect("recipes");
    let options = ListOptions {
        current_dir: dir.path(),
        environment: &BTreeMap::new(),
        context: &ContextSettings::default(),
        recipes: &recipes,
        outputs: None,
        only: &[],
        backends: &[],
        source_date_epoch: Some(7),
    };
    List::read(Path::new(list), &options).map(|list| (list, dir))
}

fn request(entry: &Entry) -> &BuildRequest {
    match &entry.work {
        Work::Dockerfile(request) => request,
        Work::Recipe(_) => panic!("{entry:?}"),
    }
}

const DOCKERFILE: &str = "ARG BASE_IMAGE=scratch\nFROM $BASE_IMAGE\n";

#[test]
fn defaults_are_merged_and_paths_start_at_the_list() {
    let list = "platforms = [\"linux/amd64\"]\nbuild_args = { A = \"1\", B = \"1\" }\nbase = \"debian:11\"\n\
                dockerfile = \"other.Dockerfile\"\n\
                [[image]]\ntags = [\"r/a:1\"]\nbuild-args = { B = 2 }\nplatforms = []\n\
                [[image]]\nbase-image = \"debian:12\"\ntags = [\"r/b:1\"]\ncontext = \"sub\"\n";
    let files = [
        ("lists/l.toml", list),
        ("lists/other.Dockerfile", DOCKERFILE),
        ("lists/sub/other.Dockerfile", "FROM scratch\n"),
    ];
    let (list, dir) = read(&files, "lists/l.toml").expect("valid");
    let [first, second] = &list.entries[..] else { panic!("{list:?}") };
    let args = |entry| {
        let pairs = request(entry).build_args.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(args(first), "A=1 B=2 BASE_IMAGE=debian:11");
    assert_eq!(args(second), "A=1 B=1 BASE_IMAGE=debian:12");
    assert!(request(first).platforms.is_empty() && request(second).platforms.len() == 1);
    assert_eq!((first.name.as_str(), first.line, request(first).source_date_epoch), ("a-1", 5, Some(7)));
    let place = |entry| request(entry).context.root().map(Path::to_owned);
    assert_eq!(place(first), Some(dir.path().join("lists")));
    assert_eq!(place(second), Some(dir.path().join("lists/sub")));
    // A Dockerfile beside the list stands before one in the context.
    assert_eq!(second.made_by(), "lists/other.Dockerfile");
    assert_ne!(first.hash, second.hash);
}

#[test]
fn a_key_that_is_there_twice_is_refused() {
    let list = "no_cache = true\nno-cache = false\n\
                [[image]]\ntags = [\"r/a:1\"]\nbuild_args = { A = \"1\" }\nbuild-args = { A = \"2\" }\n\
                [[image]]\ntags = [\"r/a:2\"]\nbase = \"debian:11\"\nbase-image = \"debian:12\"\n";
    let error = read(&[("l.toml", list), ("Dockerfile", DOCKERFILE)], "l.toml").expect_err("doubles");
    for words in [
        "l.toml:2: `no_cache` and `no-cache` say the same",
        "l.toml:6: `build_args` and `build-args` say the same",
        "l.toml:9: `base-image` and `base` say the same",
    ] {
        assert!(error.details()[0].1.contains(words), "{error:?}");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_list() {
    for (name, text) in [
        ("l.toml", "[[image]]\ntags = [\"r/a:1\"]\n"),
        ("l.jsonl", "{\"tags\": [\"r/a:1\"]}\n"),
        ("l.hcl", "target \"default\" { tags = [\"r/a:1\"] }\n"),
        ("l.json", "{\"target\": {\"default\": {\"tags\": [\"r/a:1\"]}}}\n"),
    ] {
        let text = format!("\u{feff}{text}");
        let (list, _dir) = read(&[(name, &text), ("Dockerfile", DOCKERFILE)], name).expect(name);
        assert_eq!(list.entries[0].line, 1);
    }
}

#[test]
fn a_mistake_among_the_defaults_is_told_once() {
    let list =
        "images = 1\n[[image]]\ntags = [\"r/a:1\"]\n[[image]]\nrecipe = \"agent-server\"\nsource = \".\"\n";
    let error = read(&[("l.toml", list), ("Dockerfile", DOCKERFILE)], "l.toml").expect_err("a mistake");
    let told = &error.details()[0].1;
    assert_eq!(told, "l.toml:1: `images` is not a key: images are `[[image]]` tables");
}

#[test]
fn images_of_one_context_are_listed_once() {
    let list = "{\"defaults\": {\"context\": \"app\"}}\n{\"tags\": [\"r/a:1\"]}\n\n{\"tags\": [\"r/a:2\"]}\n";
    let files = [("l.jsonl", list), ("app/Dockerfile", DOCKERFILE), ("app/x", "x")];
    let (list, _dir) = read(&files, "l.jsonl").expect("valid");
    let listed =
        |index: usize| request(&list.entries[index]).context.list_once(&Job::silent()).expect("listed");
    assert!(Arc::ptr_eq(&listed(0), &listed(1)));
    assert_eq!(list.entries[1].line, 4);
    assert_eq!(list.entries[0].shares, list.entries[1].shares);
}

#[test]
fn the_hash_counts_the_dockerfile_and_not_the_name() {
    let list =
        "{\"tags\": [\"r/a:1\"], \"dockerfile\": \"a\"}\n{\"tags\": [\"r/a:2\"], \"dockerfile\": \"b\"}\n";
    let hashes_on = |list: &str, dir: &Path, backends: &[String], outputs: Option<&[Output]>| {
        std::fs::write(dir.join("l.jsonl"), list).expect("write");
        let recipes = Recipes::builtin().expect("recipes");
        let options = ListOptions {
            current_dir: dir,
            environment: &BTreeMap::new(),
            context: &ContextSettings::default(),
            recipes: &recipes,
            outputs,
            only: &[],
            backends,
            source_date_epoch: None,
        };
        let list = List::read(Path::new("l.jsonl"), &options).expect("valid");
        list.entries.into_iter().map(|entry| entry.hash).collect::<Vec<_>>()
    };
    let hashes = |list: &str, dir: &Path| hashes_on(list, dir, &[], None);
    let files = [("l.jsonl", list), ("a", DOCKERFILE), ("b", DOCKERFILE)];
    let (_, dir) = read(&files, "l.jsonl").expect("valid");
    let before = hashes(list, dir.path());
    let named = list.replacen("{", "{\"name\": \"other\", ", 1);
    assert_eq!(hashes(&named, dir.path()), before);
    std::fs::write(dir.path().join("b"), "FROM scratch\n").expect("write");
    let after = hashes(list, dir.path());
    assert_eq!((&after[0], after[1] == before[1]), (&before[0], false));
    // In the store of one backend is not in that of another; in a registry is.
    let docker = ["docker".to_owned()];
    assert_ne!(hashes_on(list, dir.path(), &docker, None), after);
    let pushed = [Output::push()];
    let on = |backends: &[String]| hashes_on(list, dir.path(), backends, Some(&pushed));
    assert_eq!(on(&docker), on(&[]));
}
