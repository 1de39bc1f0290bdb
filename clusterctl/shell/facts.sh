# shellcheck shell=sh disable=SC2154
# What a machine says about itself: one record 'fact NAME VALUE' each. Runs after the prelude.

fact() {
	emit fact "$1" "$2"
}

first_line() {
	# An unreadable or missing file is an empty fact.
	if [ -r "$1" ]; then
		read -r line <"$1" || :
		printf '%s' "${line:-}"
	fi
}

observe_facts() {
	# shellcheck disable=SC1091
	fact os "$(. /etc/os-release && printf '%s' "$ID")"
	# shellcheck disable=SC1091
	fact os_version "$(. /etc/os-release && printf '%s' "${VERSION_ID:-}")"
	fact arch "$(uname -m)"
	fact kernel "$(uname -r)"
	fact hostname "$(hostname 2>/dev/null || first_line /proc/sys/kernel/hostname)"
	fact machine_id "$(first_line /etc/machine-id)"
	fact boot_id "$(first_line /proc/sys/kernel/random/boot_id)"
	fact time "$(date +%s.%N)"
	fact systemd "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
	fact cpus "$(nproc)"
	fact memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
	fact swap_kib "$(sed -n 's/^SwapTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
	fact cgroup "$(stat -fc %T /sys/fs/cgroup)"
	fact addresses "$(ip -4 -o addr show | awk '{split($4, a, "/"); printf "%s ", a[1]}')"
	fact default_interface "$(ip -4 route show default | sed -n '1s/.* dev \([^ ]*\).*/\1/p')"
	fact resolv_conf "$(if [ -e /etc/resolv.conf ]; then grep -c '^nameserver 127\.0\.0\.53' /etc/resolv.conf; else echo missing; fi)"
	fact nameservers "$(sed -n 's/^nameserver[[:space:]]*\([^[:space:]]*\).*/\1/p' /etc/resolv.conf 2>/dev/null | tr '\n' ' ')"
	fact oom_score_adj "$(if sh -c 'echo -500 >/proc/self/oom_score_adj' 2>/dev/null; then echo lowers; else echo fixed; fi)"
	fact container "$(systemd-detect-virt --container 2>/dev/null || :)"
	fact kmsg "$(if [ -e /dev/kmsg ]; then echo there; else echo missing; fi)"
	fact packages "$(command -v apt-get || command -v dnf || echo none)"
	for path in /opt /var/lib /etc; do
		fact "free $path" "$(df -Pk "$path" | awk 'NR == 2 {print $4}') $(df -Pi "$path" | awk 'NR == 2 {print $4}') $(awk -v p="$(df -P "$path" | awk 'NR == 2 {print $6}')" '$2 == p {split($4, o, ","); m = o[1]} END {print m}' /proc/mounts)"
	done
	cluster=$(first_line /etc/clusterctl/cluster)
	fact cluster "$cluster"
	fact etcd "$(if [ -e /etc/etcd/formed ]; then echo formed; fi)"
	fact ssh_host_key "$(first_line /etc/ssh/ssh_host_ed25519_key.pub)"
	# Which process holds a port is costly to find out, and of interest before our own programs run alone.
	[ -n "$cluster" ] || listening
}

# The ports that something listens on, with the process behind each.
listening() {
	awk 'FNR > 1 && $4 == "0A" {split($2, a, ":"); print a[length(a)], $10}' /proc/net/tcp /proc/net/tcp6 2>/dev/null | sort -u >"$work/ports"
	[ -s "$work/ports" ] || return 0
	for directory in /proc/[0-9]*; do
		# shellcheck disable=SC2012
		ls -l "$directory/fd" 2>/dev/null | sed -n 's/.*socket:\[\([0-9]*\)\].*/\1/p' | while read -r inode; do
			printf '%s %s\n' "$inode" "${directory#/proc/}"
		done
	done >"$work/inodes"
	awk 'NR == FNR {pid[$1] = $2; next} {print $1, pid[$2]}' "$work/inodes" "$work/ports" | while read -r port pid; do
		unit=$(sed -n 's/.*\/\([^/]*\.service\)$/\1/p' "/proc/${pid:-none}/cgroup" 2>/dev/null | head -n 1)
		emit port "$((0x$port))" "${pid:-}" "$(first_line "/proc/${pid:-none}/comm")" "$unit"
	done
}
