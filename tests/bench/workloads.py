#!/usr/bin/env python3
"""Writes the inputs of the benchmark; the same bytes, modes and times every time.

usage: workloads.py DIRECTORY [w1] [w2] [w3] [image]      (default: all)

w1  a source tree: 20,000 files, 250 MB, links, executables, empty files and directories; and
    10,000 files of node_modules, __pycache__ and logs that its .dockerignore excludes
w2  a big tree: 2,000 files, 2 GB, half of the bytes incompressible, some files of 64 MB
w3  a tiny context: 3 files
image  an OCI layout with the tag `latest`: 50 layers of 10 MB that do not compress
"""

import gzip
import hashlib
import io
import json
import os
import random
import sys
import tarfile

MTIME = 1_700_000_000
MIB = 1 << 20


def text(rng, size):
    """Text like code: few words often, many seldom, lines that come again."""
    syllables = ["re", "con", "ta", "in", "er", "get", "set", "pro", "to", "buf", "lay", "im", "age", "hash"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(12_000)]
    total, weights = 0.0, []
    for rank in range(len(words)):
        total += 1 / (rank + 3)
        weights.append(total)
    shapes = [
        "let {} = {}.{}();\n",
        "if {} != {} {{ {} }}\n",
        "return {}({}, {})?;\n",
        "// {} {} {}\n",
        '"{}": "{}-{}",\n',
    ]
    out, recent, picked = bytearray(), [], []
    while len(out) < size:
        if len(picked) < 4:
            picked = rng.choices(words, cum_weights=weights, k=200_000)
        if recent and rng.random() < 0.25:
            out += recent[rng.randrange(len(recent))]
            continue
        indent = " " * (4 * rng.randrange(4))
        number = f"{rng.randrange(65_536):x}" if rng.random() < 0.1 else ""
        line = (indent + rng.choice(shapes).format(picked.pop(), picked.pop(), picked.pop() + number)).encode()
        recent = recent[-399:] + [line]
        out += line
    return bytes(out)


def records(rng, size):
    """Bytes like object files: fields that repeat between fields that do not."""
    out = bytearray()
    while len(out) < size:
        tag = rng.randbytes(8)
        for index in range(rng.randint(4, 20)):
            out += tag + index.to_bytes(4, "little") + bytes(4) + rng.randbytes(8)
    return bytes(out)


