//! A small platform with a recipe of its own: its Dockerfiles run nothing but `rm`, so every backend can build them.

use libtest_mimic::Failed;

use crate::rig::Case;

/// The file of the recipe.
pub(crate) const RECIPE: &str = "acme.toml";

/// A label says what was built; the lock files and the sources are copied.
const TEMPLATE: &str = r#"
FROM {{ base_image }}
USER root
LABEL acme.mode={{ mode }}
{% if build_from_scratch or build_from_versioned -%}
COPY --link lock/ /srv/lock/
{% endif -%}
RUN ["rm", "-rf", "--", "/srv/code"]
COPY --link --chown=1000:1000 code/ /srv/code/
"#;

/// Writes the recipe, the sources `app` and the lock file beside them. The base image is that of the recipe.
pub(crate) fn write(case: &Case, base_image: &str) -> Result<(), Failed> {
    let recipe = format!(
        r#"
template-text = '''{TEMPLATE}'''
repository = "acme.invalid/runtime"
base-image = "{base_image}"
source = "app"
version = "1.2.3"
modes = ["scratch", "versioned", "lock"]
lock-files = [{{ path = "deps.lock", destination = "lock/deps.lock" }}]

[[sources]]
path = "."
destination = "code"
ignore = ["**/*.pyc"]

[tags]
lock = "acme_v{{{{ version }}}}_{{{{ lock_hash }}}}{{{{ extension }}}}"
source = "{{{{ lock }}}}_{{{{ source_hash }}}}"
versioned = "acme_v{{{{ version }}}}_{{{{ base_slug }}}}"
"#
    );
    case.write(RECIPE, recipe)?;
    case.write("deps.lock", "first\n")?;
    case.write("app/main.py", "print(1)\n")?;
    case.write("app/old/gone.py", "print('old')\n")
}

/// Changes the sources: a file and its directory vanish, one is new, one is another.
pub(crate) fn change_sources(case: &Case) -> Result<(), Failed> {
    std::fs::remove_dir_all(case.path("app/old"))?;
    case.write("app/main.py", "print(2)\n")?;
    case.write("app/new/here.py", "print('new')\n")
}

/// Changes the dependencies.
pub(crate) fn change_lock(case: &Case) -> Result<(), Failed> {
    case.write("deps.lock", "second\n")
}
