#!/bin/sh
# shellcheck disable=SC2034 # of the functions that follow
# The beginning of a program that a unit runs at boot, without a controller. Functions of other files follow.
set -eu
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
state=/var/lib/clusterctl
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
