"""chrony: the time service, where ``cluster.time`` asks for it."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl.components.base import Context, Product
from clusterctl.components.kernel import in_container
from clusterctl.components.render import render
from clusterctl.resources.additions import AddedFile, AddedPackages, AddedService
from clusterctl.resources.base import Resource

RED_HAT = ("almalinux", "centos", "fedora", "rhel", "rocky")
"""Systems, as os-release names them, whose chrony reads one file; Debian's also reads those of a folder."""


def _additions(context: Context) -> Sequence[Resource]:
    """Return its package, configuration and unit.

    A container has the clock of its host. systemd skips the unit there (ConditionCapability=CAP_SYS_TIME), so that it is
    restarted with its file and not expected to run.
    """
    if context.host.settings.time != "chrony":
        return []
    whole = context.facts.os in RED_HAT
    path, unit = ("/etc/chrony.conf", "chronyd.service") if whole else ("/etc/chrony/conf.d/clusterctl.conf", "chrony.service")
    config = AddedFile(path=path, content=render("chrony/chrony.conf.j2", whole=whole), restarts=unit)
    service = [] if in_container(context) else [AddedService(unit=unit, deadline=30)]
    return [AddedPackages(names=("chrony",)), config, *service]


CHRONY = Product(name="chrony", additions=_additions)
