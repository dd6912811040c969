//! The vectors of the original, and trees that nobody thought of.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;
use crate::recipe::short_hash;

fn hash_of(directory: &Path) -> Result<String> {
    let rules = HashRules::default();
    tree_hash(directory, &rules, &StatCache::disabled(), &Job::silent())
}

struct Tree(tempfile::TempDir);

impl Tree {
    /// The tree T2 of the vectors.
    fn two() -> Self {
        let tree = Self::one();
        tree.write(".env", "X=1\n");
        tree
    }

    fn one() -> Self {
        let tree = Self(tempfile::tempdir().expect("a directory"));
        tree.write("__init__.py", "");
        tree.write("a.txt", "hello\n");
        tree.write("sub/b.py", "print(1)\n");
        tree.write("sub/deep/c.md", "# c\n");
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn hash(&self) -> String {
        hash_of(self.0.path()).expect("hashed")
    }
}

const T2: &str = "1de3dba58380b8e6e44fb48dfd3fd22b";

#[test]
fn trees_hash_as_elsewhere() {
    let tree = Tree::one();
    assert_eq!(tree.hash(), "2e783f818760b1d9697f33c679828774");
    assert_eq!(short_hash(&tree.hash()).as_deref(), Some("glnsdte2lm82vv7q"));
    let part = |name: &str| hash_of(&tree.path(name)).expect("hashed");
    assert_eq!(part("sub/deep"), "4ffda89ee40d5a4f28789d24ca1bd72c");
    assert_eq!(part("sub"), "e8f79efd1e68b53a8712518f5e2ff68d");
    assert_eq!(Tree::two().hash(), T2);
    let empty = Tree(tempfile::tempdir().expect("a directory"));
    empty.write("__init__.py", "");
    assert_eq!(empty.hash(), "903cc14d9781d8143706a49c63a0f581");
}

#[test]
fn what_does_not_count_changes_nothing() {
    use std::os::unix::fs::PermissionsExt;

    let tree = Tree::two();
    for name in [
        ".git/config",
        "sub/.hid/x",
        "__pycache__/a.cpython-312.pyc",
        "sub/__pycache__/keep.txt",
        "sub/m.pyc",
        "d.pyc/in.txt",
    ] {
        tree.write(name, "x");
    }
    fs::create_dir(tree.path("empty")).expect("made");
    symlink("nowhere", tree.path("dangling")).expect("linked");
    fs::set_permissions(tree.path("a.txt"), fs::Permissions::from_mode(0o755)).expect("executable");
    assert_eq!(tree.hash(), T2);
}

#[test]
fn links_count_as_what_they_lead_to() {
    let tree = Tree::two();
    symlink("a.txt", tree.path("link.txt")).expect("linked");
    assert_eq!(tree.hash(), "01e2f96e8b2022d67d2392427e009de2");
    let tree = Tree::two();
    tree.write("link.txt", "hello\n");
    assert_eq!(tree.hash(), "01e2f96e8b2022d67d2392427e009de2");
    let tree = Tree::two();
    symlink("sub", tree.path("linkd")).expect("linked");
    assert_eq!(tree.hash(), "41a296996df131906a43509505b23456");
    let tree = Tree::two();
    tree.write("ünï.txt", "u");
    tree.write("Z.txt", "z");
    assert_eq!(tree.hash(), "286626bfe0444b82284dd82e5336d565");
}

#[test]
fn circles_and_nothing_are_refused_by_name() {
    let refused = |tree: &Tree| hash_of(tree.0.path()).expect_err("refused").to_string();
    let tree = Tree::two();
    symlink("..", tree.path("sub/up")).expect("linked");
    assert!(refused(&tree).contains("sub/up"));
    let tree = Tree::two();
    symlink("self", tree.path("self")).expect("linked");
    assert!(refused(&tree).contains("`self`"));
    let tree = Tree(tempfile::tempdir().expect("a directory"));
    tree.write(".x/f", "x");
    assert!(refused(&tree).contains("nothing to hash"));
}

/// The same hash, as simply as can be.
fn simply(directory: &Path, inside: &str) -> Option<String> {
    let mut descriptors = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
        let inside = format!("{inside}/{name}");
        if path.is_dir() {
            descriptors.extend(simply(&path, &inside).map(|hash| format!("dirhash:{hash}\0name:{name}")));
        } else if path.is_file() && counts(&inside) {
            let content = fs::read(&path).expect("read");
            let hash = Md5::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            descriptors.push(format!("data:{hash}\0name:{name}"));
        }
    }
    descriptors.sort();
    let text = descriptors.join("\0\0");
    let hash = Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    (!descriptors.is_empty()).then_some(hash)
}

