use std::path::Path;

use super::*;

fn drafts(text: &str, environment: &[(&str, &str)], only: &[&str]) -> Result<Vec<Draft>, String> {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let only: Vec<String> = only.iter().map(ToString::to_string).collect();
    let mut problems = Problems::of(Path::new("f"));
    let drafts = read(text, text.trim_start().starts_with('{'), &environment, &only, &mut problems);
    problems.finish().map(|()| drafts).map_err(|error| error.details()[0].1.clone())
}

fn tags(drafts: &[Draft]) -> Vec<&str> {
    drafts.iter().flat_map(|draft| draft.tags.iter().map(|(_, tag)| tag.as_str())).collect()
}

const HCL: &str = r#"# What is built
variable "REGISTRY" { default = "localhost:5000" }
variable "TAG" { default = "v${MAJOR}" }
variable "MAJOR" { default = 2 }
variable "LATEST" { default = true }
prefix = "${REGISTRY}/team"

group "default" { targets = ["app", "tools"] }
group "tools" { targets = ["lint"] }

target "_common" {
  platforms = ["linux/amd64"]
  args = { A = "1", B = 2 }
  labels = { x = "y" }
  cache-from = ["type=registry,ref=a"]
}
target "app" {
  inherits = ["_common"]
  dockerfile = "app.Dockerfile"
  args = { B = "${upper("b")}", C = LATEST }
  tags = ["${prefix}/app:${TAG}", LATEST ? "${prefix}/app:latest" : ""]
  cache-from = [{ type = "registry", ref = "b" }]
}
target "lint" {
  inherits = ["app"]
  target = "lint"
  tags = [join("/", [prefix, "lint"])]
  output = ["type=cacheonly"]
}
"#;

#[test]
fn hcl_becomes_images() {
    let found = drafts(HCL, &[], &[]).expect("valid");
    let names: Vec<_> = found.iter().map(|draft| draft.name.clone().expect("a name").1).collect();
    assert_eq!(names, ["app", "lint"]);
    assert_eq!(
        tags(&found),
        ["localhost:5000/team/app:v2", "localhost:5000/team/app:latest", "localhost:5000/team/lint"]
    );
    let app = &found[0];
    let pairs: Vec<String> = app.build_args.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(pairs, ["A=1", "B=B", "C=true"]);
    assert_eq!((app.line, app.platforms.len(), app.labels["x"].as_str()), (17, 1, "y"));
    let options: Vec<String> = app.engine_options.iter().map(|(n, (_, v))| format!("{n} {v}")).collect();
    assert_eq!(options, ["--cache-from type=registry,ref=a", "--cache-from type=registry,ref=b"]);
    assert_eq!(found[1].target, Some((26, "lint".to_owned())));
    assert_eq!(found[1].dockerfile.as_ref().expect("inherited").1, "app.Dockerfile");
    assert_eq!(found[1].outputs.as_ref().expect("outputs")[0].1, "type=cacheonly");
}

#[test]
fn the_environment_sets_variables_in_their_type() {
    let set = [("TAG", "t"), ("LATEST", "false"), ("REGISTRY", "r.io"), ("prefix", "no")];
    let found = drafts(HCL, &set, &["app"]).expect("valid");
    assert_eq!(tags(&found), ["r.io/team/app:t"]);
    let errors = drafts(HCL, &[("LATEST", "perhaps")], &[]).expect_err("no flag");
    assert!(errors.contains("f:5: the environment has `perhaps` for the variable `LATEST`"), "{errors}");
}

#[test]
fn what_is_reached_by_many_ways_is_read_once() {
    let mut text =
        String::from("target \"t0\" { cache-from = [\"a\"] }\ngroup \"g0\" { targets = [\"t40\"] }\n");
    for n in 1..=40 {
        let below = n - 1;
        text += &format!(
            "target \"t{n}\" {{ inherits = [\"t{below}\", \"t{below}\"] }}\n\
             group \"g{n}\" {{ targets = [\"g{below}\", \"g{below}\"] }}\n"
        );
    }
    let found = drafts(&text, &[], &["g40"]).expect("valid");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].engine_options, [("--cache-from", (1, "a".to_owned()))]);
}

