# shellcheck shell=sh disable=SC2154
# How additions of the inventory are undone. Runs after undo_system.

remaining_added() {
	[ ! -e "$added" ] || awk -F "$tab" '{print $1 " " $2}' "$added"
}

# undo_added [KIND NAME...]: remove these additions, or all, and restore the state before them.
undo_added() {
	[ -e "$added" ] || return 0
	wanted_kind=${1:-}
	[ $# -eq 0 ] || shift
	# Files before packages: a package manager removes a package's folders only where they are empty.
	{ grep -v "^package$tab" "$added" || :; grep "^package$tab" "$added" || :; } >"$work/added"
	while IFS=$tab read -r kind name said; do
		if [ -n "$wanted_kind" ]; then
			[ "$kind" = "$wanted_kind" ] || continue
			is_among "$name" "$@" || continue
		fi
		"undo_one_$kind" "$name" "$said" </dev/null
		forget_added "$kind" "$name"
	done <"$work/added"
	# What came with a package that is gone by now may go as well; a list of what may go was made before that.
	# shellcheck disable=SC2046 # words
	[ -n "$wanted_kind" ] || undo_packages $(remaining_packages | sed -n "s/^packages$tab//p")
}

is_among() {
	sought=$1
	shift
	for word; do
		[ "$word" != "$sought" ] || return 0
	done
	return 1
}

# A package that was there before stays, and so does one that others need by now.
undo_one_package() {
	[ "$2" != installed ] || return 0
	names=$(installed_as "$1")
	if [ -n "$names" ]; then
		# shellcheck disable=SC2086 # words
		! takes_others " $names" $names || return 0
		# shellcheck disable=SC2086 # words
		purge_packages $names
	fi
	if [ -n "$2" ]; then
		# Keep them out of the list of packages that a reset removes.
		cp -- "$state/packages" "$work/packages"
		# shellcheck disable=SC2086 # words
		add_packages $2 || die "these packages, which $1 had replaced, cannot be installed again: $2"
		cp -- "$work/packages" "$state/packages"
	fi
}

undo_one_module() {
	[ "$2" = loaded ] || modprobe -r -- "$1" 2>/dev/null || :
}

undo_one_sysctl() {
	[ ! -e "/proc/sys/$(printf %s "$1" | tr . /)" ] || put_sysctl "$1" "$2"
}

undo_one_hostname() {
	put_hostname "${2%% *}"
	if [ -n "${2#* }" ]; then printf '%s\n' "${2#* }" >/etc/hostname; else rm -f /etc/hostname; fi
}

undo_one_file() {
	rm -f -- "$1"
	[ "$2" != kept ] || mv -- "/etc/clusterctl/before$1" "$1"
	# containerd takes a folder without hosts.toml for another kind of configuration.
	case $1 in /etc/containerd/certs.d/*) rmdir -- "${1%/*}" 2>/dev/null || : ;; esac
}

undo_one_restart() {
	rm -f -- "$state/stamps/$1" "$state/stamps/$1.old"
	systemctl daemon-reload
	systemctl try-restart -- "$1" 2>/dev/null || :
}

undo_one_service() {
	undo_one_restart "$1"
	case $2 in *enabled*) ;; *) systemctl disable --quiet -- "$1" 2>/dev/null || : ;; esac
	case $2 in *runs*) ;; *) systemctl stop -- "$1" 2>/dev/null || : ;; esac
}

undo_one_hook() {
	rm -f -- "$hooks/$1"
}
