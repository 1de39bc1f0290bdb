"""A mirror: upstream's paths in a folder, with a catalog of its own pins; filled from upstream or built from source."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from clusterctl.artifacts.catalog import CATALOG, built_in, parse_pins
from clusterctl.artifacts.download import Timeouts, answers, digest, obtain
from clusterctl.artifacts.pack import write_archive
from clusterctl.artifacts.upstream import Upstream
from clusterctl.components.products import RELEASES
from clusterctl.errors import ClusterctlError, InputError, Locked, Refused, Stopped, raise_all
from clusterctl.local.storage import make_folder, write_whole
from clusterctl.mirror.build import Builder, check_tools
from clusterctl.mirror.image import write_oci_archive
from clusterctl.mirror.progress import Progress, Say
from clusterctl.mirror.recipes import Output, Recipe
from clusterctl.mirror.registry import pull

AT_A_TIME = 2
"""Modules built at the same time, where there are as many processors: one compiles while another is linked or fetched."""


class Mirror:
    """The folder of a mirror. A file is in it when its catalog says so; what lies there without an entry is not used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entries(self) -> dict[str, dict[str, Any]]:
        """The catalog as it is written. Raises InputError."""
        path = self.folder / CATALOG
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=str(path), code="mirror.unreadable",
                             hint="let this user read it") from None
        parse_pins(content, str(path))
        return dict(json.loads(content))

    def has(self, path: str) -> bool:
        """Whether a file is there, whole; one whose size is not known is not."""
        entry = self.entries().get(path)
        with contextlib.suppress(OSError):
            return entry is not None and (self.folder / path).stat().st_size == entry.get("size")
        return False

    def publish(self, source: Path, path: str, origin: Mapping[str, object]) -> None:
        """Put a finished file in its place, then into the catalog: both whole or not at all."""
        with source.open("rb") as stream:
            os.fsync(stream.fileno())
        sha256 = digest(source)
        source.chmod(0o644)
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        size = source.stat().st_size
        os.replace(source, place)
        self._write({**self.entries(), path: {"sha256": sha256, "size": size, **origin}})

    def verify(self) -> list[str]:
        """Read every file; those that are not what the catalog says are struck off it, and returned."""
        entries = self.entries()
        wrong = [path for path, entry in entries.items() if not self.has(path) or digest(self.folder / path) != entry["sha256"]]
        if wrong:
            self._write({path: entry for path, entry in entries.items() if path not in wrong})
        return wrong

    def _write(self, entries: Mapping[str, object]) -> None:
        write_whole(self.folder / CATALOG, json.dumps(entries, indent=1, sort_keys=True).encode() + b"\n", 0o644)

    @contextlib.contextmanager
    def locked(self) -> Iterator[Path]:
        """Fill it alone. Gives a folder for what is unfinished, where a killed run leaves nothing. Raises Locked, Refused."""
        try:
            make_folder(self.folder, 0o755)
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Refused(f"the mirror cannot be written: {error.strerror}", where=str(self.folder),
                          hint="give another folder with --directory", code="mirror.unwritable") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Locked("another process is filling this mirror", where=str(self.folder),
                             hint="wait until it is done", code="mirror.locked") from None
            work = self.folder / ".work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(exist_ok=True)
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
        finally:
            os.close(descriptor)


@dataclass
class Filled:
    """The result of filling a mirror."""

    present: int = 0
    added: list[str] = field(default_factory=list)
    errors: list[ClusterctlError] = field(default_factory=list)


