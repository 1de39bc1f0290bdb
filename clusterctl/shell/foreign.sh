# shellcheck shell=sh disable=SC2086,SC2154
# What other installations left on a machine: one record 'foreign KIND PATH' each. Runs after facts.sh and the lists of the
# products' footprints.

observe_foreign() {
	unit_drop_ins
	cni_configurations
	linked_folders
	# Only a machine that is not ours yet is asked for the rest: each of these costs a fork.
	[ -z "$cluster" ] || return 0
	foreign_runtimes
	noexec_mounts
	if cloud_init_runs; then emit foreign cloud-init /run/cloud-init; fi
	firewalls
}

# Drop-ins of our units, those of 'systemctl set-property' too. An empty one, as a link to /dev/null, changes nothing; that of an etcd restore is ours, and is there until it ends.
unit_drop_ins() {
	for folder in /etc/systemd/system /etc/systemd/system.control /run/systemd/system /run/systemd/system.control \
		/usr/local/lib/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
		if [ "$folder" = /lib/systemd/system ] && [ -L /lib ]; then continue; fi
		for unit in $our_units; do
			for path in "$folder/$unit.d"/*.conf; do
				[ -s "$path" ] || continue
				case ${path##*/} in
					90-clusterctl-restore.conf) emit foreign restore "$path" ;;
					*) emit foreign drop-in "$path" ;;
				esac
			done
		done
	done
}

cni_configurations() {
	for path in /etc/cni/net.d/*; do
		case ${path##*/} in
			*.conf | *.conflist | *.json) [ ! -f "$path" ] || emit foreign cni "$path" ;;
		esac
	done
}

linked_folders() {
	for path in $our_unlinked; do
		[ ! -L "$path" ] || emit foreign link "$path"
	done
}

# Programs of packages, and units that are active: systemd keeps a link for each.
foreign_runtimes() {
	for path in $our_foreign_programs; do
		[ ! -x "$path" ] || emit foreign program "$path"
	done
	for unit in $our_foreign_units; do
		if is_active "$unit"; then emit foreign active "$unit"; fi
	done
	[ ! -S /run/docker/containerd/containerd.sock ] || emit foreign socket /run/docker/containerd/containerd.sock
}

is_active() {
	[ -L "/run/systemd/units/invocation:$1.service" ]
}

# The mounts that hold the folders of our programs and may not execute them.
noexec_mounts() {
	awk -v folders="/opt $our_executables" 'BEGIN {count = split(folders, paths, " ")}
		{for (i = 1; i <= count; i++) if (index(paths[i] "/", $5 == "/" ? $5 : $5 "/") == 1 && length($5) >= length(mount[i])) {mount[i] = $5; options[i] = $6}}
		END {for (i = 1; i <= count; i++) if (("," options[i] ",") ~ /,noexec,/ && !seen[mount[i]]++) print mount[i]}' \
		/proc/self/mountinfo | while read -r path; do emit foreign noexec "$path"; done
}

# Whether cloud-init is enabled and has neither ended nor failed in this boot.
cloud_init_runs() {
	[ -e /run/cloud-init/enabled ] && [ ! -e /run/cloud-init/result.json ] && ! systemctl --quiet is-failed cloud-final.service
}

# Firewalls that drop what they do not name.
firewalls() {
	if is_active firewalld; then emit foreign firewall firewalld; fi
	if [ -r /etc/ufw/ufw.conf ]; then
		while read -r setting || [ -n "$setting" ]; do
			case $setting in ENABLED=yes*) emit foreign firewall ufw ;; esac
		done </etc/ufw/ufw.conf
	fi
	if has_nf_tables && command -v nft >/dev/null 2>&1; then
		timeout 5 nft list chains 2>/dev/null | awk '$1 == "table" {name = $2 " " $3} /hook input .*policy drop;/ {print name; exit}' |
			while read -r name; do emit foreign firewall "nftables (table $name)"; done
	fi
	if grep -qsx filter /proc/net/ip_tables_names && [ "$(iptables-legacy -S INPUT 2>/dev/null | head -n 1)" = '-P INPUT DROP' ]; then
		emit foreign firewall iptables
	fi
}

# nft would load the module where it is not there yet. A kernel without modules, as in a container, has it built in or not at all.
has_nf_tables() {
	take_line /proc/sys/kernel/osrelease
	[ -d /sys/module/nf_tables ] || [ ! -d "/lib/modules/$line" ] || grep -qs '/nf_tables\.ko' "/lib/modules/$line/modules.builtin"
}
