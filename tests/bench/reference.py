#!/usr/bin/env python3
"""What a straightforward client in Python does with the two build services: the peer of `tests/bench/remote.py`.

usage: reference.py runtime-api|image-builder URL DIRECTORY
       reference.py events URL

The archive is made in memory and posted at once. Log lines are printed as they come, read by httpx-sse where that is
installed, else by the same rules on http.client.
"""

import base64
import http.client
import io
import json
import sys
import tarfile
import urllib.parse

EXCLUDED = ("node_modules", "__pycache__", "debug.log")
BUILD = "build-1"


def archive(root):
    """The directory as a gzip-compressed tar, without what windlass leaves out of W1."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(root, arcname=".", filter=lambda member: None if member.name.split("/")[-1] in EXCLUDED else member)
    return packed.getvalue()


def post(url, call, body, content_type, key):
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    connection.request("POST", f"/{call}", body, {"Content-Type": content_type, **key})
    answer = connection.getresponse()
    if answer.status not in (200, 201, 202):
        raise SystemExit(f"the service answered {answer.status}")
    print(json.loads(answer.read())["build_id"])


def runtime_api(url, root):
    context = base64.b64encode(archive(root)).decode()
    body = json.dumps({"context": context, "target_image": "registry.example.com/bench/image:latest"})
    post(url, "build", body, "application/json", {"X-API-Key": "key"})


def image_builder(url, root):
    context, boundary = archive(root), "boundary-of-the-reference"
    fields = {"image_name": "image:latest", "dockerfile": "Dockerfile", "build_args": "{}", "nydus_convert": "true"}
    body = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    )
    body += f'--{boundary}\r\nContent-Disposition: form-data; name="context"; filename="context.tar.gz"\r\n'
    body += "Content-Type: application/gzip\r\n\r\n"
    body = body.encode() + context + f"\r\n--{boundary}--\r\n".encode()
    post(url, "builds", body, f"multipart/form-data; boundary={boundary}", {"Authorization": "Bearer key"})


def data_by_httpx(url):
    import httpx
    import httpx_sse

    with httpx.Client(timeout=None) as client:
        headers = {"Authorization": "Bearer key"}
        with httpx_sse.connect_sse(client, "GET", f"{url}/builds/{BUILD}/logs", headers=headers) as source:
            for event in source.iter_sse():
                yield event.data


def data_by_hand(url):
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    connection.request("GET", f"/builds/{BUILD}/logs", headers={"Accept": "text/event-stream", "Authorization": "Bearer key"})
    data = []
    for line in io.TextIOWrapper(connection.getresponse(), "utf-8", errors="replace", newline=None):
        line = line.removesuffix("\n")
        field, _, value = line.partition(":")
        if not line and data:
            yield "\n".join(data)
            data = []
        elif field == "data":
            data.append(value.removeprefix(" "))


def is_control(data):
    if not data.startswith("{"):
        return False
    try:
        document = json.loads(data)
    except ValueError:
        return False
    return document.get("done") is True or bool(document.get("error"))


def events(url):
    try:
        import httpx_sse  # noqa: F401
        read = data_by_httpx
    except ImportError:
        read = data_by_hand
    for data in read(url):
        if is_control(data):
            break
        print(data)


if __name__ == "__main__":
    WORK = {"runtime-api": runtime_api, "image-builder": image_builder, "events": events}
    if len(sys.argv) < 3 or sys.argv[1] not in WORK:
        raise SystemExit(__doc__)
    WORK[sys.argv[1]](*sys.argv[2:])
