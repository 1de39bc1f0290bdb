"""Creates many ConfigMaps at once. Run in a lab's network: KUBECONFIG NAMESPACE COUNT."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import sys
import tempfile
import threading
from urllib.parse import urlsplit

import yaml

THREADS = 8


def context(config: dict[str, object], folder: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=base64.b64decode(config["ca"]).decode())  # type: ignore[arg-type]
    for name in ("cert", "key"):
        with open(f"{folder}/{name}", "wb") as file:
            file.write(base64.b64decode(config[name]))  # type: ignore[arg-type]
    made.load_cert_chain(f"{folder}/cert", f"{folder}/key")
    return made


def create(server: str, made: ssl.SSLContext, namespace: str, numbers: range) -> None:
    place = urlsplit(server)
    connection = http.client.HTTPSConnection(place.hostname or "", place.port, context=made, timeout=60)
    for number in numbers:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"written-{number}"}, "data": {"number": str(number)}}
        connection.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status == 429:
            raise SystemExit("too many requests")
        assert answer.status == 201, said


def main(path: str, namespace: str, count: int) -> None:
    with open(path) as file:
        config = yaml.safe_load(file)
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    keys = {"ca": cluster["certificate-authority-data"], "cert": user["client-certificate-data"], "key": user["client-key-data"]}
    with tempfile.TemporaryDirectory() as folder:
        made = context(keys, folder)
        threads = [threading.Thread(target=create, args=(cluster["server"], made, namespace, range(first, count, THREADS)))
                   for first in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
