"""Throw-away machines for trying things out: real systemd machines on one Linux host, with systemd-nspawn."""

from clusterctl.lab.lab import Lab
from clusterctl.lab.removal import labs_on_host, remove_lab
from clusterctl.lab.state import LabSpec, Machine

__all__ = ["Lab", "LabSpec", "Machine", "labs_on_host", "remove_lab"]