#[test]
fn a_chain_that_is_too_long_is_refused() {
    let chain = |length: usize| {
        let links = (1..=length).map(|n| format!("target \"t{n}\" {{ inherits = [\"t{}\"] }}\n", n - 1));
        format!("target \"t0\" {{}}\n{}", links.collect::<String>())
    };
    assert_eq!(drafts(&chain(100), &[], &["t100"]).expect("valid").len(), 1);
    let errors = drafts(&chain(20_000), &[], &["t20000"]).expect_err("too long");
    assert!(errors.contains("`t19899` is reached through more than 100 others"), "{errors}");
}

#[test]
fn a_value_that_grows_without_end_is_refused() {
    for (first, next) in [("\"aaaa\"", "\"${BELOW}${BELOW}\""), ("[1]", "[BELOW, BELOW]"), ("[1]", "[BELOW]")]
    {
        let mut text = format!("variable \"v0\" {{ default = {first} }}\ntarget \"a\" {{}}\n");
        for n in 1..=110 {
            let default = next.replace("BELOW", &format!("v{}", n - 1));
            text += &format!("variable \"v{n}\" {{ default = {default} }}\n");
        }
        let errors = drafts(&text, &[], &["a"]).expect_err("too large");
        assert!(errors.contains("the value is too large"), "{errors}");
    }
}

#[test]
fn empty_texts_and_repeats_are_left_out() {
    let text = r#"
target "a" {
  tags = ["r/a:1", "", "r/a:1", "r/a:2"]
  platforms = ["", "linux/amd64", "linux/amd64"]
  output = ["type=image", "", { type = "image" }]
  cache-from = [""]
  contexts = { x = "", y = "docker-image://b" }
}"#;
    let found = drafts(text, &[], &["a"]).expect("valid");
    assert_eq!(tags(&found), ["r/a:1", "r/a:2"]);
    assert_eq!((found[0].platforms.len(), found[0].engine_options.len()), (1, 0));
    assert_eq!(found[0].outputs, Some(vec![(5, "type=image".to_owned())]));
    assert_eq!(found[0].contexts.keys().collect::<Vec<_>>(), ["y"]);
}

#[test]
fn a_key_in_another_spelling_is_the_same_key() {
    let text = "target \"a\" { no-cache = true }\ntarget \"b\" {\n inherits = [\"a\"]\n no_cache = false\n}";
    assert!(!drafts(text, &[], &["b"]).expect("valid")[0].no_cache);
}

#[test]
fn json_is_the_same() {
    let text = r#"
{
  "variable": { "TAG": { "default": "1" } },
  "group": { "default": { "targets": ["a"] } },
  "target": {
    "base": { "args": { "X": "1", "NONE": null } },
    "a": {
      "inherits": ["base"],
      "tags": ["r/a:${TAG}"],
      "no-cache": true
    }
  }
}"#;
    let found = drafts(text, &[("TAG", "9")], &[]).expect("valid");
    assert_eq!((tags(&found), found[0].line, found[0].no_cache), (vec!["r/a:9"], 7, true));
    assert_eq!(found[0].tags[0].0, 9);
    assert_eq!(found[0].build_args.len(), 1);
    let errors = drafts("{\n  \"target\": {\n \"a\": {\"matrix\": {} , \"tgas\": [] } }\n}", &[], &["a"]);
    let errors = errors.expect_err("wrong");
    assert!(errors.contains("f:3: `matrix` is not supported"), "{errors}");
    assert!(errors.contains("f:3: unknown key `tgas` of a target; did you mean `tags`?"), "{errors}");
    assert!(drafts("{\n \"a\": ", &[], &[]).expect_err("cut").starts_with("f:2: this is not JSON"));
}

