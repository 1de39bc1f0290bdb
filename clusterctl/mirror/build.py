"""Programs built from their Go modules through a main module of our own, which supplies what ``go install`` refuses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clusterctl.errors import Refused, Stopped
from clusterctl.mirror.recipes import Output, Recipe

Tick = Callable[[], None]
SOURCES = Path(__file__).with_name("sources")
OLDEST_GO = (1, 26)
BUILD_DEADLINE = 7200.0
FETCH_DEADLINE = 1200.0
PACKAGES = "golang-go (1.26 or newer), gcc, libc6-dev, libseccomp-dev, pkg-config"


def check_tools(recipes: Iterable[Recipe]) -> str:
    """The version of Go; raises Refused where a program or a library that the builds need is missing."""
    wanted = list(recipes)
    missing = [name for name in ("go", "gcc") if shutil.which(name) is None]
    if "gcc" not in missing and any("seccomp" in recipe.tags for recipe in wanted) and not _has_library("libseccomp"):
        missing.append("libseccomp (its headers)")
    if missing:
        raise Refused(f"building from source needs {', '.join(missing)}", where="mirror", code="mirror.program-missing",
                      hint=f"install {PACKAGES}")
    found = run(["go", "env", "GOVERSION"], Path.cwd(), deadline=60).strip()
    match = re.match(r"go(\d+)\.(\d+)", found)
    if match is None or (int(match[1]), int(match[2])) < OLDEST_GO:
        raise Refused(f"building from source needs Go 1.26 or newer; here is {found}", where="mirror", code="mirror.go-version",
                      hint=f"install {PACKAGES}")
    return found


def _has_library(name: str) -> bool:
    try:
        return subprocess.run(["pkg-config", "--exists", name], check=False, timeout=60).returncode == 0
    except FileNotFoundError:
        return False


def run(argv: Sequence[str], folder: Path, *, deadline: float, env: Mapping[str, str] | None = None,
        tick: Tick | None = None) -> str:
    """Run a program and return what it printed; it ends with us. Raises Stopped with the tail of its output."""
    guard = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    ends = time.monotonic() + deadline
    with subprocess.Popen([*guard, *argv], cwd=folder, env={**os.environ, **_GO, **(env or {})}, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          start_new_session=True) as process:
        try:
            output, errors = _communicate(process, ends, tick)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        tail = "\n".join((errors or output).strip().splitlines()[-12:])
        raise Stopped(f"{' '.join(argv[:3])} ended with {process.returncode}: {tail}", where="mirror",
                      hint="run clusterctl mirror again; what is done is kept", code="mirror.build-failed")
    return output + errors


_GO = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GO111MODULE": "on", "GOWORK": "off", "CGO_ENABLED": "0"}


def _communicate(process: subprocess.Popen[str], ends: float, tick: Tick | None) -> tuple[str, str]:
    while True:
        try:
            return process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            if time.monotonic() > ends:
                raise Stopped("a build took too long and was ended", where=str(process.args), code="mirror.build-timeout",
                              hint="run it again") from None
            if tick:
                tick()


class Builder:
    """Builds outputs of one recipe in a folder of its own."""

    def __init__(self, recipe: Recipe, folder: Path, tick: Tick | None = None) -> None:
        self.recipe, self.folder, self._tick = recipe, folder, tick
        self._module: Mapping[str, str] = {}

    def build(self, outputs: Collection[Output]) -> dict[str, Path]:
        """Build the programs of these outputs, all by one compiler; return them by name. Raises Stopped."""
        into = self.folder / "out"
        into.mkdir(parents=True)
        packages = {name: package for output in outputs for name, package in output.packages.items()}
        return self._compile_c(packages, into) if self.recipe.c_source else self._compile_go(packages, into)

    def check(self, output: Output, built: Mapping[str, Path]) -> None:
        """Raises Stopped for a program that does not print the version that it was built as."""
        for name, arguments in output.checks.items():
            self._check(name, built[name], arguments)

    def extras(self) -> dict[str, Path]:
        """Files that come out of the module as they are, by the name that they get in the archive."""
        return {name: Path(self._module["Dir"]) / path for name, path in self.recipe.extras.items()}

    def _compile_c(self, packages: Mapping[str, str], into: Path) -> dict[str, Path]:
        built = {name: into / name for name in packages}
        for name, source in packages.items():
            run(["gcc", "-Os", "-s", "-static", "-Wall", "-Wextra", "-o", str(built[name]), str(SOURCES / source)], self.folder,
                deadline=120)
        return built

    def _compile_go(self, packages: Mapping[str, str], into: Path) -> dict[str, Path]:
        self._prepare()
        recipe = self.recipe
        flags = ["-s", "-w", *(["-extldflags", "-static"] if recipe.cgo else [])]
        for name, value in recipe.stamps.items():
            flags += ["-X", f"{name}={value.format(time=self._module['Time'])}"]
        run(["go", "build", "-trimpath", "-tags", recipe.tags, "-ldflags", " ".join(flags), "-o", f"{into}/",
             *packages.values()], self.folder, env={"CGO_ENABLED": "1" if recipe.cgo else "0"}, deadline=BUILD_DEADLINE,
            tick=self._tick)
        return {name: into / _executable(package) for name, package in packages.items()}

    def _check(self, name: str, program: Path, arguments: Sequence[str]) -> None:
        printed = run([str(program), *arguments], self.folder, deadline=60)
        if self.recipe.printed not in printed:
            raise Stopped(f"{name} says {printed.strip()[:200]!r} instead of {self.recipe.printed}", where="mirror",
                          hint="this is an error of clusterctl: report it", code="mirror.build-unexpected")

    def _prepare(self) -> None:
        """Write the wrapper module, once: the target's own Go line and settings, its replacements, our programs as tools."""
        if self._module:
            return
        recipe = self.recipe
        found = self._download()
        wanted = Path(found["GoMod"]).read_text(encoding="utf-8")
        (self.folder / "go.mod").write_text("\n".join([
            "module example.invalid/programs", *re.findall(r"^go \S+|^godebug \S+$", wanted, re.M),
            f"require {recipe.module} v{recipe.version}", *(f"require {line}" for line in recipe.requires),
            *_staged(wanted, recipe.version), *(f"replace {name} => {self._stand_in(name)}" for name in recipe.replaced),
            *(f"tool {package}" for output in recipe.outputs for package in output.packages.values()), ""]), encoding="utf-8")
        run(["go", "mod", "tidy"], self.folder, deadline=FETCH_DEADLINE, tick=self._tick)
        self._module = found

    def _download(self) -> Mapping[str, str]:
        """Fetch the module; Go checks it against the checksum database."""
        try:
            text = run(["go", "mod", "download", "-json", f"{self.recipe.module}@v{self.recipe.version}"], self.folder,
                       deadline=FETCH_DEADLINE, tick=self._tick)
        except Stopped as error:
            said = re.search(r'"Error": "(.*)"', error.message)
            raise Stopped(f"the module {self.recipe.name} is not available: {said[1] if said else error.message}", where="mirror",
                          hint="choose another version of it, in the inventory: cluster.versions",
                          code="mirror.module-unavailable") from None
        found: dict[str, Any] = json.JSONDecoder().raw_decode(text[text.index("{"):])[0]
        info = json.loads(Path(found["Info"]).read_text(encoding="utf-8"))
        return {"GoMod": found["GoMod"], "Dir": found["Dir"], "Time": info["Time"]}

    def _stand_in(self, module: str) -> str:
        """A copy of a stand-in, since Go may write into the folder of a module."""
        copy = self.folder / "stand-in" / self.recipe.replaced[module]
        shutil.copytree(SOURCES / self.recipe.replaced[module], copy, dirs_exist_ok=True)
        return f"./{copy.relative_to(self.folder)}"


def _executable(package: str) -> str:
    """Return Go's name of a package's program: the last part of its path that is not a major version."""
    parts = package.split("/")
    return parts[-2] if re.fullmatch(r"v\d+", parts[-1]) else parts[-1]


def _staged(go_mod: str, version: str) -> list[str]:
    """Replacements for Kubernetes' modules that lie in its own tree: their published versions of the same number."""
    names = re.findall(r"^\s*(k8s\.io/\S+) => \./staging/\S+", go_mod, re.M)
    return [f"replace {name} => {name} v0.{version.split('.', 1)[1]}" for name in names]
