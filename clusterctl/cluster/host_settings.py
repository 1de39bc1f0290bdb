"""The settings that may differ between groups and hosts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PrivateAttr, Tag

from clusterctl.cluster.access_settings import HttpUrl, Proxy, Registry, RegistryName, kind_of
from clusterctl.cluster.machine_settings import Files, Hooks, ModuleName, PackageName, SysctlKey, SysctlValue, full
from clusterctl.cluster.machine_settings import Model as Model

_WORD = "[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
FLAG = re.compile(r"[a-z][a-z0-9-]*")
_KEY = re.compile(f"({DNS_NAME.pattern}/)?{_WORD}")


FlagName = Annotated[str, full(FLAG, "the name of a flag, without dashes in front")]
FlagValue = Annotated[str, full(re.compile(r"[^\x00-\x1f\x7f]*"), "one line of text without control characters")]
LabelKey = Annotated[str, full(_KEY, "the name of a label", 317)]
LabelValue = Annotated[str, full(re.compile(f"({_WORD})?"), "a label's value (letters, digits, '-', '_' and '.', at most 63)")]


Quantity = Annotated[str, full(re.compile(r"[0-9]+(\.[0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?"), "a quantity such as 500m or 1Gi", 30)]


class Taint(Model):
    """A node taint, as ``kubectl taint`` knows it."""

    key: LabelKey
    value: LabelValue = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


def _parts(value: Any) -> Any:
    """Return the parts of a taint that is written as ``key=value:Effect``."""
    if not isinstance(value, str):
        return value
    front, _, effect = value.rpartition(":")
    key, _, inner = front.partition("=")
    return {"key": key, "value": inner, "effect": effect}


def _once(taints: tuple[Taint, ...]) -> tuple[Taint, ...]:
    places = [(taint.key, taint.effect) for taint in taints]
    if twice := [key for key, effect in places if places.count((key, effect)) > 1]:
        raise ValueError(f"{twice[0]} is there twice with one effect, and a node has one taint of each key and effect")
    return taints


class ComponentSettings(Model):
    """Flags added to, or put in place of, a component's own."""

    extra_args: Mapping[FlagName, FlagValue] = Field(default_factory=dict)


def _named_by_the_inventory(flags: Mapping[str, str]) -> Mapping[str, str]:
    """A node under another name than its host's would be a second node to every verb."""
    if "hostname-override" in flags:
        raise ValueError("hostname-override: a node has the name of its host in the inventory; rename the host instead")
    return flags


Reserved = Mapping[Literal["cpu", "memory", "ephemeral-storage"], Quantity]
Reserves = Annotated[
    Annotated[Literal["auto", "none"], Tag("word")] | Annotated[Reserved, Tag("map")], Discriminator(kind_of)]


class KubeletSettings(ComponentSettings):
    """Settings of kubelets and of Node objects."""

    extra_args: Annotated[Mapping[FlagName, FlagValue], AfterValidator(_named_by_the_inventory)] = Field(default_factory=dict)
    max_pods: int = Field(110, ge=1, le=1000)
    config: Mapping[str, object] = Field(default_factory=dict, description="KubeletConfiguration fields, merged over ours")
    labels: Mapping[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: Mapping[LabelKey, str] = Field(default_factory=dict)
    reserves: Reserves = Field("auto", description="kubeReserved: computed from memory and processors, none, or these quantities")
    taints: Annotated[tuple[Annotated[Taint, BeforeValidator(_parts)], ...], AfterValidator(_once)] = ()


class HostSettings(Model):
    """The part of the variable ``cluster:`` that any group and host may have."""

    kubelet: KubeletSettings = KubeletSettings()
    proxy: Proxy = Proxy()
    mirror: HttpUrl | None = Field(
        None, description="http(s) base that machines fetch programs from, in place of artifacts.mirror or upstream")
    registries: Mapping[RegistryName, Registry] = Field(default_factory=dict)
    packages: tuple[PackageName, ...] = ()
    modules: tuple[ModuleName, ...] = ()
    sysctls: Mapping[SysctlKey, int | SysctlValue] = Field(default_factory=dict)
    files: Files = ()
    hooks: Hooks = ()
    time: Literal["chrony", "none"] = Field("none", description="time service: the distribution's chrony, or the machine's own")
    _decrypted: frozenset[str] = PrivateAttr(frozenset())

    def with_decrypted(self, texts: Iterable[str]) -> Self:
        """Return the settings, with texts of ansible-vault that may not be shown. Of several lines each counts."""
        stripped = {line.strip(): len(text.strip().split("\n")) for text in texts for line in text.strip().splitlines()}
        lines = [line for line, count in stripped.items() if len(line) > 3 or count == 1]
        forms = {form for line in lines for form in (line, json.dumps(line)[1:-1], line.replace("%", "%%"))} - {""}
        found = self.model_copy()
        found._decrypted = self._decrypted | forms
        return found

    def reveals(self, text: str) -> bool:
        """Whether a text holds one that ansible-vault decrypted."""
        return any(secret in text for secret in self._decrypted)