#[test]
fn what_is_not_supported_is_named_with_its_line() {
    for (text, words) in [
        ("target \"a\" {\n  matrix = { x = [1] }\n}", "f:2: `matrix` is not supported"),
        ("function \"f\" {\n params = []\n result = 1\n}\ntarget \"a\" {}", "f:1: the function `f`"),
        ("target \"a\" {\n  tgas = []\n}", "f:2: unknown key `tgas` of a target; did you mean `tags`?"),
        ("targte \"a\" {}", "f:1: unknown block `targte`; did you mean `target`?"),
        ("target \"a\" {\n args = {\n  X = Y\n }\n}", "f:2: `args`: there is no variable `Y`"),
        (
            "variable \"Y\" { default = Z }\ntarget \"a\" {}",
            "f:1: the variable `Y`: there is no variable `Z`",
        ),
        ("variable \"Y\" { defualt = 1 }\ntarget \"a\" {}", "did you mean `default`?"),
        (
            "target \"a\" {\n tags = [uper(\"x\")]\n}",
            "f:2: `tags`: the function `uper` is not supported; did you mean `upper`?",
        ),
        ("target \"a\" {\n inherits = [\"b\"]\n}", "f:2: `a` inherits from `b`, which is no target"),
        ("target \"a\" { inherits = [\"a\"] }", "inherits from itself"),
        ("target \"a\" {}\ntarget \"a\" {}", "f:2: the target `a` is in line 1 already"),
        ("target \"a\" {\n tags = 3\n}", "f:2: `tags` must be a list of texts"),
        ("target \"a\" {\n tags = [\n", "f:"),
        ("target \"a\" {\n x {}\n}", "f:2: unknown block `x` of `a`"),
        ("target \"a\" \"b\" {}", "f:1: a target has one name: there is a second, `b`"),
        (
            "target \"a\" {\n no_cache = true\n no-cache = false\n}",
            "f:3: `no_cache` and `no-cache` say the same",
        ),
        ("{\"target\": {\"a\": {\n\"pull\": true,\n\"pull\": false}}}", "f:"),
        (
            "variable \"V\" {\n default = 1\n validation {\n condition = V > 1\n error_message = \"too small\"\n }\n}\ntarget \"a\" {}",
            "f:3: the variable `V`: too small",
        ),
    ] {
        let errors = drafts(text, &[], &["a"]).expect_err(text);
        assert!(errors.contains(words), "{words} is not in {errors}");
    }
    let errors = drafts("target \"a\" {}\ntarget \"b\" {}", &[], &[]).expect_err("no default");
    assert!(errors.contains("no target or group `default`: name what to build of a, b"), "{errors}");
    let errors = drafts("target \"app\" {}", &[], &["apq"]).expect_err("unknown");
    assert!(errors.contains("did you mean `app`?"), "{errors}");
    let errors = drafts("group \"a\" { targets = [\"b\"] }\ngroup \"b\" { targets = [\"a\"] }", &[], &["a"]);
    assert!(errors.expect_err("a cycle").contains("is in itself"));
}

#[test]
fn functions_are_those_of_bake() {
    for (expression, value) in [
        ("add(1, 2)", "3"),
        ("divided(1)", ""),
        ("replace(\"a.b\", \".\", \"-\")", "a-b"),
        ("join(\",\", sort(distinct(concat([\"b\"], [\"a\", \"b\"]))))", "a,b"),
        ("split(\"/\", \"a/b\")[1]", "b"),
        ("coalesce(\"\", null, \"x\")", "x"),
        ("substr(\"hello\", 1, 3)", "ell"),
        ("sanitize(\"a/b.c\")", "a_b_c"),
        ("lookup({a = \"1\"}, \"b\", \"2\")", "2"),
        ("length([1, 2])", "2"),
        ("trimprefix(trimspace(\" v1 \"), \"v\")", "1"),
        ("equal(\"a\", \"a\") ? \"yes\" : \"no\"", "yes"),
        ("merge({a = \"1\"}, {a = \"2\"}).a", "2"),
    ] {
        let text = format!("target \"a\" {{ args = {{ X = {expression} }} }}");
        match drafts(&text, &[], &["a"]) {
            Ok(found) => assert_eq!(found[0].build_args["X"], value, "{expression}"),
            Err(errors) => assert!(value.is_empty(), "{expression}: {errors}"),
        }
    }
}
