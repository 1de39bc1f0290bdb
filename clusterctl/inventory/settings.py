"""The variable ``cluster:``, turned into ``Settings`` and ``Versions``; pydantic's complaints in people's words."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from clusterctl.cluster.host_settings import HostSettings
from clusterctl.cluster.model import Settings, Versions
from clusterctl.cluster.versions import known_versions
from clusterctl.inventory.document import Node, decrypted, quoted
from clusterctl.inventory.findings import Diagnostics, Place, did_you_mean
from clusterctl.inventory.values import TEMPLATE_HINT, is_template, refuse_sealed

_BOUNDS = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le"), "greater_than": ("more than", "gt"),
           "less_than": ("less than", "lt")}
_WANTED = {
    "string_type": "text", "path_type": "text", "int_type": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "bool_type": "true or false", "model_type": "a map", "model_attributes_type": "a map",
    "dict_type": "a map", "mapping_type": "a map", "tuple_type": "a list", "list_type": "a list",
    "string_too_short": "text that is not empty", "int_parsing": "a whole number", "bool_parsing": "true or false",
    "ip_v4_network": "an IPv4 network", "ip_v4_address": "an IPv4 address",
}
_REFERABLE = ("inventory.proxy-credentials", "inventory.secret")
"""Codes of secrets that a reference may name."""
_CODE = re.compile(r"\.(hooks\[\d+\]\.(run|when)|files\[\d+\]\.content)$")
"""Paths of texts that are taken as they are, with the braces of ``kubectl -o go-template``."""
T = TypeVar("T", bound=HostSettings)
_KINDS: dict[type, str] = {bool: "bool_type", int: "int_type", float: "float_type", str: "string_type"}


def read_settings(node: Node | None, findings: Diagnostics) -> Settings | None:
    """The settings, all defaults where there are none; None where something is wrong."""
    if node is None:
        return Settings.model_validate({})
    if node.sealed:
        refuse_sealed(node, findings)
        return None
    at_once = descend(node, ("max_unavailable",))[0]
    if type(at_once.value) is int:  # A number or a percentage, and thus text; a number need not be quoted.
        at_once.value = str(at_once.value)
    return _read(Settings, node, findings)


def read_host_settings(node: Node | None, findings: Diagnostics) -> HostSettings | None:
    """Return the settings of one host from all of its variable ``cluster``; None where something is wrong."""
    if node is None:
        return HostSettings.model_validate({})
    if not isinstance(node.value, dict):
        return None
    own = {key: item for key, item in node.value.items() if key in HostSettings.model_fields}
    return _read(HostSettings, replace(node, value=own), findings)


def _read(model: type[T], node: Node, findings: Diagnostics) -> T | None:
    before = len(findings.problems)
    try:
        settings = model.model_validate(plain(node, findings), context={"managed": _managed_paths})
    except ValidationError as error:
        told: set[int] = set()  # a union has an error for each of its types; the first one is enough
        for entry in error.errors(include_url=False):
            place, _ = descend(node, entry["loc"])
            if id(place) not in told or entry["type"] in ("missing", "extra_forbidden"):
                _tell(model, entry, node, findings)
            told.add(id(place))
        return None
    _refuse_coerced(node, settings.model_dump(mode="json"), findings)
    if len(findings.problems) > before:
        return None
    secrets = [one.written for one in decrypted(node)]
    return settings.with_decrypted(secrets) if secrets else settings


def _managed_paths() -> tuple[str, ...]:
    from clusterctl.components.products import MANAGED

    return MANAGED


def merged(nodes: Sequence[Node]) -> Node | None:
    """Return one tree of several, from weak to strong: maps are merged key by key, all else is replaced."""
    return reduce(_over, nodes) if nodes else None


def _over(weak: Node, strong: Node) -> Node:
    if not (isinstance(weak.value, dict) and isinstance(strong.value, dict)):
        return strong
    below = weak.value
    return replace(strong, value=below | {
        key: _over(below[key], item) if key in below else item for key, item in strong.value.items()})


def refuse_cluster_wide(node: Node, findings: Diagnostics) -> None:
    """Refuse settings of a group or host that are one for the whole cluster, or none at all."""
    if not isinstance(node.value, dict):
        findings.refuse(node.place, f"{node.path}: a map is wanted, not {node.kind}")
        return
    for key, item in node.value.items():
        if key in HostSettings.model_fields:
            continue
        if key in Settings.model_fields:
            findings.refuse(item.key, f"{item.path}: this setting is one for the whole cluster; of a group or host may be set "
                            f"{', '.join(HostSettings.model_fields)}", "move it to all.vars or group_vars/all",
                            code="inventory.cluster-wide")
        else:
            findings.refuse(item.key, f"{item.path}: unknown key{did_you_mean(key, HostSettings.model_fields)}; known are "
                            f"{', '.join(HostSettings.model_fields)}")


def _refuse_coerced(node: Node, taken: Any, findings: Diagnostics) -> None:
    """Refuse what pydantic kindly made something else of, such as "yes" of true: editors go by the schema."""
    if isinstance(node.value, dict):
        for key, item in node.value.items():
            _refuse_coerced(item, taken[key], findings)
    elif isinstance(node.value, list):
        for item, inner in zip(node.value, taken, strict=True):
            _refuse_coerced(item, inner, findings)
    elif type(taken) is not type(node.value) and type(taken) in _KINDS and not node.odd:
        message, hint = _wrong_type(_KINDS[type(taken)], node)
        findings.refuse(node.place, f"{node.path}: {message}", hint)


def read_versions(settings: Settings, node: Node | None, findings: Diagnostics) -> Versions | None:
    """The versions that the settings lead to."""
    products = [name for name in Versions.model_fields if name != "kubernetes"]
    unknown = [name for name in settings.versions if name not in products]
    for name in unknown:
        at = descend(node, ("versions", name))[0] if node else None
        hint = "it is cluster.kubernetes" if name == "kubernetes" else f"products are {', '.join(products)}"
        if at:
            findings.refuse(at.key, f"{at.path}: no such product{did_you_mean(name, products)}", hint)
    if unknown:
        return None
    try:
        return known_versions(settings.kubernetes, **settings.versions)
    except ValueError as error:
        at = descend(node, ("kubernetes",))[0] if node else None
        place = at.place if at else Place("cluster")
        why = "the decrypted value does not fit" if at and at.secret else _first_line(error)
        findings.refuse(place, f"{at.path if at else 'cluster'}: {why}")
        return None


def _first_line(error: ValueError) -> str:
    return str(error).splitlines()[0]


def plain(node: Node, findings: Diagnostics) -> object:
    """Return the values without their positions; surprising YAML 1.1 readings are refused."""
    if isinstance(node.value, dict):
        return {key: plain(item, findings) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item, findings) for item in node.value]
    if node.sealed:
        refuse_sealed(node, findings)
    elif node.odd:
        findings.refuse(node.place, f"{node.path}: YAML has its own reading of {node.shown}",
                        f"quote it: {quoted(node)}, or write the number in decimal digits")
    elif isinstance(node.value, str) and is_template(node.value) and not _CODE.search(node.path):
        findings.refuse(node.place, f"{node.path}: {node.shown} is a template", TEMPLATE_HINT)
    return node.value


def descend(node: Node, loc: Iterable[str | int]) -> tuple[Node, list[str | int]]:
    """Return the deepest node on a way, and the steps that led to it; the steps that pydantic adds for unions are left out."""
    steps: list[str | int] = []
    for step in loc:
        if inner := _inner(node, step):
            node = inner
            steps.append(step)
    return node, steps


def _inner(node: Node, step: str | int) -> Node | None:
    if isinstance(node.value, dict) and isinstance(step, str):
        return node.value.get(step)
    if isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
        return node.value[step]
    return None


def _tell(model: type[BaseModel], entry: Mapping[str, Any], root: Node, findings: Diagnostics) -> None:
    kind, loc = entry["type"], entry["loc"]
    node, steps = descend(root, loc)
    if node.odd or node.sealed:
        return  # reported already
    if kind == "extra_forbidden":
        known = _fields(model, steps[:-1])
        message = f"unknown key{did_you_mean(str(steps[-1]), known)}" + (f"; known are {', '.join(known)}" if known else "")
        findings.refuse(node.key, f"{node.path}: {message}")
    elif kind == "missing":
        findings.refuse(node.key, f"{node.path}: {loc[-1]} is missing")
    else:
        is_key = loc[-1:] == ("[key]",)
        hides = node.secret and kind not in _REFERABLE
        message, hint = ("the decrypted value does not fit", "") if hides else _words(kind, node, entry)
        findings.refuse(node.key if is_key else node.place, f"{node.path}: {message}", hint,
                         code=kind if _is_ours(kind) else "")


def _is_ours(kind: str) -> bool:
    """Return whether a kind of error is a code of clusterctl's own validators."""
    return kind.startswith("inventory.")


