# shellcheck shell=sh disable=SC2154
# What a machine says about itself: one record 'fact NAME VALUE' each. Runs after the prelude.

fact() {
	emit fact "$1" "$2"
}

# The first line of a file into the variable 'line'; empty where there is none. No fork: a look should cost little.
take_line() {
	line=
	if [ -r "$1" ]; then read -r line <"$1" || :; fi
}

# The number behind a name in /proc/meminfo, into 'line'.
take_memory() {
	line=0
	while read -r name value _; do
		if [ "$name" = "$1:" ]; then line=$value; fi
	done </proc/meminfo
}

observe_facts() {
	# shellcheck disable=SC1091
	fact os "$(. /etc/os-release && printf '%s' "$ID")"
	# shellcheck disable=SC1091
	fact os_version "$(. /etc/os-release && printf '%s' "${VERSION_ID:-}")"
	# shellcheck disable=SC2046 # three words: hostname, kernel, processor
	set -- $(uname -nrm)
	fact hostname "$1"
	fact kernel "$2"
	fact arch "$3"
	take_line /etc/machine-id
	fact machine_id "$line"
	take_line /proc/sys/kernel/random/boot_id
	fact boot_id "$line"
	fact time "$(date +%s.%N)"
	fact systemd "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
	fact cpus "$(nproc)"
	take_memory MemTotal
	fact memory_kib "$line"
	take_memory SwapTotal
	fact swap_kib "$line"
	fact cgroup "$(stat -fc %T /sys/fs/cgroup)"
	fact addresses "$(ip -4 -o addr show | awk '{split($4, a, "/"); printf "%s ", a[1]}')"
	resolver
	fact oom_score_adj "$(if (echo -500 >/proc/self/oom_score_adj) 2>/dev/null; then echo lowers; else echo fixed; fi)"
	container
	fact kmsg "$(if [ -e /dev/kmsg ]; then echo there; else echo missing; fi)"
	free_space /opt /var/lib /etc
	take_line /etc/clusterctl/cluster
	cluster=$line
	fact cluster "$cluster"
	# Which of our services have ever been started here: they tell the roles that the machine has.
	set -- "$state"/stamps/*.service
	fact served "$*"
	node_address
	fact etcd "$(if [ -e /etc/etcd/formed ]; then echo formed; elif [ -e /var/lib/etcd/member ]; then echo begun; fi)"
	running
	take_line /etc/ssh/ssh_host_ed25519_key.pub
	fact ssh_host_key "$line"
	# Which process holds a port is costly to find out, and of interest before our own programs run alone.
	[ -n "$cluster" ] || listening
}

# What kind of container this is, as systemd itself noted when it started; where it noted nothing it is asked.
container() {
	take_line /run/systemd/container
	fact container "${line:-$(systemd-detect-virt --container 2>/dev/null || :)}"
}

# What runs here: where the links of programs point, as ../PRODUCT/VERSION/PROGRAM, and images, noted in the same form.
running() {
	[ -n "$cluster" ] || return 0
	images=
	for path in /etc/clusterctl/images/*; do
		take_line "$path"
		images="$images $line"
	done
	fact running "$(readlink -- /opt/clusterctl/bin/* /opt/cni/bin/bridge /opt/cni/bin/flannel 2>/dev/null | tr '\n' ' ')$images"
}

# The address that the kubelet here was given, out of its unit, where each flag has a line.
node_address() {
	[ -r /etc/systemd/system/kubelet.service ] || return 0
	while read -r word _; do
		case $word in --node-ip=*) fact node_ip "${word#*=}" ;; esac
	done </etc/systemd/system/kubelet.service
}

# Who answers for names: /etc/resolv.conf, how many of its servers are systemd-resolved's own address, and all of them.
resolver() {
	local=0 servers=
	if [ ! -e /etc/resolv.conf ]; then
		fact resolv_conf missing
		return 0
	fi
	while read -r name value _ || [ -n "$name" ]; do
		[ "$name" = nameserver ] || continue
		servers="$servers$value "
		[ "$value" != 127.0.0.53 ] || local=$((local + 1))
	done </etc/resolv.conf
	fact resolv_conf "$local"
	fact nameservers "$servers"
}

# free_space PATH...: what is left where each lies: KiB, inodes, and whether it can be written.
free_space() {
	stat -f -c '%a %S %d' "$@" >"$work/free"
	while read -r blocks size inodes; do
		access=ro
		if [ -w "$1" ]; then access=rw; fi
		fact "free $1" "$((blocks * size / 1024)) $inodes $access"
		shift
	done <"$work/free"
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
		take_line "/proc/${pid:-none}/comm"
		emit port "$((0x$port))" "${pid:-}" "$line" "$unit"
	done
}
