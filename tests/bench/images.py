"""Times building and pushing against the programs people use for that, with a real engine and a real registry.

What is "cold" is new to everybody: each run builds content that nobody has seen (a file with random bytes lies in the
context), with windlass' cache and the engine's build cache empty. A ready image is pushed to a registry of its own that
was just started. Such preparation is not timed.
"""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time

import workloads

REGISTRY, BASES = "WINDLASS_TEST_REGISTRY", "WINDLASS_TEST_BASES"
EXCLUDED = "--exclude=./node_modules --exclude=__pycache__ --exclude=./*.log"


def with_services(root, arguments):
    """Runs the benchmark again while a real registry and a real engine are up."""
    bases = subprocess.run([f"{root}/tests/setup/base_images.sh"], check=True, stdout=subprocess.PIPE, text=True)
    environment = dict(os.environ, WINDLASS_TEST_BASES=bases.stdout.strip())
    command = ["cargo", "run", "--quiet", "-p", "windlass-tests", "--bin", "with-services", "--", sys.executable, *arguments]
    return subprocess.run(command, cwd=root, env=environment).returncode


class Side:
    """One program at one piece of work: how it is prepared, what is timed, how many times faster we must be."""

    def __init__(self, name, command, prepare, target=None):
        self.name, self.command, self.prepare, self.target = name, command, prepare, target


def race(bench, title, sides):
    """Runs all sides in turn, and prints each peer against the first, which is windlass."""
    rounds = []
    for _ in range(bench.options.runs):
        times = []
        for side in sides:
            side.prepare()
            times.append(bench.once(side.command)[0])
        rounds.append(times)
    for index, side in enumerate(sides[1:], 1):
        bench.line(f"{title} / {side.name}", [(times[0], times[index]) for times in rounds], side.target)


def script(*commands):
    return ["sh", "-ec", "\n".join(shlex.join(command) for command in commands)]


