# shellcheck shell=sh disable=SC2086,SC2154
# How the operating system's part is undone: packages, files, users, settings. Runs after undo.

# --- packages ---

# Those that came with us and are there still.
came_packages() {
	if [ ! -e "$before/packages" ] || [ ! -e "$state/packages" ]; then return 0; fi
	installed_packages | grep -xF -f "$state/packages" | grep -vxF -f "$before/packages" || :
}

# Tables that are neither ours nor iptables' nor were there before us.
foreign_tables() {
	nft list tables 2>/dev/null | while read -r what family table; do
		case " $our_tables filter nat mangle raw security " in
		*" $table "*) ;;
		*) recorded tables "$what $family $table" || echo "$family $table" ;;
		esac
	done
}

# would_remove NAME...: all that goes when these go.
would_remove() {
	if command -v apt-get >/dev/null 2>&1; then
		apt-get -s -o APT::Get::AutomaticRemove=false purge -- "$@" 2>/dev/null | sed -n -E 's/^(Purg|Remv) ([^ :]*).*/\2/p'
	elif ! rpm -e --test -- "$@" >"$work/needed" 2>&1; then
		sed -n 's/.* is needed by (installed) //p' "$work/needed" | xargs -r rpm -q --queryformat '%{NAME}\n' | grep . || echo 'what needs them'
	fi
}

# The package has a service that is in use by others, or rules of others that only this package can list.
package_in_use() {
	if [ "$1" = nftables ] && [ -n "$(foreign_tables)" ]; then return 0; fi
	for unit in $(package_units "$1"); do
		if systemctl is-enabled --quiet -- "$unit" 2>/dev/null || systemctl is-active --quiet -- "$unit"; then return 0; fi
	done
	return 1
}

# remaining_packages: what came with us goes, but for what others need or use by now.
remaining_packages() {
	list=
	for name in $(came_packages); do
		if package_in_use "$name"; then printf 'kept\t%s\tit is in use\n' "$name"; else list="$list $name"; fi
	done
	while [ -n "$list" ] && takes_others "$list" $list; do
		rest=
		for name in $list; do
			if takes_others "$list" "$name"; then printf 'kept\t%s\tothers need it\n' "$name"; else rest="$rest $name"; fi
		done
		[ "$rest" != "$list" ] || rest=
		list=$rest
	done
	for name in $list; do printf 'packages\t%s\n' "$name"; done
	! fetched_lists || printf 'packages\t/var/lib/apt/lists\n'
}

# takes_others ALLOWED NAME...: whether something that is not in ALLOWED would go too.
takes_others() {
	allowed=$1
	shift
	would_remove "$@" | while read -r name; do
		case "$allowed " in
		*" $name "*) ;;
		*) echo others ;;
		esac
	done | grep -q others
}

# Whether a machine that had never fetched apt's lists did so for us.
fetched_lists() {
	[ -e "$before/lists" ] && ! grep -q '_Packages' "$before/lists" && ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1
}

# undo_packages NAME...: of these what may go, and nothing else.
undo_packages() {
	going=
	for name in $(remaining_packages | sed -n "s/^packages$tab//p"); do
		case " $* " in
		*" $name "*) going="$going $name" ;;
		esac
	done
	going=$(printf '%s\n' $going | grep -v / || :)
	[ -z "$going" ] || purge_packages $going
	if fetched_lists; then
		for path in /var/lib/apt/lists/*; do recorded lists "${path##*/}" || rm -rf -- "$path"; done
	fi
}

purge_packages() {
	if command -v apt-get >/dev/null 2>&1; then
		DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 -o APT::Get::AutomaticRemove=false purge -- "$@"
	else
		rpm -e -- "$@"
	fi
}

# --- files ---

# new_entries FOLDER: what is in it and was not before us.
new_entries() {
	known=/dev/null
	[ ! -e "$before/used" ] || known=$before/used
	entries "$1" | grep -vxF -f "$known"
}

# folder_stays FOLDER: it is emptied and left, as it was there before us or is a file system of its own.
folder_stays() {
	was_there "$1" || mount_points | grep -qxF -- "$(readlink -f -- "$1")"
}

changed_configuration() {
	known=/dev/null
	[ ! -e "$before/contents" ] || known=$before/contents
	contents $our_configuration | comm -3 - "$known" | awk -v list="$our_configuration" '
		BEGIN {count = split(list, path, " ")}
		{for (i = 1; i <= count; i++) if (index($0 "/", " " path[i] "/")) seen[path[i]]}
		END {for (name in seen) print name}' | sort
}

