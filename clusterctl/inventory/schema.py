"""The JSON Schema of an inventory file, for editors: what can be said without knowing the other files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from clusterctl.cluster.host_settings import HostSettings
from clusterctl.cluster.model import DNS_LABEL, DNS_NAME, FLAG, MINOR, SHA256, VERSION, Settings
from clusterctl.inventory import names
from clusterctl.inventory.hosts import HOST_KEY, LABEL_VALUE, USER, WAYS

ID = "https://clusterctl.dev/inventory.schema.json"
HOST_NAMES = r"^([A-Za-z0-9._-]|\[[0-9A-Za-z]*:[0-9A-Za-z]+(:[0-9]+)?\])+(:[0-9]+)?$"
"""DNS names and addresses, also with ranges such as w-[1:5], and with a port."""
_NETWORK = r"^\d{1,3}(\.\d{1,3}){3}/(\d{1,2}|\d{1,3}(\.\d{1,3}){3})$"
_PATTERNS = {
    "Settings.name": f"^{DNS_LABEL.pattern}$", "Settings.kubernetes": f"^({MINOR.pattern}|{VERSION.pattern})$",
    "NetworkSettings.pods": _NETWORK, "NetworkSettings.services": _NETWORK, "NetworkSettings.domain": f"^{DNS_NAME.pattern}$",
    "Endpoint.address": f"^{DNS_NAME.pattern}$",
}
_VALUES = {"Settings.versions": f"^{VERSION.pattern}$", "ArtifactSettings.pins": f"^{SHA256.pattern}$",
           "KubeletSettings.labels": f"^{LABEL_VALUE.pattern}$"}
"""Patterns of the values of maps."""

_TEXT = {"type": "string", "minLength": 1}
_ADDRESS = {"type": "string", "format": "ipv4", "pattern": r"^\d{1,3}(\.\d{1,3}){3}$"}


def _matching(pattern: re.Pattern[str]) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^({pattern.pattern})$"}


_FLAG = {"anyOf": [{"type": "boolean"}, {"enum": ["yes", "no", "true", "false"]}]}
_LABELS = {"type": "object", "additionalProperties": {"anyOf": [
    _matching(LABEL_VALUE), {"type": ["boolean", "integer"]}]}}
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
    "user": _matching(USER) | {"description": "the user to log in as, with sudo where it is not root; "
                               "by default ssh_config's User, else the login name"},
    "private_key": {"type": "string", "description": "~ is the home, else relative to the inventory's folder"},
    "become": _FLAG,
    **{what: {"enum": list(wanted)} for what, wanted in WAYS.items()},
    "ssh_args": {"type": "string", "description": "options for ssh; those that change nothing here are noted"},
    "common_args": {"type": "string", "description": "options for ssh, such as -o ProxyJump=ops@bastion"},
    "extra_args": {"type": "string"},
    "timeout": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 300}, {"type": "string", "pattern": "^[1-9][0-9]*$"}]},
    "network_namespace": _matching(DNS_LABEL) | {"description": "network namespace of this machine to connect from (the lab)"},
    "host_key": _matching(HOST_KEY) | {"description": "pinned fingerprint (SHA256:...) or public key (ssh-ed25519 AAAA...)"},
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
    some = HostSettings.model_json_schema()
    definitions |= some.pop("$defs", {})
    settings["description"], some["description"] = "The cluster's settings.", "Settings of a group or host."
    variables = _host_variables()
    host, everywhere = ({**variables, "properties": {**variables["properties"], "cluster": {"$ref": f"#/$defs/{name}"}}}
                        for name in ("HostSettings", "Settings"))
    definitions |= {
        "Settings": settings, "HostSettings": some, "Taint": _TAINT,
        "Variables": host, "AllVariables": everywhere, "Group": _group("Variables"),
        "All": _group("AllVariables"),
    }
    definitions["KubeletSettings"]["properties"]["taints"] = dict(_TAINTS)
    texts = _texts()
    texts |= {"HostSettings": texts["Settings"], "Variables": texts["AllVariables"]}
    for name, definition in definitions.items():
        _describe(name, definition, texts.get(name, {}))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "clusterctl inventory",
        "description": "An Ansible inventory in YAML; the cluster's settings are the variable cluster in all.vars",
        "type": "object",
        "properties": {"all": {"$ref": "#/$defs/All", "description": "all hosts; its vars hold the cluster's settings"}},
        "additionalProperties": {"$ref": "#/$defs/Group"},
        "minProperties": 1,
        "$defs": definitions,
    }


def _texts() -> dict[str, dict[str, str]]:
    """Return the descriptions of properties, by definition and name."""
    return dict(yaml.safe_load(Path(__file__).with_name("descriptions.yaml").read_text(encoding="utf-8")))


def _describe(name: str, definition: dict[str, Any], texts: dict[str, str]) -> None:
    """Give the properties of a definition their descriptions and patterns."""
    for key, entry in definition.get("properties", {}).items():
        path = f"{name}.{key}"
        if key in texts:
            entry.setdefault("description", texts[key])
        if path in _PATTERNS:
            for one in entry.get("anyOf", [entry]):
                if one.get("type") == "string":
                    one["pattern"] = _ADDRESS["pattern"] if one.get("format") == "ipv4" else _PATTERNS[path]
        if path in _VALUES:
            entry["additionalProperties"]["pattern"] = _VALUES[path]
        if key == "extra_args":
            entry["propertyNames"] = {"pattern": f"^{FLAG.pattern}$"}


def _host_variables() -> dict[str, Any]:
    """Variables of groups and hosts: ours by their types, secrets not at all, others as they like."""
    properties: dict[str, Any] = {}
    texts = _texts()["variables"]
    for what, aliases in names.ALIASES.items():
        properties |= dict.fromkeys(aliases, {**({"description": texts[what]} if what in texts else {}), **_VARIABLES[what]})
    properties |= dict.fromkeys(sorted(names.SECRETS), {"not": {}, "description": "secrets do not belong in an inventory"})
    ours = "|".join(sorted(name.removeprefix("clusterctl_") for name in names.OURS))
    return {"type": ["object", "null"], "properties": properties, "patternProperties": {f"^clusterctl_(?!({ours})$)": False}}


def _group(variables: str) -> dict[str, Any]:
    texts = _texts()["groups"]
    return {
        "type": ["object", "null"],
        "properties": {
            "hosts": {"type": ["object", "null", "string"], "additionalProperties": {"$ref": "#/$defs/Variables"},
                      "propertyNames": {"pattern": HOST_NAMES}, "description": texts["hosts"]},
            "vars": {"$ref": f"#/$defs/{variables}", "description": texts["vars"]},
            "children": {"type": ["object", "null", "string"], "additionalProperties": {"$ref": "#/$defs/Group"},
                         "description": texts["children"]},
        },
        "additionalProperties": False,
    }
