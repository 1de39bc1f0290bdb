# shellcheck shell=sh disable=SC2086,SC2154
# How what is left of clusterctl on a machine is found and taken away. Runs after the footprint; lists of ours are words on purpose.

# observe_remains NETWORK: NETWORK has the addresses of pods; routes to them are ours.
observe_remains() {
	remains "$1" | emit_lines remains
}

# remains NETWORK: 'KIND<tab>NAME<tab>DETAIL' a line. A record alone is of an apply that has not begun, or of a reset that is done.
remains() {
	if ! is_ours && [ ! -d "$before" ]; then return 0; fi
	identity=$(cat "$mark" 2>/dev/null || :)
	[ -n "$identity" ] || identity=$(cat "$before/cluster" 2>/dev/null || :)
	printf 'mark\t%s\t%s\n' "$identity" "$([ ! -d "$before" ] || echo recorded)"
	is_ours || return 0
	remaining_units | tagged units
	our_processes all | wc -l | sed -n "s/^ *\([1-9].*\)/processes${tab}of pods and programs$tab\1/p"
	our_mounts | tagged mounts
	remaining_network "$1" | tagged network
	remaining_firewall | tagged firewall
	remaining_added | tagged added
	remaining_packages
	remaining_files | tagged files
	remaining_users | tagged users
	remaining_settings | tagged settings
}

tagged() {
	awk -v kind="$1" '{print kind "\t" $0}'
}

# undo_check NETWORK: the second look, before the mark goes.
undo_check() {
	set +e
	left=$(remains "$1" | grep -v "^\(mark\|kept\)$tab" | head -n 20)
	[ -z "$left" ] || die "did not converge; still there: $(printf '%s' "$left" | tr '\t\n' ' ,')"
}

undo_mark() {
	find /etc/clusterctl -mindepth 1 -maxdepth 1 ! -name cluster -exec rm -rf -- {} + 2>/dev/null || :
	rm -rf -- "$state/stamps" "$state/packages"
	sync -f /etc /var/lib 2>/dev/null || sync
	rm -f -- "$mark"
	rm -rf -- /etc/clusterctl
	rm -rf -- "$state"
}

# --- units ---

# Those that run or start at boot and did not before us, and those whose file is ours.
remaining_units() {
	unit_states $our_units | while read -r unit runs boot; do
		file=/etc/systemd/system/$unit
		if [ -e "$file" ] && ! recorded contents "$(sha256sum -- "$file")"; then
			printf '%s\t%s\n' "$unit" "$runs"
		elif ! recorded units "$unit $runs $boot" && { [ -e "$before/units" ] || [ "$runs $boot" != "stopped manual" ]; }; then
			printf '%s\t%s\n' "$unit" "$runs"
		fi
	done
}

# undo_units UNIT...: in systemd's own order; what does not stop in time is killed. An API server would wait for requests of nodes
# that are gone, and what it or etcd could still write goes anyway.
undo_units() {
	timeout 20 systemctl stop -- "$@" || {
		systemctl kill --signal=KILL -- "$@" 2>/dev/null || :
		timeout 30 systemctl stop -- "$@" || :
	}
	systemctl disable --quiet -- "$@" 2>/dev/null || :
	systemctl reset-failed -- "$@" 2>/dev/null || :
}

# What ran before us under a name of ours runs again.
return_units() {
	[ -e "$before/units" ] || return 0
	while read -r unit runs boot; do
		[ "$boot" != enabled ] || systemctl enable --quiet -- "$unit"
		[ "$runs" != runs ] || timeout 90 systemctl start -- "$unit"
	done <"$before/units"
}

# undo_product UNITS PATHS INTERFACES TABLES PREFIXES: takes one product away, while the others stay. Each argument is a list of words.
undo_product() {
	undo_units $1
	for unit in $1; do rm -rf -- "/etc/systemd/system/$unit" "/etc/systemd/system/$unit.d" "$state/stamps/$unit"; done
	for path in $2; do clear_path "$path"; done
	for link in $3; do
		recorded links "$link" || ip link delete dev "$link" 2>/dev/null || :
	done
	# Each step runs in a subshell: the assignments do not reach the next one.
	our_tables=$4 our_prefixes=$5
	if command -v nft >/dev/null 2>&1; then
		our_own_tables | sed 's/^/delete /' | nft -f -
		shared_tables | while read -r family table; do our_chains "$family" "$table"; done | nft -f -
	fi
	systemctl daemon-reload
}

