"""``--diff``: what a plan changes in files, line by line, and in other things, field by field."""

from __future__ import annotations

import base64
import dataclasses
import difflib
from collections import defaultdict
from collections.abc import Mapping

from clusterctl.cluster.host_settings import HostSettings
from clusterctl.cluster.model import Host
from clusterctl.commands.apply import ApplyPlan
from clusterctl.engine import fleet
from clusterctl.resources.base import Change
from clusterctl.resources.file import File
from clusterctl.session.session import Session
from clusterctl.shell import Script
from clusterctl.ssh.transport import ConnectionLost

Contents = Mapping[str, bytes]
"""The current contents of files, by path."""


def with_differences(session: Session, plan: ApplyPlan) -> ApplyPlan:
    """The plan, each change of it with its difference. One more trip to each machine where a file's content changes."""
    paths: dict[str, list[str]] = defaultdict(list)
    hosts: dict[str, Host] = {}
    for _, host, change in plan.machines.changes:
        resource = change.resource
        if isinstance(resource, File) and not resource.sensitive and change.before and "content" in change.fields:
            paths[host.name].append(resource.path)
            hosts[host.name] = host
    forks = session.options.forks
    contents = fleet.each(hosts.values(), lambda host: _fetch(session, host, paths[host.name]), limit=forks).or_raise()
    found = {
        (host.name, change.resource.id): text
        for _, host, change in plan.machines.changes
        if (text := difference(change, contents.get(host.name, {}), session.cluster.settings, host.settings))
    }
    return dataclasses.replace(plan, differences=found)


def _fetch(session: Session, host: Host, paths: list[str]) -> Contents:
    program = Script(probes=[("content", path) for path in paths])
    try:
        records = list(session.engine.transports[host.name].stream(program, silence=60))
    except ConnectionLost as error:
        raise error.unreachable(host) from None
    return {words[1]: base64.b64decode(words[2]) for words in records if words[0] == "content"}


def difference(change: Change, contents: Contents, *settings: HostSettings) -> str:
    """Return what a change changes, as text; empty where there is nothing to compare. No secret is ever in it.

    ``settings``: those with texts of ansible-vault.
    """
    resource = change.resource
    lines = [
        f"{field}: {change.before[field]} -> {change.after.get(field, 'nothing')}"
        for field in change.fields
        if field in change.before and not (isinstance(resource, File) and field == "content")
    ]
    if isinstance(resource, File) and "content" in change.fields:
        lines += ["content not shown"] if resource.sensitive else _unified(resource, contents.get(resource.path))
    text = "\n".join(lines)
    return "content not shown" if any(one.reveals(text) for one in settings) else text


def _unified(resource: File, before: bytes | None) -> list[str]:
    old = [] if before is None else before.decode(errors="replace").splitlines()
    new = resource.content.decode(errors="replace").splitlines()
    name = "/dev/null" if before is None else resource.path
    return list(difflib.unified_diff(old, new, name, resource.path, lineterm="")) or ["only the end of the last line differs"]
