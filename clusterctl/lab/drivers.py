"""The drivers by name."""

from __future__ import annotations

from clusterctl.lab.driver import Driver
from clusterctl.lab.host import check_host
from clusterctl.lab.nspawn import Nspawn
from clusterctl.lab.qemu import Qemu

_DRIVERS: dict[str, Driver] = {"nspawn": Nspawn(), "qemu": Qemu()}


def driver_of(name: str) -> Driver:
    """Return the driver ``name`` of a lab's spec."""
    return _DRIVERS[name]


def check_driver(name: str) -> Driver:
    """Return a driver that can run machines here; raises :class:`Refused` where this host lacks a program for it."""
    driver = driver_of(name)
    check_host(driver.packages)
    return driver
