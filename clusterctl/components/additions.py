"""Additions of the inventory to machines beside Kubernetes: packages, files and commands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, get_args

from clusterctl.cluster.machine_settings import Hook, MachineFile, StageName
from clusterctl.components.access import proxy_file, registry_files
from clusterctl.components.base import Component, Context, control_planes, etcd_members, everywhere, nodes
from clusterctl.components.products import PRODUCTS, SERVICES
from clusterctl.errors import ClusterctlError, InputError, raise_all
from clusterctl.resources.additions import AddedFile, AddedPackages, AddedService, Command, FormerAdditions, Hostname, Restart
from clusterctl.resources.base import Resource

STAGES: tuple[StageName, ...] = get_args(StageName)
_ON = {"prepare": everywhere, "etcd": etcd_members, "control-plane": control_planes, "nodes": nodes, "images": nodes}

R = TypeVar("R", bound=Resource)


def _of_products(context: Context, kind: type[R]) -> list[R]:
    """Return what the products' settings add to a host, of one kind."""
    added = (one for product in PRODUCTS if product.on(context.host) for one in product.additions(context))
    return [one for one in added if isinstance(one, kind)]


def packages(context: Context, ours: tuple[str, ...]) -> Iterator[Resource]:
    """Yield the packages of the inventory and of its settings. ``ours``: those that clusterctl installs for itself."""
    theirs = (name for one in _of_products(context, AddedPackages) for name in one.names)
    names = tuple(name for name in dict.fromkeys((*context.host.settings.packages, *theirs)) if name not in ours)
    yield FormerAdditions(kind="package", names=names, ours=ours)
    if names:
        yield AddedPackages(names=names)


def hostname(context: Context) -> Iterator[Resource]:
    """Yield the machine's own name where it is set to that of the node. With ``check`` a name that was set stays."""
    name, mode = context.host.name, context.cluster.settings.hostnames
    yield FormerAdditions(kind="hostname", names=(name,) if mode == "set" else (), ours=(name,) if mode == "check" else ())
    if mode == "set":
        yield Hostname(name=name)


def access(context: Context) -> Iterator[Resource]:
    """Yield the files that are needed to fetch anything, and the removal of files that left the inventory."""
    cluster, host = context.cluster, context.host
    ours = [*proxy_file(cluster, host), *(registry_files(cluster, host) if host.is_node else ())]
    names = [one.path for one in (*ours, *_of_products(context, AddedFile))]
    yield FormerAdditions(kind="file", names=(*names, *(one.path for one in host.settings.files)))
    yield from ours


def files(context: Context) -> Iterator[Resource]:
    """Yield the files of the inventory and of its settings, and the units of the operating system that they restart."""
    services = _of_products(context, AddedService)
    # A file of the inventory takes the place of a product's.
    added = {one.path: one for one in (*_of_products(context, AddedFile), *_of_inventory(context))}.values()
    yield from added
    yield FormerAdditions(kind="service", names=tuple(one.unit for one in services))
    for service in services:
        yield replace(service, inputs=tuple(one.id for one in added if one.restarts == service.unit))
    known = SERVICES.union(one.unit for one in services)
    units = dict.fromkeys(one.restarts for one in added if one.restarts and one.restarts not in known)
    yield FormerAdditions(kind="restart", names=tuple(units))
    yield from (Restart(unit=unit, inputs=tuple(one.id for one in added if one.restarts == unit)) for unit in units)
    yield FormerAdditions(kind="hook", names=tuple(hook.name for hook in context.host.settings.hooks))


def _of_inventory(context: Context) -> list[AddedFile]:
    """Return the files of the inventory. Raises InputError, or Problems where several cannot be made."""
    found: list[AddedFile] = []
    errors: list[ClusterctlError] = []
    for one in context.host.settings.files:
        try:
            content = _content(context, one)
        except InputError as error:
            errors.append(error)
        else:
            found.append(AddedFile(path=one.path, content=content, mode=one.mode.removeprefix("0"),
                                   owner=f"{one.owner}:{one.group}", restarts=one.restarts or ""))
    raise_all(errors)
    return found


def _content(context: Context, file: MachineFile) -> bytes:
    """Return the content of a file. Raises InputError."""
    if file.content is not None:
        return file.content.encode()
    name = file.source or file.template or ""
    path = context.cluster.base / Path(name).expanduser()
    try:
        found = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), code="inventory.file-unreadable",
                         hint=f"it is named by cluster.files for {file.path}") from None
    return found if file.template is None else _rendered(context, path, found)


def _rendered(context: Context, path: Path, template: bytes) -> bytes:
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True)
    try:
        return environment.from_string(template.decode()).render(host=context.host, cluster=context.cluster).encode()
    except (TemplateError, UnicodeDecodeError, TypeError, AttributeError, ValueError, ArithmeticError, LookupError) as error:
        line = getattr(error, "lineno", None)
        raise InputError(f"cannot be rendered: {error}", where=f"{path}:{line}" if line else str(path),
                         code="inventory.file-template") from None


def hooks(stage: StageName, *, after: bool = False, controller: bool = False) -> Component:
    """Return the commands that run before or after a stage on its hosts."""
    def resources(context: Context) -> list[Resource]:
        settings = context.host.settings
        return [Command(hook=hook, sensitive=settings.reveals(hook.run)) for hook in settings.hooks
                if _belongs(hook, stage, after, controller)]

    return Component(name="hooks", on=_ON[stage], resources=resources)


def _belongs(hook: Hook, stage: StageName, after: bool, controller: bool) -> bool:
    return (hook.after if after else hook.before) == stage and (hook.where == "controller") == controller