fn counts(file: &str) -> bool {
    let parts: Vec<&str> = file.split('/').skip(1).collect();
    let (_, above) = parts.split_last().expect("a name");
    !above.iter().any(|part| part.starts_with('.') || *part == "__pycache__")
        && !parts.iter().any(|part| part.ends_with(".pyc"))
}

/// Numbers that look random, the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

const NAMES: &[&str] = &[
    "a",
    "a.b",
    "a0",
    "a b",
    "A",
    ".a",
    ".hid",
    "b.pyc",
    "__pycache__",
    "ünï",
    "é",
    "\u{e000}",
    "😀",
    "-x",
    "z",
];

fn fill(directory: &Path, depth: usize, numbers: &mut Numbers) {
    for _ in 0..numbers.below(7) {
        let path = directory.join(NAMES[numbers.below(NAMES.len())]);
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match numbers.below(8) {
            0..=2 if depth > 0 => {
                fs::create_dir(&path).expect("made");
                fill(&path, depth - 1, numbers);
            }
            // To what stands beside it and is there already: no circles.
            3 => match fs::read_dir(directory).expect("a directory").next() {
                Some(other) => symlink(other.expect("an entry").file_name(), &path).expect("linked"),
                None => symlink("nowhere", &path).expect("linked"),
            },
            _ => fs::write(&path, "x".repeat(numbers.below(3))).expect("written"),
        }
    }
}

#[test]
fn random_trees_hash_as_they_do_simply() {
    let mut hashed = 0;
    for seed in 0..300 {
        let tree = tempfile::tempdir().expect("a directory");
        fill(tree.path(), 4, &mut Numbers(seed));
        let expected = simply(tree.path(), "");
        hashed += usize::from(expected.is_some());
        assert_eq!(hash_of(tree.path()).ok(), expected, "seed {seed}");
    }
    assert!(hashed > 150, "{hashed} of the trees had something to hash");
}

#[test]
fn what_did_not_change_is_not_read_again_and_what_changed_is() {
    let (tree, home) = (Tree::two(), tempfile::tempdir().expect("a directory"));
    let (rules, cache, job) = (HashRules::default(), StatCache::open(home.path()), Job::silent());
    let later = SystemTime::now() + std::time::Duration::from_secs(60);
    let hash = || hash_at(later, tree.0.path(), &rules, &cache, &job).expect("hashed");
    let known = || {
        let context = super::tree(tree.0.path(), &rules).expect("a context");
        let entries = context.list(&job).expect("listed");
        let known = cache.load::<MD5_BYTES>(&context).known(&entries);
        let names = entries.iter().zip(known).filter(|(_, known)| known.is_some());
        names.map(|(entry, _)| entry.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(known(), [""; 0]);
    assert_eq!(hash(), T2);
    assert_eq!(known(), [".env", "__init__.py", "a.txt", "sub/b.py", "sub/deep/c.md"]);
    assert_eq!(hash(), T2);
    tree.write("sub/b.py", "print(2)\n");
    assert_eq!(known().len(), 4);
    let (changed, cold) = (hash(), tree.hash());
    assert_eq!(changed, cold);
    assert_ne!(changed, T2);
}

#[test]
fn rules_are_data() {
    let tree = Tree::two();
    tree.write("skip/x.log", "x");
    tree.write("keep.pyc", "x");
    let hash = |rules: &str| {
        let rules = HashRules::parse(rules, Path::new("recipe.toml")).expect("valid");
        tree_hash(tree.0.path(), &rules, &StatCache::disabled(), &Job::silent()).expect("hashed")
    };
    assert_eq!(hash(&format!("{}\nskip/", HashRules::DEFAULT)), T2);
    assert_eq!(hash("*.log\n*.pyc"), T2);
    assert_ne!(hash("skip/"), T2);
    let error = HashRules::parse("[", Path::new("recipe.toml")).expect_err("malformed");
    assert!(error.message().contains("recipe.toml"), "{error}");
}
