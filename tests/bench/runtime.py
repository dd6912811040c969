"""Times runtime images: the hash of a source tree, the question what exists, builds upon an image in the registry, and
hundreds of images in one command.

The source tree is `w1` without its links: one of them leads to `..`, which dirhash refuses. The registry and the engine
are real; where the way to the registry counts, or what goes over it, a proxy stands before it.
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time

import images
import workloads

BASE, VERSION = "base/debian:bookworm", "1.0.0"
# `dirhash` takes patterns one by one.
RULES = ("-i", ".*/", "-i", "__pycache__/", "-i", "*.pyc")
BASES, TAGS = 30, 10
ROUND_TRIP_SECONDS = 0.1


class Proxy:
    """Passes connections on to a registry: counts what the client sends, and holds each piece of it up."""

    def __init__(self, target, seconds=0.0):
        self.target, self.seconds, self.sent, self.pieces = target.split(":"), seconds, 0, 0
        self.lock, self.listener = threading.Lock(), socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        # Opening a connection is a round trip too.
        time.sleep(self.seconds)
        server = socket.create_connection((self.target[0], int(self.target[1])))
        threading.Thread(target=self.copy, args=(server, client, False), daemon=True).start()
        self.copy(client, server, True)

    def copy(self, source, sink, counts):
        try:
            while piece := source.recv(1 << 18):
                if counts:
                    time.sleep(self.seconds)
                    with self.lock:
                        self.sent, self.pieces = self.sent + len(piece), self.pieces + 1
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def stop(self):
        self.listener.close()


class Sources:
    """A package, called as the recipe has it, with its lock files, and what windlass does with it."""

    def __init__(self, bench, registry="127.0.0.1:5000", excluded=True):
        self.bench, self.registry, self.root = bench, registry, f"{bench.scratch}/runtime"
        self.package = f"{self.root}/openhands"
        shutil.rmtree(self.root, ignore_errors=True)
        os.makedirs(self.root)
        images.quietly("cp", "-a", bench.input("w1"), self.package)
        images.quietly("find", self.package, "-type", "l", "-delete")
        if not excluded:
            # What the ignore file of w1 names; a recipe has rules of its own.
            named = ["-name", "node_modules", "-o", "-name", "__pycache__", "-o", "-name", "*.log", "!", "-name", "keep.log"]
            images.quietly("find", self.package, "(", *named, ")", "-prune", "-exec", "rm", "-rf", "{}", "+")
        for name, content in (("pyproject.toml", f'[tool.poetry]\nname = "bench"\nversion = "{VERSION}"\n'), ("poetry.lock", "# lock\n")):
            workloads.put(f"{self.root}/{name}", content.encode())
        self.change()

    def change(self):
        """Changes one file to what nobody has seen."""
        workloads.put(f"{self.package}/changing.txt", os.urandom(2_000).hex().encode())

    def runtime(self, verb, *arguments, registry=None, backend="oci"):
        registry = registry or self.registry
        meant = ["--source", self.package, "--base-image", f"{registry}/{BASE}", "--repository", f"{registry}/bench/runtime"]
        return [self.bench.windlass, "runtime", verb, *meant, "--backend", backend, *arguments]

    def tags(self, registry=None):
        command = self.runtime("tags", "--format", "json", registry=registry)
        output = subprocess.run(command, env=self.bench.environment, check=True, stdout=subprocess.PIPE).stdout
        return json.loads(output)["tags"]

    def push(self, reference, dockerfile):
        """Pushes an image that needs no files."""
        directory = f"{self.root}/without"
        os.makedirs(directory, exist_ok=True)
        workloads.put(f"{directory}/Dockerfile", dockerfile.encode())
        self.bench.once([self.bench.windlass, "build", "--quiet", "--backend", "oci", "--tag", reference, "--push", directory])


def bench_tree_hash(bench):
    dirhash = bench.options.dirhash or "dirhash"
    if not bench.installed(dirhash):
        return
    sources = Sources(bench)
    # Files that were just written are not remembered: let them rest.
    time.sleep(5)
    theirs = [dirhash, sources.package, "-a", "md5", *RULES]
    ours = sources.runtime("tags", "--quiet")
    cold = ["sh", "-c", f"rm -rf {shlex.quote(bench.scratch)}/cache && exec {shlex.join(ours)}"]
    bench.compare("source hash of w1, cold / dirhash, 1 process", cold, theirs, 2.5)
    bench.once(ours)
    bench.compare("source hash of w1, unchanged / dirhash", ours, theirs, 10)


def bench_plan(bench):
    """All three tags are there, in a registry that is far away."""
    registry = os.environ[images.REGISTRY]
    proxy = Proxy(registry, ROUND_TRIP_SECONDS)
    try:
        sources = Sources(bench, proxy.address)
        for tag in ("source", "lock", "versioned"):
            # Behind the proxy it is the same registry.
            sources.push(sources.tags()[tag].replace(proxy.address, registry), f"FROM {registry}/{BASE}\n")
        time.sleep(5)
        plan = sources.runtime("plan", "--push", "--quiet")
        bench.once(plan)
        before, trips = proxy.pieces, []
        for _ in range(bench.options.runs):
            trips.append(bench.once(plan)[0] / ROUND_TRIP_SECONDS)
        print(f"requests of a plan: {(proxy.pieces - before) / bench.options.runs:.0f}", flush=True)
        bench.limit("runtime plan, all tags there, longest", max(trips), 3, "round trips")
    finally:
        proxy.stop()


def bench_lock(bench):
    """Same dependencies, new sources: one layer upon an image that is only in the registry."""
    sources = Sources(bench, os.environ[images.REGISTRY], excluded=False)
    tags = sources.tags()
    sources.push(tags["lock"], f"FROM {sources.registry}/{BASE}\n")
    folder = f"{bench.scratch}/folder"

    def prepare(name):
        def cold():
            shutil.rmtree(f"{bench.scratch}/cache", ignore_errors=True)
            images.quietly("docker", "system", "prune", "--all", "--force")
            images.quietly("docker", "builder", "prune", "--all", "--force")
            sources.change()
            if name != "windlass":
                # What the others build is what windlass would.
                shutil.rmtree(folder, ignore_errors=True)
                bench.once(sources.runtime("build", "--dry-run", "--build-folder", folder, "--quiet", "--push"))
        return cold

    to = f"{sources.registry}/bench/by-%s:latest"
    docker = images.script(["docker", "build", "--quiet", "--tag", to % "docker", folder], ["docker", "push", "--quiet", to % "docker"])
    buildx = ["docker", "buildx", "build", "--quiet", "--tag", to % "buildx", "--push", folder]
    found = [("windlass", sources.runtime("build", "--push", "--quiet"), None), ("docker build, push", docker, 15), ("buildx --push", buildx, None)]
    if bench.installed("crane"):
        layer = shlex.quote(f"{bench.scratch}/layer.tar")
        pack = f"tar --transform 's,^[.],openhands/code,' -C {shlex.quote(folder)}/code -cf {layer} ."
        append = f"crane append --insecure --base {tags['lock']} --new_tag {to % 'crane'} --new_layer {layer}"
        found.append(("tar, crane append", ["sh", "-ec", f"{pack}\n{append}"], None))
    images.race(bench, "runtime, lock, pushed", [images.Side(name, command, prepare(name), target) for name, command, target in found])


def write_list(path, context, registry, repository, count, label):
    """Images that share their sources; each base has a few, and none is the same as another."""
    with open(path, "w", encoding="utf-8") as file:
        for index in range(count):
            base, number = f"{registry}/bench/base:b{index % BASES}", f"{label}-{index}"
            entry = {"context": context, "base-image": base, "tags": [f"{registry}/bench/{repository}:t{index}"], "labels": {"number": number}}
            file.write(json.dumps(entry) + "\n")


def bench_batch(bench):
    """30 bases x 10 tags upon one source tree, against buildx that makes some of them one by one."""
    registry = os.environ[images.REGISTRY]
    sources = Sources(bench, registry)
    for index in range(BASES):
        sources.push(f"{registry}/bench/base:b{index}", f'FROM {registry}/{BASE}\nENV BASE={index}\nWORKDIR /base{index}\n')
    workloads.put(f"{sources.package}/Dockerfile", b"ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY --link . /app/\n")
    entries, count = f"{sources.root}/images.jsonl", BASES * TAGS

    def batch(address, repository):
        shutil.rmtree(f"{bench.scratch}/cache", ignore_errors=True)
        shutil.rmtree(f"{bench.scratch}/report", ignore_errors=True)
        sources.change()
        write_list(entries, sources.package, address, repository, count, repository)
        return bench.once([bench.windlass, "batch", entries, "--push", "--backend", "oci", "--requests-per-minute", "0", "--report", f"{bench.scratch}/report"])[0]

    def one_by_one(repository):
        images.quietly("docker", "system", "prune", "--all", "--force")
        images.quietly("docker", "builder", "prune", "--all", "--force")
        sources.change()
        started = time.monotonic()
        for index in range(bench.options.one_by_one):
            arguments = ["--build-arg", f"BASE_IMAGE={registry}/bench/base:b{index % BASES}", "--label", f"number={index}"]
            bench.once(["docker", "buildx", "build", "--quiet", *arguments, "--tag", f"{registry}/bench/{repository}:t{index}", "--push", sources.package])
        return time.monotonic() - started

    pairs = []
    for index in range(bench.options.runs):
        ours = batch(registry, f"ours{index}") / count
        pairs.append((ours, one_by_one(f"theirs{index}") / bench.options.one_by_one))
    bench.line(f"batch of {count}, an image / buildx, {bench.options.one_by_one} one by one", pairs, 100)
    proxy = Proxy(registry)
    try:
        batch(proxy.address, "counted")
        layer = size_of_layer(registry, "bench/counted", "t0")
        most = layer + count * 20 * 1024 + BASES * 2 * 1024
        bench.limit(f"batch of {count}: sent to the registry", proxy.sent / 1e6, most / 1e6, "MB")
        print(f"of it the layer of the sources: {layer / 1e6:.1f} MB; the rest, an image: {(proxy.sent - layer) / count / 1024:.1f} KiB", flush=True)
    finally:
        proxy.stop()


def size_of_layer(registry, repository, tag):
    """The last layer of an image."""
    from urllib.request import Request, urlopen

    kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    with urlopen(Request(f"http://{registry}/v2/{repository}/manifests/{tag}", headers={"Accept": kinds})) as answer:
        return json.load(answer)["layers"][-1]["size"]


GROUPS = {"tree-hash": bench_tree_hash, "runtime-plan": bench_plan, "lock": bench_lock, "batch": bench_batch}
# Those that need a registry and an engine.
WITH_SERVICES = {"runtime-plan", "lock", "batch"}
