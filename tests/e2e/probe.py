"""A client of a cluster that is being changed: writes and reads ten times a second at whichever API server answers, and asks a
Service from a pod as often. Run as a program in the lab's network; its figures are JSON on standard output when it is told to end.

usage: probe.py KUBECONFIG ENDPOINT,... POD_URL
"""

from __future__ import annotations

import base64
import json
import signal
import ssl
import sys
import tempfile
import threading
import time
import urllib.request
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import yaml

PERIOD, PATIENCE = 0.1, 1.0
"""Seconds between two requests; seconds that one API server gets to answer before the next is asked."""

ended = threading.Event()


class Endpoints:
    """Knows all API servers and stays with one as long as it answers."""

    def __init__(self, kubeconfig: Path, addresses: list[str]) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            pair.flush()
            self.context.load_cert_chain(pair.name)
        self.addresses, self.connection, self.failovers = addresses, None, 0
        self.refused: list[str] = []
        """What did not answer since it was last emptied, and after how many seconds."""

    def request(self, method: str, path: str, body: object = None) -> Any:
        """The answer of the first that gives one; asks until then."""
        while True:
            begun, said = time.monotonic(), ""
            try:
                if self.connection is None:
                    self.connection = HTTPSConnection(self.addresses[0], 6443, timeout=PATIENCE, context=self.context)
                self.connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
                answer = self.connection.getresponse()
                content = answer.read()
                if answer.status == 409 and method == "POST":
                    return {}  # The one before was written, and its answer lost.
                if answer.status < 300:
                    return json.loads(content)
                said = f"{answer.status} {content[:200]!r}"
            except (OSError, HTTPException) as error:
                said = repr(error)
            self.failovers += 1
            self.refused.append(f"{method} {self.addresses[0]} {time.monotonic() - begun:.2f} s: {said}")
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            self.addresses.append(self.addresses.pop(0))


def watch_api(endpoints: Endpoints, figures: dict[str, Any]) -> None:
    acknowledged: list[str] = []
    last = time.monotonic()
    longest, why = 0.0, []
    while not ended.is_set():
        name = f"probe-{len(acknowledged):06}"
        item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"probe": "yes"}}}
        endpoints.request("POST", "/api/v1/namespaces/default/configmaps", item)
        acknowledged.append(name)
        found = endpoints.request("GET", f"/api/v1/namespaces/default/configmaps/{name}")
        assert found["metadata"]["name"] == name
        now = time.monotonic()
        if now - last > longest:
            longest, why = now - last, [time.strftime("until %H:%M:%S"), *endpoints.refused]
        endpoints.refused.clear()
        last = now
        ended.wait(PERIOD)
    listed = endpoints.request("GET", "/api/v1/namespaces/default/configmaps?labelSelector=probe%3Dyes")
    there = {entry["metadata"]["name"] for entry in listed["items"]}
    figures.update(writes=len(acknowledged), lost=len(set(acknowledged) - there), longest_gap=round(longest, 2), gap=why,
                   failovers=endpoints.failovers)


def watch_service(url: str, figures: dict[str, Any]) -> None:
    asked, failed = 0, []
    while not ended.is_set():
        asked += 1
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                said = json.loads(answer.read())
            if said.get("errors"):
                failed.append(str(said["errors"]))
        except (OSError, ValueError) as error:
            failed.append(f"the asking pod: {error}")
        ended.wait(PERIOD)
    figures.update(asked=asked, failed=len(failed), first_failures=failed[:5])


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    endpoints = Endpoints(Path(sys.argv[1]), sys.argv[2].split(","))
    figures: dict[str, Any] = {}
    threads = [threading.Thread(target=watch_api, args=(endpoints, figures)),
               threading.Thread(target=watch_service, args=(sys.argv[3], figures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
