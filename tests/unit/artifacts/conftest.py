"""What tests of downloads share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from artifact_web import IMPATIENT, Web
from lock_runs import INVENTORY, paths
from upstream_double import Upstream

from clusterctl.artifacts.store import Location, Store
from clusterctl.components.products import RELEASES
from clusterctl.inventory import load

GO = r"""#!/bin/sh
# Stands in for go: its "programs" print the version that was stamped.
case "$1 $2" in
"env GOVERSION") echo "${FAKE_GO:-go1.26.8}" ;;
"mod download")
  case "$4" in *refused*) echo '{"Error": "this module is not available"}'; exit 1 ;; esac
  dir=$(mktemp -d); echo '{"Time":"2026-01-02T03:04:05Z"}' > $dir/info
  printf 'module x\ngo 1.26.0\ngodebug default=go1.26\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n' > $dir/mod
  echo "{\"Info\": \"$dir/info\", \"GoMod\": \"$dir/mod\", \"Dir\": \"$dir\"}" ;;
"mod tidy") cp go.mod "${FAKE_LOG:-/dev/null}" ;;
build*)
  [ -z "$FAKE_SLOW" ] || { touch "$FAKE_SLOW"; sleep 30; }
  while [ "$1" != -o ]; do [ "$1" = -ldflags ] && flags=$2; shift; done
  into=$2; shift 2
  [ -z "$FAKE_BUILDS" ] || echo "$*" >> "$FAKE_BUILDS"
  if [ -n "$FAKE_TOGETHER" ] && [ "${1##*/}" != three ]; then
    touch "$FAKE_TOGETHER/begun-${1##*/}"
    for _ in $(seq 200); do [ ! -e "$FAKE_TOGETHER/begun-one" ] || [ ! -e "$FAKE_TOGETHER/begun-two" ] || break; sleep 0.05; done
    [ -e "$FAKE_TOGETHER/begun-one" ] && [ -e "$FAKE_TOGETHER/begun-two" ] || exit 1
  fi
  for package; do printf '#!/bin/sh\necho "%s"\n' "$flags" > "$into${package##*/}"; chmod 755 "$into${package##*/}"; done ;;
esac
"""


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key of the cache's records is the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


@pytest.fixture
def store(web: Web, tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", Location(url=web.url), patience=IMPATIENT, upstream="http://127.0.0.1:9")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    for name, text in {"go": GO, "gcc": '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done; echo program > "$2"\n'}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(INVENTORY))
    return path


@pytest.fixture
def upstream(tmp_path: Path, inventory: Path) -> Iterator[Upstream]:
    """All files of the cluster's versions, of which none is built in; flannel's plugin has another name than before."""
    files = {path: f"content of {path}".encode() for path in paths(load(inventory))}
    for arch in ("amd64", "arm64"):
        path = RELEASES["flannel-cni"].at("1.7.1-flannel1", arch)
        files[path.replace("-v1.7.1-flannel1.tgz", "-v1.7.1.tgz")] = files.pop(path)
    double = Upstream(tmp_path, files)
    yield double
    double.close()