remaining_files() {
	changed_configuration
	for path in $our_data; do
		[ -e "$path" ] || continue
		! folder_stays "$path" || [ -n "$(new_entries "$path")" ] || continue
		printf '%s\n' "$path"
	done
	leftover=$(ours_if_same /usr/sbin/policy-rc.d "$no_services")
	for word in $our_packaged_paths; do
		! package_gone "${word%%=*}" || leftover="$leftover ${word#*=}"
	done
	for path in $our_runtime $leftover; do
		if [ -e "$path" ] && ! was_there "$path"; then printf '%s\n' "$path"; fi
	done
	for path in $our_parents; do
		if [ -e "$before/paths" ] && [ -d "$path" ] && ! was_there "$path" && [ -z "$(ls -A "$path")" ]; then printf '%s\n' "$path"; fi
	done
}

# ours_if_same PATH TEXT: the path, where the file holds what we write there and nothing else.
ours_if_same() {
	[ "$(cat "$1" 2>/dev/null)" != "$2" ] || printf '%s\n' "$1"
}

undo_files() {
	logind=$(existing /etc/systemd/logind.conf.d/99-kubelet.conf)
	if [ -n "$(changed_configuration)" ]; then
		for path in $our_configuration; do clear_path "$path"; done
		[ ! -e "$before/kept.tar" ] || tar -xpf "$before/kept.tar" -C /
	fi
	remaining_files | while read -r path; do clear_path "$path"; done
	for path in $our_data; do
		words=$(grep " $path\$" "$before/paths" 2>/dev/null) || continue
		set -- $words
		put_mode "$path" "$1" "$2"
	done
	# Emptied just now.
	remaining_files | while read -r path; do rmdir -- "$path"; done
	systemctl daemon-reload
	[ -z "$logind" ] || systemctl kill --signal=HUP systemd-logind.service 2>/dev/null || :
	unload_modules
}

# clear_path PATH: gone, or empty where the folder itself is not ours. Never through a file system that is mounted in it.
clear_path() {
	if [ ! -e "$1" ] && [ ! -L "$1" ]; then return 0; fi
	place=$(readlink -f -- "$1")
	within=$(mount_points | awk -v place="$place/" 'index($0, place) == 1')
	[ -z "$within" ] || die "not removed: $within is mounted in $1"
	if [ -d "$1" ] && folder_stays "$1"; then
		new_entries "$1" | while IFS= read -r entry; do rm -rf -- "$entry"; done
	else
		rm -rf -- "$1"
	fi
}

# --- users, settings, modules ---

remaining_users() {
	for word in $our_users $our_packaged_users; do
		name=${word#*=}
		if ! grep -q "^$name:.*:/var/lib/$name:" /etc/passwd || recorded users "$name"; then continue; fi
		# A user that a package has made is the package's as long as that is there.
		if [ "$word" = "$name" ] || package_gone "${word%%=*}"; then echo "$name"; fi
	done
}

# package_gone NAME: it came with us and is there no more.
package_gone() {
	grep -qxF -- "$1" "$state/packages" 2>/dev/null && ! installed_packages | grep -qxF -- "$1"
}

undo_users() {
	for name in $(remaining_users); do
		userdel -- "$name"
		if grep -q "^$name:" /etc/group && ! recorded groups "$name"; then groupdel -- "$name"; fi
	done
}

remaining_settings() {
	[ -e "$before/sysctls" ] || return 0
	while read -r key value; do
		path=$(sysctl_path "$key")
		if [ -w "$path" ] && [ "$(cat "$path")" != "$value" ]; then printf '%s\t%s, was %s\n' "$key" "$(cat "$path")" "$value"; fi
	done <"$before/sysctls"
}

undo_settings() {
	remaining_settings | while read -r key _; do
		put_sysctl "$key" "$(sed -n "s/^$key //p" "$before/sysctls")"
	done
}

# What is in use stays; the kernel of a container is not its own.
unload_modules() {
	if [ ! -e "$before/modules" ] || systemd-detect-virt --quiet --container; then return 0; fi
	for module in $our_modules; do
		recorded modules "$module" || modprobe -r -- "$module" 2>/dev/null || :
	done
}
