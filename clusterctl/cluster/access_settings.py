"""How machines reach what lies outside of the cluster: proxies and registries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from clusterctl.cluster.machine_settings import Model, full

_HOST = r"([a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
URL = re.compile(rf"(?i)https?://{_HOST}(/[!\"$->@-~]*)?")
"""An http(s) URL without a user."""
PROXY = re.compile(r"(?i)https?://([!#-&(-.0-;=?A-Z^_a-z~]+@)?" + _HOST + "/?")
"""The URL of a proxy, also with a user and password, all of it safe within single quotes."""
_BYPASS = re.compile(r"[A-Za-z0-9._*:/-]+")
_REGISTRY = re.compile(rf"_default|{_HOST}")
_IMAGE_REGISTRY = re.compile(rf"{_HOST}(/[a-z0-9]+([._-][a-z0-9]+)*)*")


def kind_of(value: object) -> Literal["map", "word"]:
    """Return which branch of a union of a map and a text a value belongs to."""
    return "map" if isinstance(value, Mapping | Model) else "word"


class Reference(Model):
    """Where the controller finds a secret: in a variable of its environment, in a file, or in what a command prints."""

    env: Annotated[str, full(re.compile("[A-Za-z_][A-Za-z0-9_]*"), "the name of a variable")] | None = None
    file: str | None = Field(None, description="file whose first line is the secret, relative to the inventory's folder")
    command: str | None = Field(None, description="program and arguments, run in the inventory's folder, that print the secret")

    @model_validator(mode="after")
    def _one(self) -> Reference:
        if sum(value is not None for value in (self.env, self.file, self.command)) != 1:
            raise PydanticCustomError("inventory.secret-reference", "a secret is named by one of env, file and command")
        return self


def _no_text(value: Any) -> Any:
    if not isinstance(value, Mapping | Model):
        raise PydanticCustomError("inventory.secret", "a secret does not belong in an inventory: name it by env, file or command")
    return value


def _proxy_url(value: str) -> str:
    """Do not repeat the URL: a password may be in it."""
    if "@" in value:
        raise PydanticCustomError("inventory.proxy-credentials", "a proxy's URL with a user or password is a secret: name it "
                                  "by env, file or command")
    if not PROXY.fullmatch(value):
        raise ValueError("is not the URL of a proxy; write it as http://proxy.example:3128")
    return value


def _url(value: str) -> str:
    if not URL.fullmatch(value):
        raise ValueError("is not an http(s) URL without user and password; write it as https://mirror.example")
    return value


HttpUrl = Annotated[str, AfterValidator(_url)]
ProxyUrl = Annotated[
    Annotated[str, AfterValidator(_proxy_url), Tag("word")] | Annotated[Reference, Tag("map")], Discriminator(kind_of)]


class Proxy(Model):
    """Proxies of package managers, of containerd and of downloads."""

    http: ProxyUrl | None = Field(None, description="proxy of http:// URLs; with a password: env, file or command")
    https: ProxyUrl | None = Field(None, description="proxy of https:// URLs; with a password: env, file or command")
    no_proxy: tuple[Annotated[str, full(_BYPASS, "a host, a domain or a network")], ...] = ()


class Mirror(Model):
    """A host that is asked for images before the registry itself."""

    url: HttpUrl
    override_path: bool = Field(False, description="the URL's path is the API's root; /v2 is not added")
    ca: str | None = Field(None, description="file of certificates, relative to the inventory's folder")
    client_cert: str | None = Field(None, description="file of the client certificate")
    client_key: str | None = Field(None, description="file of its key")
    skip_verify: bool = Field(False, description="accept any certificate")

    @model_validator(mode="after")
    def _pair(self) -> Mirror:
        if (self.client_cert is None) != (self.client_key is None):
            raise PydanticCustomError("inventory.client-certificate", "client_cert and client_key belong together")
        return self


class Registry(Model):
    """How containerd reaches the images of one registry."""

    mirrors: tuple[Mirror, ...] = ()
    ca: str | None = Field(None, description="file of certificates, relative to the inventory's folder")
    skip_verify: bool = Field(False, description="accept any certificate")
    username: str | None = None
    password: Annotated[Reference, BeforeValidator(_no_text)] | None = None

    @model_validator(mode="after")
    def _pair(self) -> Registry:
        if (self.username is None) != (self.password is None):
            raise PydanticCustomError("inventory.registry-credentials", "username and password belong together")
        return self


RegistryName = Annotated[str, full(_REGISTRY, "the name of a registry such as registry.example:5000, or _default")]
ImageRegistry = Annotated[str, full(_IMAGE_REGISTRY, "a registry and path such as registry.example/k8s")]
