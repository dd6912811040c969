//! What is done at the same time: layers on their way to a registry while the image is still being
//! made, stages, bases.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use windlass_core::digest::Digest;
use windlass_core::output::Output;

use super::*;

/// A registry in memory.
#[derive(Default)]
struct Registry {
    blobs: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
    /// Method and what it was about, in the order in which the requests came.
    seen: Vec<String>,
    received_bytes: usize,
    refuses_pieces: bool,
    /// Which repository has which blob; as long as it is `None`, all have all.
    held: Option<BTreeSet<(String, String)>>,
    refuses_mounts: bool,
    /// Manifests are given out only to so many at the same time.
    together: Option<Arc<tokio::sync::Barrier>>,
}

type Shared = Arc<Mutex<Registry>>;

async fn start() -> (String, Shared) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let registry = Shared::default();
    let shared = registry.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, shared.clone()));
        }
    });
    (host, registry)
}

async fn serve(stream: TcpStream, registry: Shared) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await.unwrap();
            if header.trim().is_empty() {
                break;
            }
            if let Some(text) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let together = registry.lock().unwrap().together.clone();
        if let Some(together) = together.filter(|_| method == "GET" && path.contains("/manifests/")) {
            together.wait().await;
        }
        let (head, content) = answer(&mut registry.lock().unwrap(), &method, &path, body);
        let shown = if method == "HEAD" { Vec::new() } else { content.clone() };
        let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", content.len());
        if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(&shown).await.is_err() {
            return;
        }
    }
}

/// The status line with headers, and the body.
fn answer(registry: &mut Registry, method: &str, path: &str, body: Vec<u8>) -> (String, Vec<u8>) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let last = path.rsplit('/').next().unwrap().to_owned();
    let kind = if path.contains("/uploads/") {
        "upload"
    } else if path.contains("/manifests/") {
        "manifest"
    } else {
        "blob"
    };
    let repository = path.trim_start_matches("/v2/").split('/').next().unwrap().to_owned();
    let query = query.replace("%3A", ":");
    let word = |name: &str| query.split('&').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
    let mount = word("mount=").zip(word("from="));
    registry.seen.push(format!("{method} {}", if mount.is_some() { "mount" } else { kind }));
    let has = |registry: &Registry, repository: &str, digest: &str| {
        let held = registry.held.as_ref();
        held.is_none_or(|held| held.contains(&(repository.to_owned(), digest.to_owned())))
    };
    let hold = |registry: &mut Registry, digest: &str| {
        if let Some(held) = &mut registry.held {
            held.insert((repository.clone(), digest.to_owned()));
        }
    };
    registry.received_bytes += body.len();
    let empty = |head: String| (head, Vec::new());
    match (method, kind) {
        ("GET" | "HEAD", "manifest") => match registry.manifests.get(&last) {
            Some(content) => (
                format!(
                    "200 OK\r\nDocker-Content-Digest: {}\r\nContent-Type: application/vnd.oci.image.manifest.v1+json",
                    Digest::of(content)
                ),
                content.clone(),
            ),
            None => empty("404 Not Found".to_owned()),
        },
        ("PUT", "manifest") => {
            let digest = Digest::of(&body).to_string();
            registry.manifests.insert(last, body.clone());
            registry.manifests.insert(digest.clone(), body);
            empty(format!("201 Created\r\nDocker-Content-Digest: {digest}"))
        }
        ("GET" | "HEAD", "blob") => {
            match registry.blobs.get(&last).filter(|_| has(registry, &repository, &last)) {
                Some(content) => ("200 OK".to_owned(), content.clone()),
                None if path.len() < 6 => empty("200 OK".to_owned()),
                None => empty("404 Not Found".to_owned()),
            }
        }
        ("POST", "upload")
            if !registry.refuses_mounts
                && registry.held.is_some()
                && mount.as_ref().is_some_and(|(digest, from)| has(registry, from, digest)) =>
        {
            hold(registry, &mount.expect("it has").0);
            empty("201 Created".to_owned())
        }
        ("POST", "upload") => {
            let id = format!("u{}", registry.seen.len());
            registry.uploads.insert(id.clone(), Vec::new());
            empty(format!("202 Accepted\r\nLocation: /v2/{repository}/blobs/uploads/{id}"))
        }
        // One that was given up: the request was under way.
        ("PATCH" | "PUT", "upload") if !registry.uploads.contains_key(&last) => {
            empty("404 Not Found".to_owned())
        }
        ("PATCH", "upload") if registry.refuses_pieces => empty("400 Bad Request".to_owned()),
        ("PATCH", "upload") => {
            let upload = registry.uploads.get_mut(&last).expect("an upload");
            upload.extend(body);
            let end = upload.len() - 1;
            empty(format!(
                "202 Accepted\r\nLocation: /v2/{repository}/blobs/uploads/{last}\r\nRange: 0-{end}"
            ))
        }
        ("PUT", "upload") => {
            let mut content = registry.uploads.remove(&last).expect("an upload");
            content.extend(body);
            let digest = Digest::of(&content).to_string();
            assert!(query.contains(&digest), "{query} is not {digest}");
            hold(registry, &digest);
            registry.blobs.insert(digest.clone(), content);
            empty(format!("201 Created\r\nDocker-Content-Digest: {digest}"))
        }
        ("DELETE", "upload") => {
            registry.uploads.remove(&last);
            empty("204 No Content".to_owned())
        }
        _ => empty("405 Method Not Allowed".to_owned()),
    }
}

