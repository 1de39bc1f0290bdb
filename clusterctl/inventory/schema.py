"""The JSON Schema of an inventory file, for editors: what can be said without knowing the other files."""

from __future__ import annotations

from typing import Any

from clusterctl.inventory import names
from clusterctl.inventory.hosts import WAYS
from clusterctl.model import Settings

_TEXT = {"type": "string", "minLength": 1}
_ADDRESS = {"type": "string", "format": "ipv4", "pattern": r"^\d{1,3}(\.\d{1,3}){3}$"}
_FLAG = {"anyOf": [{"type": "boolean"}, {"enum": ["yes", "no", "true", "false"]}]}
_LABELS = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}}
_TAINTS = {"type": "array", "items": {"anyOf": [
    {"type": "string", "pattern": "^[^=:]+(=[^:]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$"}, {"$ref": "#/$defs/Taint"},
]}}
_TAINT = {
    "type": "object",
    "properties": {
        "key": _TEXT,
        "value": {"type": "string"},
        "effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
    },
    "required": ["key", "effect"],
    "additionalProperties": False,
}
_VARIABLES: dict[str, dict[str, Any]] = {
    "ssh_address": _TEXT | {"description": "IPv4 address or DNS name that SSH connects to"},
    "port": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string", "pattern": "^[1-9][0-9]*$"}]},
    "user": _TEXT | {"description": "whom to log in as; root where it is not set, else sudo is used"},
    "private_key": {"type": "string", "description": "~ is the home, else relative to the inventory's folder"},
    "become": _FLAG,
    **{what: {"enum": list(wanted)} for what, wanted in WAYS.items()},
    "common_args": {"type": "string", "description": "options for ssh, such as -o ProxyJump=ops@bastion"},
    "extra_args": {"type": "string"},
    "timeout": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 300}, {"type": "string", "pattern": "^[1-9][0-9]*$"}]},
    "network_namespace": _TEXT | {"description": "network namespace of this machine to connect from (the lab)"},
    "host_key": _TEXT | {"description": "pinned fingerprint (SHA256:...) or public key (ssh-ed25519 AAAA...)"},
    "address": _ADDRESS | {"description": "the node's address in the cluster's network, where it is not ansible_host"},
    "ip": _ADDRESS | {"description": "kubespray's name for clusterctl_address"},
    "access_ip": _ADDRESS | {"description": "kubespray's; the node's address where ip is not set"},
    "labels": _LABELS | {"description": "labels of the node"},
    "taints": _TAINTS | {"description": "taints of the node"},
}


def json_schema() -> dict[str, object]:
    """The schema, draft 2020-12."""
    settings = Settings.model_json_schema()
    definitions = settings.pop("$defs", {})
    host = _host_variables()
    everywhere = {**host, "properties": {**host["properties"], "cluster": {"$ref": "#/$defs/Settings"}}}
    definitions |= {
        "Settings": settings, "Taint": _TAINT, "Variables": host, "AllVariables": everywhere, "Group": _group("Variables"),
        "All": _group("AllVariables"),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "clusterctl inventory",
        "description": "An Ansible inventory in YAML; the cluster's settings are the variable cluster in all.vars",
        "type": "object",
        "properties": {"all": {"$ref": "#/$defs/All"}},
        "additionalProperties": {"$ref": "#/$defs/Group"},
        "minProperties": 1,
        "$defs": definitions,
    }


def _host_variables() -> dict[str, Any]:
    """Variables of groups and hosts: ours by their types, secrets not at all, others as they like."""
    properties: dict[str, Any] = {}
    for what, aliases in names.ALIASES.items():
        properties |= dict.fromkeys(aliases, _VARIABLES[what])
    properties |= dict.fromkeys(sorted(names.SECRETS), {"not": {}, "description": "secrets do not belong in an inventory"})
    ours = "|".join(sorted(name.removeprefix("clusterctl_") for name in names.OURS))
    return {"type": ["object", "null"], "properties": properties, "patternProperties": {f"^clusterctl_(?!({ours})$)": False}}


def _group(variables: str) -> dict[str, Any]:
    return {
        "type": ["object", "null"],
        "properties": {
            "hosts": {"type": ["object", "null", "string"], "additionalProperties": {"$ref": "#/$defs/Variables"}},
            "vars": {"$ref": f"#/$defs/{variables}"},
            "children": {"type": ["object", "null", "string"], "additionalProperties": {"$ref": "#/$defs/Group"}},
        },
        "additionalProperties": False,
    }
