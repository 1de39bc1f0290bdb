# shellcheck shell=sh disable=SC2034,SC2086,SC2154
# What clusterctl and its programs put on a machine, and what was there before them. Runs after the prelude and the lists of the products'
# footprints, our_units and others (footprint.py), which are words on purpose.

before=$state/before
mark=/etc/clusterctl/cluster

# Made on the way; they go where nothing else is in them.
our_parents="/run/netns $(for path in $our_configuration $our_data; do echo "${path%/*}"; done | sort -u)"
for unit in $our_units; do
	our_configuration="$our_configuration /etc/systemd/system/$unit /etc/systemd/system/$unit.d"
done
left_by_packages=
for word in $our_packaged_paths; do
	left_by_packages="$left_by_packages ${word#*=}"
done

# existing PATH...: those of them that are there, one a line.
existing() {
	for path; do
		if [ -e "$path" ] || [ -L "$path" ]; then printf '%s\n' "$path"; fi
	done
}

# entries FOLDER: what is in it, one a line. A file system of its own has a lost+found.
entries() {
	find "$1/" -mindepth 1 -maxdepth 1 ! -name lost+found
}

# contents PATH...: a line for every file with its digest, link with its target and folder below them, sorted.
contents() {
	existing "$@" | while read -r path; do
		find "$path" -type f -exec sha256sum -- {} +
		find "$path" -type d -exec printf 'folder %s\n' {} +
		find "$path" -type l | while read -r link; do printf '%s %s\n' "$(readlink -- "$link")" "$link"; done
	done 2>/dev/null | sort
}

# unit_states UNIT...: for each, whether it runs and whether it starts at boot.
unit_states() {
	systemctl show --property=Id,ActiveState,UnitFileState -- "$@" 2>/dev/null | awk -F = '
		function tell() {if (id != "") print id, runs, boot; id = ""; runs = "stopped"; boot = "manual"}
		$1 == "Id" {id = $2}
		$1 == "ActiveState" && $2 !~ /^(inactive|failed)$/ {runs = "runs"}
		$1 == "UnitFileState" && $2 ~ /^enabled/ {boot = "enabled"}
		NF == 0 {tell()}
		BEGIN {tell()}
		END {tell()}' | sort
}

# In the order of mounting. An end of a line stays escaped, as \012.
mount_points() {
	awk '{print $5}' /proc/self/mountinfo | sed "s/\\\\040/ /g; s/\\\\011/$tab/g; s/\\\\134/\\\\/g"
}

link_names() {
	ip -o link show | awk -F ': ' '{sub(/@.*/, "", $2); print $2}'
}

sysctl_path() {
	printf '/proc/sys/%s\n' "$1" | tr . /
}

# Whether something of ours is on this machine, also where the mark was removed by hand.
is_ours() {
	[ -e "$mark" ] || [ -e "$state/packages" ] || [ -d "$state/stamps" ]
}

# record_before IDENTITY SYSCTL...: whole or not at all, and never on a machine that is changed already.
record_before() {
	! is_ours || return 0
	for path in $our_unlinked; do
		[ ! -L "$path" ] || die "$path is a symbolic link: replace it by a folder, or mount the other file system there"
	done
	rm -rf -- "$before" "$before.new"
	mkdir -- "$before.new"
	printf '%s\n' "$1" >"$before.new/cluster"
	shift
	cd "$before.new" || exit
	for key; do
		path=$(sysctl_path "$key")
		[ ! -r "$path" ] || printf '%s %s\n' "$key" "$(cat "$path")"
	done >sysctls
	installed_packages >packages
	cut -d : -f 1 /etc/passwd >users
	cut -d : -f 1 /etc/group >groups
	ls -A /sys/module >modules
	link_names >links
	ip -4 route show >routes
	mount_points >mounts
	ls -A /var/lib/apt/lists >lists 2>/dev/null || :
	unit_states $our_units >units
	record_paths
	sync -f . 2>/dev/null || sync
	cd "$state" || exit
	mv -- "$before.new" "$before"
}

# Modes and owners of what is there, what is in data folders, and copies of configuration.
record_paths() {
	existing $our_configuration $our_data $our_runtime $left_by_packages $our_parents /usr/sbin/policy-rc.d | while read -r path; do
		stat -c '%a %u:%g %n' -- "$path"
	done >paths
	for path in $our_data; do
		[ ! -d "$path" ] || entries "$path"
	done >used
	# shellcheck disable=SC2094 # a file and a function of one name
	contents $our_configuration >contents
	existing $our_configuration >kept
	kept=$(cat kept)
	[ -z "$kept" ] || tar -cf kept.tar $kept
}

# record_firewall: once the programs that can list rules are there, and before any of ours writes one.
record_firewall() {
	if [ ! -d "$before" ] || { [ -e "$before/tables" ] && [ -d "$state/stamps" ]; }; then return 0; fi
	nft list tables >"$before/tables.new"
	mv -- "$before/tables.new" "$before/tables"
}

# recorded LIST WORD: whether a list of what was there before has a line.
recorded() {
	grep -qxF -- "$2" "$before/$1" 2>/dev/null
}

# was_there PATH: whether one of our paths was there before us.
was_there() {
	cut -d ' ' -f 3- "$before/paths" 2>/dev/null | grep -qxF -- "$1"
}
