"""Checks before an upgrade changes anything: health, room, time, and no use of features that the target no longer has."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from clusterctl.cluster import version_skew
from clusterctl.cluster.model import Cluster, Host
from clusterctl.commands.apply import ApplyPlan
from clusterctl.components import apiserver, controller_manager, scheduler
from clusterctl.components.base import Context
from clusterctl.engine import fleet
from clusterctl.errors import Refused, Stopped
from clusterctl.etcd import members, snapshot
from clusterctl.health import checks
from clusterctl.health.wait import wait_for
from clusterctl.kube import drain
from clusterctl.kube.client import Api, ApiError, cordoned_for, node_problem
from clusterctl.kube.disruption import Drain
from clusterctl.plan import running
from clusterctl.plan.planner import Plan
from clusterctl.plan.stages import context_of
from clusterctl.resources.binary import ROOT, Binary
from clusterctl.session.session import Session
from clusterctl.shell import Call
from clusterctl.shell.facts import Facts

AUTHORITY_LEFT = timedelta(days=30)
SETTLE_SECONDS = 60.0
Versions = Mapping[str, tuple[str, str]]


def all_of(session: Session, facts: Mapping[str, Facts], versions: Versions, plan: ApplyPlan,
           drains: Sequence[Drain], *, kubelets: bool = True) -> Iterator[Refused]:
    """Refuse an upgrade for all reasons together. ``kubelets``: whether kubelets are part of it."""
    await_begun(session, facts)
    yield from strangers(session.cluster, facts)
    yield from components(versions)
    yield from removed(session.cluster, versions)
    yield from room(plan.machines, facts)
    yield from authorities(session)
    yield from etcd(session)
    yield from snapshot_room(session, plan.machines)
    yield from _api(session, versions, drains, kubelets=kubelets)
    try:
        drain.refuse_unsafe(drains)
    except Refused as error:
        yield error


def await_begun(session: Session, facts: Mapping[str, Facts]) -> None:
    """Wait a moment for services that an interrupted run has restarted; later checks refuse those that stay unhealthy."""
    api = session.any_api()
    try:
        cordoned = api is not None and any(cordoned_for(node) for node in api.nodes().values())
    except ApiError:
        cordoned = False
    if cordoned or any(len(versions) > 1 for versions in running.versions_of(facts).values()):
        with contextlib.suppress(Stopped):
            wait_for(lambda: _late(session), what="what was begun before", deadline=SETTLE_SECONDS)


def _late(session: Session) -> str:
    late = [str(error) for error in etcd(session)]
    late += filter(None, [checks.failing(session, "the API", session.cluster.control_planes)])
    try:
        late += [str(error) for error in nodes(session.cluster.nodes, session.ready_api().nodes())]
    except ApiError as error:
        late.append(str(error))
    return "; ".join(late)


def strangers(cluster: Cluster, facts: Mapping[str, Facts]) -> Iterator[Refused]:
    """Machines that are not in the cluster yet join it at the versions that run, not in between."""
    for host in cluster.hosts:
        if host.name in facts and not facts[host.name].running:
            yield Refused("it is not in the cluster yet", where=host.name, code="host.not-joined",
                          hint="clusterctl apply, then upgrade")


def components(versions: Versions) -> Iterator[Refused]:
    for product, (found, wanted) in versions.items():
        if product == "kubernetes":
            continue
        for version in found.split(", "):
            problem = version_skew.refuse_component(product, version, wanted)
            if problem:
                yield Refused(problem, where=product, code="upgrade.path",
                              hint="name one in between: --component, or versions in the inventory")


def removed(cluster: Cluster, versions: Versions) -> Iterator[Refused]:
    """Flags and gates of the inventory that the target does not know."""
    if "kubernetes" not in versions:
        return
    settings = cluster.settings
    kubelets = {id(host.settings): host.settings.kubelet for host in cluster.nodes}.values()
    flags = {name: getattr(settings, name).extra_args for name in ("api_server", "controller_manager", "scheduler")}
    flags["kubelet"] = {name: value for kubelet in kubelets for name, value in kubelet.extra_args.items()}
    extras = [*flags.values(), *(kubelet.extra_args for kubelet in kubelets)]
    gates = [entry.partition("=")[0] for extra in extras for entry in extra.get("feature-gates", "").split(",") if entry]
    for kubelet in kubelets:
        configured = kubelet.config.get("featureGates")
        gates += list(configured) if isinstance(configured, Mapping) else []
    before, after = versions["kubernetes"]
    for text in version_skew.removed_in_use(before.split(", ")[0], after, flags, gates):
        yield Refused(text, where="cluster settings", code="upgrade.setting-removed",
                      hint="take it out of the inventory and apply, then upgrade")


def room(plan: Plan, facts: Mapping[str, Facts]) -> Iterator[Refused]:
    """Twice what is staged must fit below /opt: archives are unpacked beside themselves."""
    wanted: dict[str, int] = {}
    for _, host, change in plan.changes:
        if isinstance(change.resource, Binary):
            wanted[host.name] = wanted.get(host.name, 0) + int(getattr(change.resource.source, "size", 0))
    for name, size in wanted.items():
        space = facts[name].space.get("/opt")
        needed = size * 2 // 2**20 + 100
        if space is not None and space.mib < needed:
            yield Refused(f"{space.mib} MiB are free on the file system of /opt", where=name,
                          hint=f"{needed} MiB are needed: free some", code="host.disk-space")


def authorities(session: Session) -> Iterator[Refused]:
    for name, authority in session.pki.authorities.items():
        if authority.ends - datetime.now(UTC) < AUTHORITY_LEFT:
            yield Refused(f"the authority {name} ends on {authority.ends:%Y-%m-%d}", where="certificates",
                          hint="clusterctl renews no authority: move to a new cluster before that day",
                          code="pki.authority-expires")


def etcd(session: Session) -> Iterator[Refused]:
    try:
        members.refuse_unhealthy(members.look(session))
    except Refused as error:
        yield error


def takes_snapshot(plan: Plan) -> bool:
    """Whether an etcd member or an API server is interrupted: a snapshot is taken before."""
    return any(stage in ("etcd", "control-plane") and change.disruptive for stage, _, change in plan.changes)


def snapshot_room(session: Session, plan: Plan) -> Iterator[Refused]:
    """Yield the refusal where no machine has room to verify the snapshot that is taken first."""
    if not takes_snapshot(plan):
        return
    try:
        found = members.look(session)
    except Refused:
        return  # etcd() reports that no majority answers.
    try:
        snapshot.choose_place(session, found)
    except Refused as error:
        yield error


def _api(session: Session, versions: Versions, drains: Sequence[Drain], *, kubelets: bool) -> Iterator[Refused]:
    for host in session.cluster.control_planes:
        if not session.api(host).ready():
            yield Refused("its API server is not ready", where=host.name, code="api.not-ready",
                          hint="clusterctl status; clusterctl apply")
            return
    api = session.api(session.cluster.control_planes[0])
    try:
        yield from nodes(session.cluster.nodes, api.nodes())
        if "kubernetes" in versions:
            yield from _removed_apis(session, api, versions["kubernetes"])
            if kubelets:
                left_out = [host for host in session.cluster.control_planes if host not in session.chosen]
                served = {host.name: str(session.api(host).look("/version")["gitVersion"]) for host in left_out}
                yield from behind(served, versions["kubernetes"][1])
        for text in drain.hopeless(drains, api.look("/apis/policy/v1/poddisruptionbudgets")["items"] if drains else ()):
            yield Refused(text, where="drain", code="drain.refused",
                          hint="let the budget allow one disruption, or run more pods, then upgrade")
    except ApiError as error:
        yield Refused(f"the API cannot be asked: {error}", hint="clusterctl status", code="api.request-failed")


def behind(served: Mapping[str, str], after: str) -> Iterator[Refused]:
    """No kubelet may be of a later minor than an API server. ``served``: versions, as vX.Y.Z, of those that are left out."""
    for name, version in served.items():
        if version_skew.minor_number(version) < version_skew.minor_number(after):
            yield Refused(f"its API server is {version} and stays so, and no kubelet may be newer: {after}", where=name,
                          hint="upgrade the control planes first, or all: without --limit", code="upgrade.kubelet-newer")


def nodes(hosts: Iterable[Host], found: Mapping[str, Mapping[str, object]]) -> Iterator[Refused]:
    """All nodes must be Ready before one is interrupted."""
    for host in hosts:
        if problem := node_problem(found.get(host.name)):
            yield Refused(f"the node is not Ready: {problem}", where=host.name, code="node.not-ready",
                          hint="clusterctl status; bring it back first")


def _removed_apis(session: Session, api: Api, pair: tuple[str, str]) -> Iterator[Refused]:
    before, after = pair[0].split(", ")[0], pair[1]
    for group in version_skew.removed_apis(before, after):
        for text in _stored(api, group):
            yield Refused(f"{text} in {group}, which is gone after {before}", where="the API", code="upgrade.api-removed",
                          hint="delete them, then upgrade")
    asked: set[tuple[str, str]] = set()
    for host in session.cluster.control_planes:
        asked |= deprecated(str(session.api(host).look("/metrics")))
    for resource, gone in sorted(asked):
        if version_skew.minor_number(f"{gone}.0") <= version_skew.minor_number(after):
            yield Refused(f"clients still request {resource}, which is gone in {gone}", where="the API",
                          hint="move its clients to a newer version of it (audit log: k8s.io/removed-release)",
                          code="upgrade.api-in-use")


def _stored(api: Api, group: str) -> Iterator[str]:
    try:
        resources = api.look(f"/apis/{group}")["resources"]
    except ApiError as error:
        if error.status == 404:
            return
        raise
    for resource in resources:
        if "/" not in resource["name"] and "list" in resource["verbs"]:
            count = len(api.look(f"/apis/{group}/{resource['name']}")["items"])
            if count:
                yield f"{count} {resource['name']} are stored"


DEPRECATED = re.compile(r"^apiserver_requested_deprecated_apis\{(?P<labels>[^}]*)\} [1-9]", re.MULTILINE)


def deprecated(metrics: str) -> set[tuple[str, str]]:
    """(resource, release that removes it) of deprecated APIs that an API server was asked for, from its metrics."""
    found = set()
    for match in DEPRECATED.finditer(metrics):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"]))
        if labels.get("removed_release"):
            name = f"{labels.get('resource', '')}.{labels.get('version', '')}.{labels.get('group', '')}".rstrip(".")
            found.add((name, labels["removed_release"]))
    return found


def accept_flags(session: Session, facts: Mapping[str, Facts]) -> None:
    """Ask staged programs, which nothing runs yet, whether they know the flags they will get. Raises Stopped.

    With ``--version`` beside them they read their flags, say their version and end.
    """

    def ask(host: Host) -> None:
        calls = list(_flag_calls(context_of(session, host, facts)))
        if calls:
            session.engine.run(host, calls)

    fleet.each(session.chosen, ask, limit=session.options.forks).or_raise()


def _flag_calls(context: Context) -> Iterator[Call]:
    """For each program that is about to run in another version."""
    arguments: Mapping[str, Callable[[Context], Mapping[str, object]]] = {
        "kube-apiserver": apiserver.arguments,
        "kube-controller-manager": controller_manager.arguments,
        "kube-scheduler": scheduler.arguments,
        "kubelet": lambda one: one.host.settings.kubelet.extra_args,
    }
    for name, make in arguments.items():
        if context.facts.running.get(name, context.cluster.versions.kubernetes) != context.cluster.versions.kubernetes:
            yield _accepts(context, name, make(context))


def _accepts(context: Context, name: str, arguments: Mapping[str, object]) -> Call:
    program = f"{ROOT}/{name}/{context.cluster.versions.kubernetes}/{name}"
    return ("accepts", program, *(f"--{flag}={value}" for flag, value in arguments.items()))