class MirrorFill:
    """One run that adds what a mirror lacks."""

    def __init__(self, mirror: Mirror, recipes: Sequence[Recipe], arch: str, say: Say) -> None:
        self.mirror, self.arch, self.filled, self.say = mirror, arch, Filled(), say
        every = [(recipe, output) for recipe in recipes for output in recipe.outputs]
        self.missing = [(recipe, output) for recipe, output in every if not mirror.has(output.path)]
        self.filled.present = len(every) - len(self.missing)
        self._answering: dict[str, bool] = {}
        self._publishing, self._interrupted = threading.Lock(), threading.Event()

    def download(self, work: Path) -> None:
        """Download files from upstream, by built-in pins or its published checksums. Others are built later."""
        progress = Progress({output.label: float(output.weight) for _, output in self.missing}, self.say)
        for recipe, output in list(self.missing):
            host = (output.image.reference if output.image else output.path).split("/")[0]
            if not self._answers(host):
                continue
            progress.begin(output.label, f"downloading from {host}")
            try:
                self._download(output, work, partial(progress.tick, output.label))
            except ClusterctlError as error:
                progress.give_up(output.label, error.message)
            else:
                self.missing.remove((recipe, output))
                self.filled.added.append(output.path)
                progress.end(output.label, "downloaded", built=False)

    def _answers(self, host: str) -> bool:
        """Whether an upstream host does, asked once."""
        if host not in self._answering:
            self._answering[host] = answers(host)
        return self._answering[host]

    def _download(self, output: Output, work: Path, tick: Callable[[], None]) -> None:
        part = work / "download"
        part.write_bytes(b"")
        if output.image is not None:
            origin = {"image": output.image.reference, "digest": pull(output.image.reference, self.arch, part, tick)}
        else:
            name, _, version = output.label.partition(" ")
            pin = built_in().get(output.path) or Upstream().find(RELEASES[name], version, self.arch).pin
            origin = {"downloaded_from": f"https://{pin.url or output.path}"}
            obtain(origin["downloaded_from"], part, pin, Timeouts(), lambda done, total: tick())
        self.mirror.publish(part, output.path, origin)

    def build(self, work: Path) -> None:
        """Build all that is still missing, each module once. What fails does not hold up the rest; its errors are kept."""
        if not self.missing:
            return
        go = check_tools(recipe for recipe, _ in self.missing)
        modules = {id(recipe): recipe for recipe, _ in self.missing}
        outputs = {key: [output for recipe, output in self.missing if id(recipe) == key] for key in modules}
        labels = {key: _label(outputs[key]) for key in modules}
        progress = Progress({labels[key]: float(sum(output.weight for output in outputs[key])) for key in modules}, self.say)

        def build(key: int) -> None:
            progress.begin(labels[key], f"building from {modules[key].name}")
            try:
                self._make(modules[key], outputs[key], go, work, partial(self._tick, progress, labels[key]))
            except ClusterctlError as error:
                self.filled.errors.append(error)
                progress.end(labels[key], f"failed: {error.message.splitlines()[-1]}")
            else:
                progress.end(labels[key], "built")

        with ThreadPoolExecutor(min(AT_A_TIME, len(os.sched_getaffinity(0)))) as pool:
            try:
                for done in [pool.submit(build, key) for key in modules]:
                    done.result()
            except BaseException:
                self._interrupted.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _tick(self, progress: Progress, label: str) -> None:
        if self._interrupted.is_set():
            raise Stopped("interrupted", where="mirror", code="run.interrupted",
                          hint="run clusterctl mirror again; what is done is kept")
        progress.tick(label)

    def _make(self, recipe: Recipe, outputs: Sequence[Output], go: str, work: Path, tick: Callable[[], None]) -> None:
        """Build outputs of one module and publish each. Raises Stopped; what is published by then stays."""
        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(dir=work))
        try:
            shop = Builder(recipe, folder, tick)
            built = shop.build(outputs)
            origin = {"source": recipe.c_source} if recipe.c_source else {"module": recipe.name, "go": go}
            for output in outputs:
                shop.check(output, built)
                named = {"image": output.image.reference} if output.image else {}
                finished = self._pack(shop, output, built)
                with self._publishing:
                    self.mirror.publish(finished, output.path, {
                        "built_from": origin, **named, "seconds": round(time.monotonic() - began, 1)})
                self.filled.added.append(output.path)
        except OSError as error:
            raise Stopped(f"{_label(outputs)} cannot be made: {error.strerror or error}", where=str(self.mirror.folder),
                          hint="make room, then run clusterctl mirror again", code="mirror.not-written") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _pack(self, shop: Builder, output: Output, built: Mapping[str, Path]) -> Path:
        """The file as upstream would have it."""
        program = built[next(iter(output.packages))]
        if output.image is None and not output.members:
            return program
        finished = shop.folder / "finished"
        if output.image is not None:
            write_oci_archive(finished, output.image, program, self.arch)
        else:
            write_archive(finished, {**{name: built[program] for name, program in output.members.items()}, **shop.extras()})
        return finished


def _label(outputs: Sequence[Output]) -> str:
    """The name of what is built of one module in one go."""
    return outputs[0].label if len(outputs) == 1 else f"{outputs[0].label} and {len(outputs) - 1} more"


def fill(mirror: Mirror, recipes: Sequence[Recipe], arch: str, say: Say, *, upstream: bool = True,
         verify: bool = False) -> Filled:
    """Add what a mirror lacks, from upstream where it can be reached and else from source.

    Raises Locked, Refused, and after the last file the errors of those that failed.
    """
    with mirror.locked() as work:
        for path in mirror.verify() if verify else ():
            say(f"{path}: wrong, it is made again")
        filling = MirrorFill(mirror, recipes, arch, say)
        if upstream:
            filling.download(work)
        filling.build(work)
    raise_all(filling.filled.errors)
    return filling.filled