# --- processes ---

# our_processes all|containers: processes of pods, of our programs, and whatever a shim has started; 'containers' leaves out the shims.
our_processes() {
	{
		grep -l ':/kubepods' /proc/[0-9]*/cgroup | sed 's|^/proc/\([0-9]*\)/.*|ours \1|'
		# shellcheck disable=SC2012 # where a link leads, for all at once
		ls -l /proc/[0-9]*/exe | sed -n "s|.* /proc/\([0-9]*\)/exe -> $root/.*containerd-shim.*|shim \1|p; s|.* /proc/\([0-9]*\)/exe -> $root/.*|ours \1|p"
		cat /proc/[0-9]*/stat | sed -n 's/^\([0-9]*\) (.*) \([A-Za-z]\) \([0-9]*\) .*/process \1 \3 \2/p'
	} 2>/dev/null | awk -v which="$1" '
		$1 == "ours" {ours[$2]}
		$1 == "shim" {shim[$2]}
		$1 == "process" && $4 !~ /[ZX]/ {parent[$2] = $3}
		END {
			for (pid in parent) {
				if (pid in shim) {
					if (which == "all") print pid
					continue
				}
				above = pid
				while (above in parent && !(above in shim)) above = parent[above]
				if (pid + 0 > 1 && (pid in ours || above in shim)) print pid
			}
		}'
}

undo_processes() {
	end_processes containers TERM 10
	end_processes containers KILL 20
	end_processes all KILL 20
	[ -z "$(our_processes all)" ] || die "these processes do not end: $(our_processes all | tr '\n' ' ')"
	systemctl stop kubepods.slice 2>/dev/null || :
	for group in /sys/fs/cgroup/kubepods* /sys/fs/cgroup/*/kubepods*; do
		[ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || :
	done
}

# end_processes WHICH SIGNAL SECONDS: asked once and killed again and again, as they may start others.
end_processes() {
	deadline=$(($(date +%s) + $3))
	asked=
	while pids=$(our_processes "$1") && [ -n "$pids" ] && [ "$(date +%s)" -lt "$deadline" ]; do
		[ "$2$asked" = TERMyes ] || kill -s "$2" $pids 2>/dev/null || :
		asked=yes
		sleep 0.1
	done
}

# --- mounts ---

# Mount points within our folders that were not there before us, the last one first.
our_mounts() {
	inside=$(readlink -f $our_data $our_runtime | sed 's/[.]/[.]/g; s|$|/|' | paste -s -d '|' -)
	known=/dev/null
	[ ! -e "$before/mounts" ] || known=$before/mounts
	mount_points | grep -E "^($inside|/run/netns/cni-)" | grep -vxF -f "$known" | tac
}

# What lies hidden under another mount is out of reach until that is gone: it goes on while anything goes.
undo_mounts() {
	there=
	while points=$(our_mounts) && [ -n "$points" ] && [ "$points" != "$there" ]; do
		there=$points
		printf '%s\n' "$points" | while IFS= read -r point; do
			case $point in *'\012'*) point=$(printf '%s\n' "$point" | awk '{gsub(/\\012/, "\n")} 1') ;; esac
			# A server that does not answer must not hold us up.
			timeout 20 umount -- "$point" || umount -l -- "$point" || :
		done
	done
	[ -z "$points" ] || die "these do not unmount: $(printf '%s' "$points" | tr '\n' ' ')"
	rm -f -- /run/netns/cni-*
}

# --- links and routes ---

our_routes() {
	known=/dev/null
	[ ! -e "$before/routes" ] || known=$before/routes
	ip -4 route show | grep -vxF -f "$known" | awk -v network="$1" '
		function number(address,   part) {split(address, part, "."); return ((part[1] * 256 + part[2]) * 256 + part[3]) * 256 + part[4]}
		BEGIN {split(network, n, "/"); for (size = 1; n[2] < 32; n[2]++) size *= 2}
		$1 ~ /^[0-9.]+(\/[0-9]+)?$/ {split($1, d, "/"); if (int(number(d[1]) / size) == int(number(n[1]) / size)) print $1}'
}

remaining_network() {
	for link in $(link_names); do
		case " $our_interfaces " in
		*" $link "*) recorded links "$link" || printf 'link %s\n' "$link" ;;
		esac
	done
	our_routes "$1" | sed 's/^/route /'
}

undo_network() {
	# The pods' ends first: once the bridge is gone they cannot be told from other links.
	for link in $(ip -o link show master cni0 2>/dev/null | awk -F ': ' '{sub(/@.*/, "", $2); print $2}'); do
		ip link delete dev "$link" 2>/dev/null || :
	done
	remaining_network "$1" | while read -r what name; do
		ip "$what" del "$name" 2>/dev/null || :
	done
}

