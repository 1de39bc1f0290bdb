"""Settings for additions to machines: packages, kernel modules and settings, files and commands."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

_OPEN = re.compile(r"/etc/containerd/conf\.d/(?!clusterctl)[^/]+\.toml|/etc/systemd/system/[^/]+\.service\.d/.+")
"""Places in managed folders that are left to users: imports of containerd's configuration, and drop-ins of units."""
_NO_FILES = ("/proc", "/sys", "/dev", "/run")

StageName = Literal["prepare", "etcd", "control-plane", "nodes", "images"]


def full(pattern: re.Pattern[str], what: str, most: int = 253) -> AfterValidator:
    """Return a validator of texts that match a pattern whole and have at most so many characters."""
    def check(value: str) -> str:
        if len(value) > most or not pattern.fullmatch(value):
            raise ValueError(f"{value!r} is not {what}")
        return value

    return AfterValidator(check)


def _path(value: str, info: ValidationInfo) -> str:
    """Refuse paths that no file of an inventory may have. The context's ``managed`` returns those that clusterctl manages."""
    parts = value.split("/")
    wrong = ""
    if not value.startswith("/") or len(parts) < 3 or {"", ".", ".."} & set(parts[1:]) or not re.fullmatch("[!-~]+", value):
        wrong = "is not an absolute path of printable ASCII characters, without blanks, '.' and '..', below a folder"
    elif _within(value, _NO_FILES):
        wrong = "lies in a file system that does not keep files"
    elif info.context and _within(value, info.context["managed"]()) and not _OPEN.fullmatch(value):
        wrong = "is managed by clusterctl"
    if wrong:
        raise PydanticCustomError("inventory.file-path", "{path} {wrong}", {"path": repr(value), "wrong": wrong})
    return value


def _within(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


PackageName = Annotated[str, full(re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*"), "the name of a package")]
ModuleName = Annotated[str, full(re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*"), "the name of a kernel module", 55)]
SysctlKey = Annotated[str, full(re.compile(r"[a-z0-9_-]+(\.[A-Za-z0-9_-]+)+"), "a kernel setting such as net.core.somaxconn")]
SysctlValue = Annotated[str, full(re.compile(r"[!-~]+( [!-~]+)*"), "a value of a kernel setting, one blank between words")]
Account = Annotated[str, full(re.compile(r"[a-z_][a-z0-9_-]*"), "the name of a user or group", 32)]
Unit = Annotated[str, full(re.compile(r"[A-Za-z0-9:_.@-]+\.(service|socket|timer|path)"), "a systemd unit such as ssh.service")]
Command = Annotated[str, Field(min_length=1, max_length=16384)]


class Model(BaseModel):
    """Base of the types: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class MachineFile(Model):
    """A file on machines, with its content inline, in a file beside the inventory, or made from a template there."""

    path: Annotated[str, AfterValidator(_path)]
    content: str | None = None
    source: str | None = Field(None, description="file whose content is taken as it is, relative to the inventory's folder")
    template: str | None = Field(None, description="file for Jinja, with host and cluster, relative to the inventory's folder")
    owner: Account = "root"
    group: Account = "root"
    mode: Annotated[str, full(re.compile("0?[0-7]{3}"), "a mode of three octal digits such as '0644'")] = Field(
        "0644", description="octal digits, in quotes", json_schema_extra={"pattern": "^0?[0-7]{3}$"})
    restarts: Unit | None = Field(None, description="unit that is restarted when the content changes")

    @model_validator(mode="after")
    def _one_content(self) -> MachineFile:
        if sum(value is not None for value in (self.content, self.source, self.template)) != 1:
            raise PydanticCustomError("inventory.file-content", "a file has one of content, source and template")
        return self


class Hook(Model):
    """A command that runs once, and again when this definition changes."""

    name: Annotated[str, full(re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"), "a DNS label (RFC 1123)")]
    before: StageName | None = None
    after: StageName | None = None
    run: Command = Field(description="command for sh")
    where: Literal["host", "controller"] = "host"
    when: Command | None = Field(None, description="command for sh; if it fails, the hook is recorded and not run")
    timeout: int = Field(300, ge=1, le=800, description="seconds")

    @model_validator(mode="after")
    def _one_place(self) -> Hook:
        if (self.before is None) == (self.after is None):
            raise PydanticCustomError("inventory.hook-stage", "a hook has one of before and after")
        return self


def _once(field: str, code: str) -> AfterValidator:
    def check(items: tuple[Model, ...]) -> tuple[Model, ...]:
        names = [getattr(item, field) for item in items]
        if twice := [name for name in names if names.count(name) > 1]:
            raise PydanticCustomError(code, "{name} is there twice", {"name": repr(twice[0])})
        return items

    return AfterValidator(check)


Files = Annotated[tuple[MachineFile, ...], _once("path", "inventory.file-twice")]
Hooks = Annotated[tuple[Hook, ...], _once("name", "inventory.hook-twice")]
