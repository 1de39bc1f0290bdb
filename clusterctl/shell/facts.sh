# shellcheck shell=sh disable=SC2086,SC2154
# What a machine says about itself: one record 'fact NAME VALUE' each. Runs after the prelude and the lists of the
# products' footprints.

fact() {
	emit fact "$1" "$2"
}

# The first line of a file into the variable 'line'; empty where there is none. No fork: a look should cost little.
take_line() {
	line=
	if [ -r "$1" ]; then read -r line <"$1" || :; fi
}

observe_facts() {
	# shellcheck disable=SC1091
	(. /etc/os-release && fact os "$ID" && fact os_version "${VERSION_ID:-}")
	[ -r /proc/sys/kernel/arch ] || fact arch "$(uname -m)"
	emit time "$(date +%s.%N)"
	systemd_version
	take_line /proc/meminfo
	fact MemTotal "${line#MemTotal:}"
	swap
	lines address
	ip -4 -o addr show >&3
	resolver
	if (echo -500 >/proc/self/oom_score_adj) 2>/dev/null; then fact oom_score_adj lowers; else fact oom_score_adj fixed; fi
	container
	if [ -e /dev/kmsg ]; then fact kmsg there; else fact kmsg missing; fi
	file_systems /sys/fs/cgroup /opt /var/lib /etc
	take_line /etc/clusterctl/cluster
	cluster=$line
	fact cluster "$cluster"
	# Which of our services have ever been started here: they tell the roles that the machine has.
	set -- "$state"/stamps/*.service
	fact served "$*"
	[ -z "$(etcd_data)" ] || fact etcd "$(etcd_data)"
	take_line /sys/fs/selinux/enforce
	fact selinux "$line"
	# Other installations matter only before our own programs run; to find the process that holds a port is expensive.
	[ -n "$cluster" ] || strangers
	observe_foreign
}

swap() {
	total=0
	if [ -r /proc/swaps ]; then
		while read -r _ _ size _; do
			case $size in *[!0-9]*) ;; *) total=$((total + size)) ;; esac
		done </proc/swaps
	fi
	fact SwapTotal "$total kB"
}

# What kind of container this is, as systemd itself noted when it started; where it noted nothing it is asked.
container() {
	take_line /run/systemd/container
	fact container "${line:-$(systemd-detect-virt --container 2>/dev/null || :)}"
}

# The versions that run: where the links to programs point, as ../PRODUCT/VERSION/PROGRAM, and images, recorded in the same form.
observe_running() {
	[ -e /etc/clusterctl/cluster ] || return 0
	for path in /etc/clusterctl/images/*; do
		take_line "$path"
		emit running "$line"
	done
	set --
	for folder in $our_executables; do set -- "$@" "$folder"/*; done
	links=$(QUOTING_STYLE=literal stat -c %N -- "$@" 2>/dev/null)
	set -f
	IFS=$newline
	for line in $links; do
		case $line in *" -> "*/*/*) emit running "${line##* -> }" ;; esac
	done
	set +f
	unset IFS
}

# Name servers: /etc/resolv.conf, how many of its servers are of this machine alone, and all of them.
resolver() {
	local=0 servers=
	if [ ! -e /etc/resolv.conf ]; then
		fact resolv_conf missing
		return 0
	fi
	while read -r name value _ || [ -n "$name" ]; do
		[ "$name" = nameserver ] || continue
		servers="$servers$value "
		case $value in 127.* | ::1) local=$((local + 1)) ;; esac
	done </etc/resolv.conf
	[ ! -e /run/systemd/resolve/resolv.conf ] || fact resolved there
	fact resolv_conf "$local"
	fact nameservers "$servers"
}

# systemd's version, out of the name of its library; where that is not to be found it is asked.
systemd_version() {
	for line in /usr/lib/systemd/libsystemd-shared-[0-9]*.so /usr/lib/*/systemd/libsystemd-shared-[0-9]*.so; do
		line=${line##*-shared-}
		case ${line%%[!0-9]*} in ?*) fact systemd "${line%%[!0-9]*}" && return ;; esac
	done
	fact systemd "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
}

# file_systems PATH...: the kind of each, what is left on it (blocks, their size, inodes), and which of them can be written.
file_systems() {
	lines space
	stat -f -c "%n$tab%T$tab%a$tab%S$tab%d" -- "$@" >&3
	for path; do
		[ ! -w "$path" ] || emit writable "$path"
	done
}

# What another cluster left that our programs would take for their own, and the ports that something listens on, with the process
# behind each.
strangers() {
	[ ! -e /var/lib/kubelet/pki/kubelet-client-current.pem ] || fact kubelet_client there
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
		take_line "/proc/${pid:-none}/comm"
		emit port "$((0x$port))" "${pid:-}" "$line" "$unit"
	done
}