# --- nftables and iptables ---

# our_chains FAMILY TABLE: commands for nft that take away our chains of a table that others share, and the rules that lead to them.
our_chains() {
	nft -a list table "$1" "$2" 2>/dev/null | awk -v place="$1 $2" -v prefixes="$our_prefixes" '
		BEGIN {gsub(" ", "|", prefixes); start = "^(" prefixes ")-"; jump = " (jump|goto) (" prefixes ")-"}
		$1 == "chain" {chain = $2; ours = chain ~ start; if (ours) own[++count] = chain; next}
		!ours && $0 ~ jump && /# handle [0-9]+$/ {print "delete rule", place, chain, "handle", $NF}
		END {
			for (i = 1; i <= count; i++) print "flush chain", place, own[i]
			for (i = 1; i <= count; i++) print "delete chain", place, own[i]
		}'
}

# unused_table FAMILY TABLE: nothing in it but chains that accept.
unused_table() {
	nft list table "$1" "$2" 2>/dev/null | awk '
		!/^table / && !/^\tchain / && !/^\t\ttype .*; policy accept;$/ && !/^\t?}$/ && NF {used = 1}
		END {exit used || NR == 0}'
}

shared_tables() {
	for family in ip ip6; do
		for table in filter nat mangle raw security; do echo "$family $table"; done
	done
}

# legacy_chains PROGRAM: the same for the older iptables, as its restore reads it.
legacy_chains() {
	"$1-save" 2>/dev/null | awk -v prefixes="$our_prefixes" '
		BEGIN {gsub(" ", "|", prefixes); start = "^(" prefixes ")-"; jump = " -[jg] (" prefixes ")-"}
		/^\*/ {table = $0; rules = chains = 0; next}
		/^:/ {chain = substr($1, 2); if (chain ~ start) own[++chains] = chain; next}
		/^-A / && $2 !~ start && $0 ~ jump {sub(/^-A/, "-D"); rule[++rules] = $0; next}
		/^COMMIT/ && rules + chains {
			print table
			for (i = 1; i <= rules; i++) print rule[i]
			for (i = 1; i <= chains; i++) print "-F", own[i]
			for (i = 1; i <= chains; i++) print "-X", own[i]
			print
		}'
}

our_own_tables() {
	nft list tables | while read -r _ family table; do
		case " $our_tables " in
		*" $table "*) recorded tables "table $family $table" || echo "table $family $table" ;;
		esac
	done
}

remaining_firewall() {
	if command -v nft >/dev/null 2>&1; then
		our_own_tables
		shared_tables | while read -r family table; do
			chains=$(our_chains "$family" "$table" | grep -c . || :)
			if [ "$chains" != 0 ]; then
				echo "chains and rules in $family $table"
			elif [ -e "$before/tables" ] && ! recorded tables "table $family $table" && unused_table "$family" "$table"; then
				echo "table $family $table"
			fi
		done
	fi
	for program in iptables-legacy ip6tables-legacy; do
		! command -v "$program-save" >/dev/null 2>&1 || [ -z "$(legacy_chains "$program")" ] || echo "chains of $program"
	done
	firewalls_with_rules | sed 's/^/rules for the ports of the cluster in /'
}

undo_firewall() {
	drop_rules
	if command -v nft >/dev/null 2>&1; then
		shared_tables | while read -r family table; do our_chains "$family" "$table"; done | nft -f -
		remaining_firewall | sed -n 's/^table /delete table /p' | nft -f -
	fi
	for program in iptables-legacy ip6tables-legacy; do
		! command -v "$program-save" >/dev/null 2>&1 || legacy_chains "$program" | "$program-restore" --noflush
	done
}