def _words(kind: str, node: Node, entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return the message and the hint for one of pydantic's error types."""
    context = entry.get("ctx", {})
    if _is_ours(kind):
        setting = ".".join(str(step) for step in entry["loc"] if step != "word")  # the tag of a union's branch
        return entry["msg"], f"write cluster.{setting}: {{env: VARIABLE}}" if kind in _REFERABLE else ""
    if kind == "ip_v4_network" and isinstance(node.value, str):
        return f"{node.shown} is not an IPv4 network{_network_meant(node.value)}", ""
    if kind == "value_error":
        return str(context.get("error", entry["msg"])).removeprefix("Value error, "), ""
    if kind == "literal_error":
        wanted = str(context["expected"])
        words = wanted.replace("'", "").replace(",", "").split()
        return f"{node.shown} is not one of {wanted}{did_you_mean(str(node.value), words)}", ""
    if kind in _BOUNDS:
        bound, limit = _BOUNDS[kind]
        return f"{node.shown} is out of range: it must be {bound} {context[limit]}", ""
    if kind == "string_pattern_mismatch":
        return f"{node.shown} does not have the form {context['pattern']}", ""
    return _wrong_type(kind, node)


def _wrong_type(kind: str, node: Node) -> tuple[str, str]:
    wanted = _WANTED.get(kind, "another type of value")
    if wanted == "text" and isinstance(node.value, bool | int | float):
        return f"text is wanted, but {node.shown} is read as {node.kind}", f"quote it: {quoted(node)}"
    if isinstance(node.value, str):
        return f"{wanted} is wanted, not {node.shown}", ""
    return f"{wanted} is wanted, not {node.kind}", "" if node.value is not None else "give a value or remove the key"


def _network_meant(value: str) -> str:
    try:
        return f" (did you mean {ipaddress.IPv4Network(value, strict=False)}?)"
    except ValueError:
        return ""


def _fields(model: type[BaseModel], steps: Iterable[str | int]) -> list[str]:
    """The keys that are known at a place in the settings."""
    current: Any = model
    for step in steps:
        if inner := _model_in(current):
            field = inner.model_fields.get(str(step))
            current = field.annotation if field else None
        else:  # The values of a map, the items of a list.
            current = next((one for one in reversed(get_args(current)) if one is not Ellipsis), None)
    found = _model_in(current)
    return list(found.model_fields) if found else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) is Annotated:
        return _model_in(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return next(filter(None, map(_model_in, get_args(annotation))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