fn look(registry: &Shared) -> MutexGuard<'_, Registry> {
    registry.lock().unwrap()
}

/// Bytes that do not compress, and are others for another `seed`.
fn noise(mut seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes
}

impl Bench {
    fn pushed(&self, host: &str, dockerfile: &str) -> BuildRequest {
        let mut request = self.request(dockerfile);
        request.tags = vec![format!("{host}/a:1").parse().unwrap()];
        request.outputs = vec![Output::push()];
        request
    }
}

const LARGE: usize = 17 << 20;
const DOCKERFILE: &str = "FROM scratch\nCOPY large /\nCOPY small /\n";

#[tokio::test(flavor = "multi_thread")]
async fn each_layer_is_sent_once_and_before_the_image() {
    let (host, registry) = start().await;
    let bench = Bench::new();
    bench.write("large", noise(1, LARGE)).write("small", "1");
    bench.run(&bench.pushed(&host, DOCKERFILE)).await.unwrap();
    let registry = look(&registry);
    let sizes: usize = registry.blobs.values().map(Vec::len).sum();
    let manifest = registry.manifests["1"].len();
    assert_eq!((registry.blobs.len(), registry.received_bytes), (3, sizes + manifest));
    assert!(registry.uploads.is_empty());
    // The large one went in pieces, while it was made.
    assert!(registry.seen.iter().filter(|request| *request == "PATCH upload").count() >= 2);
    assert_eq!(registry.seen.last().map(String::as_str), Some("PUT manifest"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_on_the_way_is_sent_with_the_image() {
    let (host, registry) = start().await;
    look(&registry).refuses_pieces = true;
    let bench = Bench::new();
    bench.write("large", noise(2, LARGE)).write("small", "1");
    let built = bench.run(&bench.pushed(&host, DOCKERFILE)).await.unwrap();
    let registry = look(&registry);
    assert_eq!(Some(Digest::of(&registry.manifests["1"])), built.digest);
    assert_eq!(registry.blobs.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_gives_its_uploads_up() {
    let (host, registry) = start().await;
    let bench = Bench::new();
    bench.write("large", noise(3, LARGE));
    let error = bench.run(&bench.pushed(&host, DOCKERFILE)).await.expect_err("`small` is missing");
    assert_eq!(error.kind(), ErrorKind::InvalidDockerfile);
    let registry = look(&registry);
    assert!(registry.uploads.is_empty() && registry.manifests.is_empty(), "{:?}", registry.seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_neither_made_nor_sent() {
    let (host, registry) = start().await;
    let bench = Bench::new();
    bench.write("large", noise(4, LARGE)).write("small", "1");
    let first = bench.run(&bench.pushed(&host, DOCKERFILE)).await.unwrap();
    let (received, requests) = {
        let registry = look(&registry);
        (registry.received_bytes, registry.seen.len())
    };
    let second = bench.run(&bench.pushed(&host, DOCKERFILE)).await.unwrap();
    assert_eq!(first.digest, second.digest);
    {
        let registry = look(&registry);
        // The question whether it is there, and the tag.
        let asked = &registry.seen[requests..];
        assert!(asked.len() <= 3 && !asked.iter().any(|request| request.contains("upload")), "{asked:?}");
        assert_eq!(registry.received_bytes, received + registry.manifests["1"].len());
    }

    // Nor if only the registry has the layers still.
    let store = ImageStore::open(bench.oci.store_dir()).unwrap();
    for digest in look(&registry).blobs.keys() {
        let _ = std::fs::remove_file(store.path(&digest.parse().unwrap()));
    }
    let third = bench.run(&bench.pushed(&host, DOCKERFILE)).await.unwrap();
    assert_eq!(third.digest, first.digest);
    let large = third
        .digest
        .map(|_| look(&registry).blobs.iter().find(|(_, blob)| blob.len() > LARGE).unwrap().0.clone());
    assert!(!store.has(&large.unwrap().parse().unwrap()));

    // What changes is sent, and nothing else.
    bench.write("small", "2");
    let before = look(&registry).received_bytes;
    bench.run(&bench.pushed(&host, DOCKERFILE)).await.unwrap();
    assert!(look(&registry).received_bytes - before < 64 << 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_depend_on_each_other_is_done_at_the_same_time() {
    let (host, registry) = start().await;
    let bench = Bench::new();
    bench.write("small", "1");
    bench.run(&bench.pushed(&host, "FROM scratch\nCOPY small /\n")).await.unwrap();
    look(&registry).together = Some(Arc::new(tokio::sync::Barrier::new(2)));
    for dockerfile in [
        // Two stages.
        "FROM {}/one:1 AS one\nCOPY small /a\nFROM {}/two:1\nCOPY --from=one /a /b\n",
        // A base, and what is copied from.
        "FROM {}/one:1\nCOPY small /a\nCOPY --from={}/two:1 /small /b\n",
    ] {
        let bench = Bench::new();
        bench.write("small", "1");
        let request = bench.request(&dockerfile.replace("{}", &host));
        // One after the other would wait for ever.
        let built = tokio::time::timeout(std::time::Duration::from_secs(60), bench.run(&request)).await;
        built.expect("at the same time").unwrap();
    }
}

/// Images on several bases that have one linked layer in common, each in the repository of its base.
fn on_many_bases(bench: &Bench, host: &str, shared: &BuildRequest, bases: usize) -> Vec<BuildRequest> {
    let request = |(base, tag): (usize, usize)| {
        let text = format!(
            "FROM {host}/a:base\nUSER root\nRUN [\"rm\",\"-rf\",\"--\",\"/srv\"]\nENV N={base}-{tag}\nCOPY --link large /srv/\n"
        );
        let mut request = bench.request(&text);
        request.context = shared.context.clone();
        request.tags = vec![format!("{host}/r{base}:{tag}").parse().unwrap()];
        request.outputs = vec![Output::push()];
        request
    };
    (0..bases).flat_map(|base| (0..3).map(move |tag| (base, tag))).map(request).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_builds_at_once_make_and_send_their_common_layer_once() {
    for (seed, size, refuses_mounts) in [(5, LARGE, false), (6, 1 << 20, false), (7, 1 << 20, true)] {
        let (host, registry) = start().await;
        {
            let mut registry = look(&registry);
            (registry.held, registry.refuses_mounts) = (Some(BTreeSet::new()), refuses_mounts);
        }
        let bench = Bench::new();
        bench.write("large", noise(seed, size)).write("base", noise(8, 1 << 20));
        let mut base = bench.pushed(&host, "FROM scratch\nCOPY base /\n");
        base.tags = vec![format!("{host}/a:base").parse().unwrap()];
        bench.run(&base).await.unwrap();
        // Another machine.
        std::fs::remove_dir_all(bench.oci.store_dir()).unwrap();
        let before = look(&registry).received_bytes;
        look(&registry).seen.clear();
        let requests = on_many_bases(&bench, &host, &base, 4);
        let built = futures_util::future::join_all(requests.iter().map(|request| bench.run(request))).await;
        for built in built {
            built.unwrap();
        }
        let registry = look(&registry);
        let sent = registry.received_bytes - before;
        let count = |what: &str| registry.seen.iter().filter(|request| *request == what).count();
        // The images, and their configs.
        assert_eq!(registry.manifests.keys().filter(|name| name.starts_with("sha256:")).count(), 13);
        if refuses_mounts {
            assert!(sent > 4 * size, "sent to each repository");
            continue;
        }
        assert!(sent < size + size / 8 + 12 * (20 << 10), "{sent} bytes for {size}");
        assert_eq!(count("GET blob"), 1, "the config of the base, and never its layer");
        // The layer of the base, and ours to all repositories but the first; two builds for one repository may
        // both ask.
        assert!(count("POST mount") >= 4 + 3, "{:?}", registry.seen);
    }
}
