"""Times builds on the two build services against a straightforward client in Python, with one service for both.

The service (`tests/src/bin/bench-service.rs`) takes what it is sent and forgets it, so what is timed is the client. The
clients are `reference.py` and windlass; each sends the same files.
"""

import os
import shlex
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
LINES = 1_000_000
MEMORY_MIB = 64


class Service:
    """The service while it runs: a log of so many lines, a build that takes so long, and how many lines go in a chunk."""

    def __init__(self, bench, lines=0, milliseconds=0, together=1):
        self.bench, self.arguments = bench, [str(lines), str(milliseconds), str(together)]

    def __enter__(self):
        command = [os.path.join(os.path.dirname(self.bench.windlass), "bench-service"), *self.arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        keys = {"RUNTIME_API_URL": self.url, "RUNTIME_API_KEY": "key", "TOGETHER_BASE_URL": self.url, "TOGETHER_API_KEY": "key"}
        self.bench.environment.update(keys, XDG_STATE_HOME=f"{self.bench.scratch}/state")
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def said(self, word):
        """The number after the next line that begins with this word."""
        for line in self.process.stdout:
            if line.startswith(word):
                return int(line.split()[1])
        raise SystemExit(f"the service did not say `{word}`")

    def build(self, backend, root, *arguments):
        return [self.bench.windlass, "build", "--backend", backend, "--tag", "bench/image:latest", *arguments, root]

    def reference(self, *arguments, python=sys.executable):
        return [python, f"{HERE}/reference.py", arguments[0], self.url, *arguments[1:]]


def bench_upload(bench, backend, name):
    """From a directory to a build that the service has taken."""
    root = bench.input(name)
    with Service(bench) as service:
        runs = []
        for _ in range(bench.options.runs):
            runs.append(bench.once(service.build(backend, root, "--quiet", "--detach")))
            sent = service.said("took")
        title = f"{backend}, {name} to a build that is taken"
        bench.limit(f"{title}: peak memory", max(peak for _, peak in runs), MEMORY_MIB, "MiB")
        if not bench.options.python:
            return print(f"{title:<52} {statistics.median(seconds for seconds, _ in runs):8.3f} s", flush=True)
        theirs, peak = bench.once(service.reference(backend, root))
        print(f"sent: {sent / 1e6:.0f} MB, by Python {service.said('took') / 1e6:.0f} MB with {peak:.0f} MiB of memory", flush=True)
        bench.line(f"{title} / Python", [(seconds, theirs) for seconds, _ in runs], 20)


def bench_runtime_api(bench):
    bench_upload(bench, "runtime-api", "w1")


def bench_image_builder(bench):
    bench_upload(bench, "image-builder", "w2")


def without_stderr(command):
    return ["sh", "-c", f"exec {shlex.join(command)} 2>/dev/null"]


def count_lines(bench, command):
    command = f"{shlex.join(command)} 2>&1 | grep -c Collecting"
    return int(subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, env=bench.environment, check=True).stdout)


def bench_events(bench):
    """A log of a million lines, through to the plain output."""
    root, python, peaks = bench.input("w3"), bench.options.events_python, []
    peer = "httpx-sse" if has_httpx_sse(python) else "Python"
    for lines in (LINES // 10, LINES):
        with Service(bench, lines) as service:
            peaks.append(bench.once(without_stderr(plain(service, root)))[1])
    bench.limit(f"events: peak memory, {LINES // 10} lines", peaks[0], MEMORY_MIB, "MiB")
    # What the allocator keeps differs from run to run.
    bench.limit(f"events: peak memory, {LINES} lines", peaks[1], peaks[0] + 4, "MiB")
    # Services flush each line, so it is a chunk of its own; what stands between may join them.
    for together, form in ((1, "a chunk each"), (500, "500 a chunk")):
        with Service(bench, LINES, together=together) as service:
            ours, theirs = plain(service, root), service.reference("events", python=python)
            if (shown := count_lines(bench, ours)) != LINES or count_lines(bench, theirs) != LINES:
                raise SystemExit(f"of {LINES} lines {shown} were shown")
            pairs = [(bench.once(without_stderr(ours))[0], bench.once(theirs)[0]) for _ in range(bench.options.runs)]
            bench.line(f"events, {LINES} lines, {form} / {peer}", pairs, 20)


def plain(service, root):
    return service.build("image-builder", root, "--progress", "plain")


def has_httpx_sse(python):
    return subprocess.run([python, "-c", "import httpx_sse"], stderr=subprocess.DEVNULL).returncode == 0


def bench_done(bench):
    """From the moment at which the build is done to our exit."""
    root = bench.input("w3")
    for backend, milliseconds, most in (("image-builder", 1_000, 100), ("runtime-api", 100, 2_000)):
        with Service(bench, 10, milliseconds) as service:
            waits = []
            for _ in range(bench.options.runs):
                bench.once(service.build(backend, root, "--quiet"))
                waits.append((time.time_ns() - service.said("done")) / 1e6)
        bench.limit(f"done to exit, {backend}, longest", max(waits), most, "ms")


GROUPS = {
    "runtime-api": bench_runtime_api,
    "image-builder": bench_image_builder,
    "events": bench_events,
    "done": bench_done,
}