def cut(rng, pool, size):
    if size >= len(pool):
        return (pool * (size // len(pool) + 1))[:size]
    start = rng.randrange(len(pool) - size)
    return pool[start : start + size]


def size_of(rng, middle, spread, most):
    return min(int(rng.lognormvariate(middle, spread)), most)


def put(path, content, mode=0o644):
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)
    os.utime(path, (MTIME, MTIME))


def link(target, path):
    os.symlink(target, path)
    os.utime(path, (MTIME, MTIME), follow_symlinks=False)


def directories(rng, root, count):
    found = [root]
    for index in range(count):
        parent = found[int(rng.random() ** 0.7 * len(found))]
        if parent.count("/") - root.count("/") > 7:
            parent = root
        found.append(f"{parent}/d{index}")
        os.mkdir(found[-1])
    return found


def finish(root):
    for directory, _, _ in os.walk(root, topdown=False):
        os.chmod(directory, 0o755)
        os.utime(directory, (MTIME, MTIME))


DOCKERFILE = b'FROM scratch\nCOPY . /app\nCMD ["/app/run.sh"]\n'


def w1(root):
    rng = random.Random(101)
    code, objects = text(rng, 48 * MIB), records(rng, 24 * MIB)
    places = directories(rng, root, 900)
    files = []
    for index in range(20_000):
        kind, path = rng.random(), f"{rng.choice(places)}/f{index}"
        if index < 40:
            path, content = path + ".empty", b""
        elif kind < 0.70:
            path, content = path + ".rs", cut(rng, code, size_of(rng, 8.45, 1.1, 400_000))
        elif kind < 0.95:
            path, content = path + ".o", cut(rng, objects, size_of(rng, 8.9, 1.0, 600_000))
        else:
            path, content = path + ".png", rng.randbytes(size_of(rng, 10.9, 0.9, 3_000_000))
        put(path, content, 0o755 if rng.random() < 0.03 else 0o644)
        files.append(path)
    for index in range(200):
        place = rng.choice(places)
        link(os.path.relpath(rng.choice(files), place), f"{place}/link{index}")
    link("/nonexistent", f"{root}/dangling")
    for index in range(20):
        os.mkdir(f"{rng.choice(places)}/empty{index}")
    put(f"{root}/a name \u00e9\u4e2d.txt", b"not ASCII\n")
    put(f"{root}/{'long' * 40}.txt", b"a long name\n")
    for index in range(500):
        os.makedirs(f"{root}/node_modules/p{index}/lib")
    for index in range(10_000):
        content = cut(rng, code, size_of(rng, 8.0, 0.8, 100_000))
        put(f"{root}/node_modules/p{index % 500}/lib/m{index}.js", content)
    for index, place in enumerate(rng.sample(places, 50)):
        os.mkdir(f"{place}/__pycache__")
        put(f"{place}/__pycache__/m{index}.pyc", rng.randbytes(2_000))
    put(f"{root}/debug.log", b"log\n" * 1_000)
    put(f"{root}/.dockerignore", b"node_modules\n**/__pycache__\n*.log\n")
    put(f"{root}/run.sh", b"#!/bin/sh\necho hello\n", 0o755)
    put(f"{root}/Dockerfile", DOCKERFILE)


def w2(root):
    rng = random.Random(202)
    code = text(rng, 48 * MIB)
    places = directories(rng, root, 60)
    for index in range(2_000):
        size = 64 * MIB if index < 6 else max(4_096, size_of(rng, 13.13, 1.0, 32 * MIB))
        content = cut(rng, code, size) if index % 2 else rng.randbytes(size)
        put(f"{rng.choice(places)}/f{index}", content)
    put(f"{root}/Dockerfile", DOCKERFILE)


def w3(root):
    put(f"{root}/Dockerfile", DOCKERFILE)
    put(f"{root}/run.sh", b"#!/bin/sh\necho hello\n", 0o755)
    put(f"{root}/app.py", b"print('hello')\n")


def image(root):
    rng = random.Random(505)
    os.makedirs(f"{root}/blobs/sha256")

    def blob(kind, content):
        digest = hashlib.sha256(content).hexdigest()
        put(f"{root}/blobs/sha256/{digest}", content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    def document(kind, content):
        return blob(kind, json.dumps(content, sort_keys=True).encode())

    layers, diff_ids = [], []
    for index in range(50):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            member = tarfile.TarInfo(f"file{index}")
            member.size, member.mtime = 10 * MIB, MTIME
            archive.addfile(member, io.BytesIO(rng.randbytes(10 * MIB)))
        diff_ids.append(f"sha256:{hashlib.sha256(packed.getvalue()).hexdigest()}")
        layers.append(blob("layer.v1.tar+gzip", gzip.compress(packed.getvalue(), compresslevel=1, mtime=0)))
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    config = document("config.v1+json", config)
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers}
    manifest = document("manifest.v1+json", manifest)
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    put(f"{root}/index.json", json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode())
    put(f"{root}/oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


MAKERS = {"w1": w1, "w2": w2, "w3": w3, "image": image}


def make(directory, name):
    """Writes one input unless it is there; one that was cut short does not count as there."""
    root = os.path.join(directory, name)
    if not os.path.exists(root):
        unfinished = root + ".unfinished"
        if os.path.exists(unfinished):
            raise SystemExit(f"{unfinished} is left of a run that was stopped: remove it first")
        os.makedirs(unfinished)
        MAKERS[name](unfinished)
        finish(unfinished)
        os.rename(unfinished, root)
    return root


if __name__ == "__main__":
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(MAKERS):
        raise SystemExit(__doc__)
    for wanted in sys.argv[2:] or MAKERS:
        print(make(sys.argv[1], wanted))
