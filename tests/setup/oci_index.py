"""Turns tags of an OCI layout into one image index.

oci_index.py LAYOUT TAG MEMBER=os/architecture[/variant]...
"""

import hashlib
import json
import pathlib
import sys

INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"


def platform(text):
    return dict(zip(("os", "architecture", "variant"), text.split("/")))


def main(layout, tag, *members):
    layout = pathlib.Path(layout)
    top = json.loads((layout / "index.json").read_text())
    tagged = {entry["annotations"][REF_NAME]: entry for entry in top["manifests"]}

    manifests = []
    for member in members:
        name, _, target = member.partition("=")
        entry = {key: tagged[name][key] for key in ("mediaType", "digest", "size")}
        manifests.append(entry | {"platform": platform(target)})

    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    hexdigest = hashlib.sha256(body).hexdigest()
    (layout / "blobs" / "sha256" / hexdigest).write_bytes(body)

    descriptor = {"mediaType": INDEX, "digest": f"sha256:{hexdigest}", "size": len(body)}
    top["manifests"] = [descriptor | {"annotations": {REF_NAME: tag}}]
    (layout / "index.json").write_text(json.dumps(top))


main(*sys.argv[1:])