def quietly(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def nothing():
    pass


class Builds:
    """A context, `w1` upon a base image, and what each program does with it."""

    def __init__(self, bench):
        self.bench, self.registry = bench, os.environ[REGISTRY]
        self.base, self.root = f"{self.registry}/base/debian:bookworm", f"{bench.scratch}/context"
        quietly("cp", "-a", bench.input("w1"), self.root)
        with open(f"{self.root}/Dockerfile", "w", encoding="utf-8") as file:
            file.write(f'FROM {self.base}\nCOPY . /app\nCMD ["/app/run.sh"]\n')
        self.change()
        # Files that were just written are not remembered: let them rest.
        time.sleep(5)

    def change(self):
        """Changes one file to what nobody has seen."""
        with open(f"{self.root}/d0/changing.txt", "wb") as file:
            file.write(os.urandom(2_000).hex().encode())

    def cold(self):
        """Empties all caches, and makes the content one that no registry has."""
        shutil.rmtree(f"{self.bench.scratch}/cache", ignore_errors=True)
        quietly("docker", "system", "prune", "--all", "--force")
        quietly("docker", "builder", "prune", "--all", "--force")
        quietly("rm", "-rf", f"{self.bench.scratch}/buildah")
        self.change()

    def windlass(self, *arguments):
        return [self.bench.windlass, "build", "--quiet", *arguments, self.root]

    def name(self, who):
        return f"{self.registry}/bench/{who}:latest"

    def pushers(self):
        """Who builds and pushes, with the command and how many times faster we must be."""
        ours, docker, buildx, buildah, crane = map(self.name, ("windlass", "docker", "buildx", "buildah", "crane"))
        yield "windlass", self.windlass("--tag", ours, "--push"), None
        build = ["docker", "build", "--quiet", "--tag", docker, self.root]
        yield "docker build, push", script(build, ["docker", "push", "--quiet", docker]), 12
        yield "buildx --push", ["docker", "buildx", "build", "--quiet", "--tag", buildx, "--push", self.root], None
        if self.bench.installed("buildah"):
            with open(f"{self.bench.scratch}/auth.json", "w", encoding="utf-8") as file:
                file.write("{}")
            program = ["env", f"REGISTRY_AUTH_FILE={file.name}", "buildah", "--root", f"{self.bench.scratch}/buildah", "--storage-driver", self.bench.options.buildah_storage]
            build = [*program, "build", "--quiet", "--tls-verify=false", "--tag", buildah, self.root]
            yield "buildah build, push", script(build, [*program, "push", "--quiet", "--tls-verify=false", buildah]), None
        if self.bench.installed("crane"):
            layer = shlex.quote(f"{self.bench.scratch}/layer.tar")
            append = f"crane append --insecure --base {self.base} --new_tag {crane} --new_layer {layer}"
            pack = f"tar {EXCLUDED} --transform 's,^[.],app,' -cf {layer} ."
            yield "tar, crane append", ["sh", "-ec", f"cd {shlex.quote(self.root)}\n{pack}\n{append}"], 1.7


def bench_build(bench):
    builds = Builds(bench)
    unchanged = [Side("windlass", builds.windlass(), nothing)]
    buildx = ["docker", "buildx", "build", "--quiet", "--tag", "bench:latest", builds.root]
    unchanged.append(Side("docker buildx", buildx, nothing, 8))
    for side in unchanged:
        bench.once(side.command)
    race(bench, "build w1, nothing changed", unchanged)
    pushers = list(builds.pushers())
    race(bench, "build w1, push, cold", [Side(name, command, builds.cold, target) for name, command, target in pushers])
    # The first round's predecessor is the same content for everybody, with all caches filled.
    builds.change()
    for _, command, _ in pushers:
        bench.once(command)
    time.sleep(5)
    # Two of them use the same engine: each gets a change of its own, or the second would find what the first built.
    sides = [Side(name, command, builds.change, target) for name, command, target in pushers]
    race(bench, "build w1, push, one file changed", sides)


class OwnRegistry:
    """An empty registry of its own for the next push; the one before ends."""

    def __init__(self, bench):
        self.directory, self.process, self.address = f"{bench.scratch}/registry", None, None

    def restart(self):
        self.stop()
        os.makedirs(self.directory)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config = f"{self.directory}/config.yml"
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
                       f"storage: {{filesystem: {{rootdirectory: '{self.directory}/storage'}}}}\n"
                       f"http: {{addr: '{self.address}', secret: not-a-secret}}\n")
        self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        host, port = self.address.split(":")
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return
            time.sleep(0.05)
        raise SystemExit("docker-registry does not answer")

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None
        shutil.rmtree(self.directory, ignore_errors=True)


def bench_push(bench):
    layout, registry = bench.input("image"), OwnRegistry(bench)
    bench.once([bench.windlass, "image", "load", "--quiet", "--input", layout, "--tag", "bench/image:latest"])
    pushers = [("windlass", lambda to: [bench.windlass, "image", "push", "--quiet", "bench/image:latest", to])]
    if bench.installed("oras"):
        pushers.append(("oras", lambda to: ["oras", "cp", "--from-oci-layout", "--to-plain-http", f"{layout}:latest", to]))
    if bench.installed("crane"):
        pushers.append(("crane", lambda to: ["crane", "push", "--insecure", layout, to]))
    if bench.installed("skopeo"):
        pushers.append(("skopeo", lambda to: ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{to}"]))
    first, again = [], []
    try:
        for _ in range(bench.options.runs):
            times = []
            for _, command in pushers:
                registry.restart()
                command = command(f"{registry.address}/bench/image:latest")
                times.append([bench.once(command)[0] for _ in range(2)])
            first.append([time for time, _ in times])
            again.append([time for _, time in times])
    finally:
        registry.stop()
    for title, rounds, target in (("first", first, 1), ("again", again, 1 / 1.5)):
        for index, (name, _) in enumerate(pushers[1:], 1):
            wanted = target if name == "oras" or (index == 1 and name != "oras") else None
            bench.line(f"push 500 MB, {title} / {name}", [(times[0], times[index]) for times in rounds], wanted)
