# shellcheck shell=sh disable=SC2154
# Updates of the operating system's packages, and the one reboot that may follow. Runs after the prelude.
# Packages that compete with the cluster's own programs are held back for the length of one command: no hold remains on the machine.

reboot_marker=$state/os-update
boot_id=/proc/sys/kernel/random/boot_id
reboot_required=/run/reboot-required

# The name of the machine's package manager into 'manager'.
take_manager() {
	use_proxy
	manager=none
	for name in apt-get dnf; do
		if [ "$manager" = none ] && command -v "$name" >/dev/null 2>&1; then manager=$name; fi
	done
}

# squash FILE: the end of a text as one word of a record.
squash() {
	tail -c 1500 "$1" | tr '\t\n' '  '
}

# --- looking ---

# A machine's lists of packages as its sources have them now; nothing that runs is disturbed.
observe_lists() {
	take_manager
	[ "$manager" = apt-get ] || return 0
	# A look is given up after ten minutes.
	# shellcheck disable=SC2034 # used by fetch_lists
	lock_seconds=120
	if ! fetch_lists >/dev/null; then
		emit problem "the lists of packages cannot be fetched: $(squash "$work/lists")"
		return 0
	fi
	if grep '^[WE]: ' "$work/lists" >"$work/complaints"; then emit warning "$(squash "$work/complaints")"; fi
}

# observe_os_update PATTERN...: what would be updated, what is held back (names as dpkg-query and dnf take them), and whether a reboot is due.
observe_os_update() {
	take_manager
	emit os manager "$manager"
	emit os cluster "$(cat /etc/clusterctl/cluster 2>/dev/null)"
	case $manager in
	apt-get) apt_updates "$@" ;;
	dnf) dnf_updates "$@" ;;
	none) emit problem "no package manager that clusterctl knows (apt-get, dnf)" ;;
	esac
	reboot_reasons
	observe_boot
}

# Which boot this is, and the marker of a reboot that an os-update ordered.
observe_boot() {
	emit os boot_id "$(cat "$boot_id")"
	if [ -r "$reboot_marker" ]; then
		read -r operation before ended <"$reboot_marker" || :
		emit os marker "$operation $before ${ended:-}"
	fi
}

apt_updates() {
	write_pins "$@"
	if ! pinned_apt -s upgrade >"$work/simulated" 2>&1 && ! interrupted; then
		emit problem "apt cannot tell what it would update: $(squash "$work/simulated")"
	fi
	if interrupted; then emit os interrupted yes; fi
	# Inst NAME [OLD] (NEW ORIGIN [ARCHITECTURE]); a new package has no OLD.
	awk '$1 == "Inst" {
		old = ""; new = $3
		if (substr($3, 1, 1) == "[") { old = substr($3, 2, length($3) - 2); new = $4 }
		printf "%s\t%s\t%s\n", $2, old, substr(new, 2)
	}' "$work/simulated" | emit_lines update
	own_packages "$@" | cut -d ' ' -f 1 | xargs -r apt-cache policy 2>/dev/null | awk '
		/^[^ ].*:$/ { name = substr($1, 1, length($1) - 1) }
		$1 == "Installed:" { installed = $2 }
		$1 == "Candidate:" && $2 != installed && $2 != "(none)" { printf "%s\t%s\t%s\n", name, installed, $2 }
	' | emit_lines held
}

# Whether dpkg was killed over its work. Not by dpkg --audit, which finds fault with packages that are well.
interrupted() {
	[ -n "$(ls /var/lib/dpkg/updates 2>/dev/null)" ] ||
		dpkg-query -W -f '${db:Status-Status}\n' 2>/dev/null | grep -Eq '^(unpacked|half-|triggers-)'
}

# own_packages PATTERN...: name and version of those that are installed.
own_packages() {
	dpkg-query -W -f '${db:Status-Abbrev}\t${Package}\t${Version}\n' -- "$@" 2>/dev/null |
		awk -F '\t' 'substr($1, 2, 1) == "i" {print $2, $3}' | sort -u
}

# write_pins PATTERN...: preferences that keep the installed versions of these, for the commands of this program.
write_pins() {
	{
		own_packages "$@" | awk '{printf "Package: %s\nPin: version %s\nPin-Priority: 32000\n\n", $1, $2}'
		cat /etc/apt/preferences 2>/dev/null || :
	} >"$work/preferences"
}

# pinned_apt ARG...: with the local versions of configuration files, and nothing removed.
pinned_apt() {
	DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 APT_LISTCHANGES_FRONTEND=none apt-get -y -q -o APT::Color=0 \
		-o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold \
		-o "Dir::Etc::Preferences=$work/preferences" --with-new-pkgs "$@"
}

# dnf_excluding PATTERN... -- ARG...
dnf_excluding() {
	count=$#
	while [ "$count" -gt 0 ] && [ "$1" != -- ]; do
		set -- "$@" "--exclude=$1"
		shift
		count=$((count - 1))
	done
	shift
	run_dnf -y -q "$@"
}

# dnf ends with 100 where there are updates: NAME.ARCHITECTURE VERSION REPOSITORY.
dnf_updates() {
	# shellcheck disable=SC2034 # used by run_dnf
	code=0 lock_seconds=120
	dnf_excluding "$@" -- --refresh check-update >"$work/updates" 2>"$work/complaints" || code=$?
	if [ "$code" -ne 0 ] && [ "$code" -ne 100 ]; then emit problem "dnf cannot tell what it would update: $(squash "$work/complaints")"; fi
	dnf_lines <"$work/updates" | emit_lines update
	run_dnf -y -q check-update "$@" 2>/dev/null | dnf_lines | emit_lines held
}

dnf_lines() {
	awk '/^Obsoleting/ {exit} NF == 3 {sub(/\.[^.]*$/, "", $1); printf "%s\t\t%s\n", $1, $2}'
}

# Which program asks for a reboot; the kernels are compared by the controller.
reboot_reasons() {
	if [ -e "$reboot_required" ]; then
		emit reboot "asked for by $(sort -u "$reboot_required.pkgs" 2>/dev/null | tr '\n' ' ' | grep . || echo "$reboot_required")"
	fi
	if [ "$manager" = dnf ]; then
		code=0
		dnf -q needs-restarting -r >/dev/null 2>&1 || code=$?
		if [ "$code" -eq 1 ] && ! dnf -q needs-restarting --help 2>&1 | grep -q 'No such command'; then
			emit reboot "asked for by needs-restarting"
		fi
	fi
	# A container has no kernel of its own.
	if ! systemd-detect-virt --container --quiet 2>/dev/null; then
		emit os kernel "$(cat /proc/sys/kernel/osrelease)"
		for file in /boot/vmlinuz-*; do
			if [ -e "$file" ]; then emit kernel "${file#/boot/vmlinuz-}"; fi
		done
	fi
}

# --- doing ---

# os_download PATTERN...: what an update needs, before anything is disturbed.
os_download() {
	take_manager
	if [ "$manager" = dnf ]; then
		dnf_excluding "$@" -- --downloadonly upgrade
	else
		write_pins "$@"
		pinned_apt --download-only upgrade
	fi
}

# os_update PATTERN...: all packages but these. May be run again after it was killed.
os_update() {
	take_manager
	if [ "$manager" = dnf ]; then
		dnf_excluding "$@" -- upgrade
		return
	fi
	write_pins "$@"
	if interrupted; then
		DEBIAN_FRONTEND=noninteractive dpkg --force-confold --configure -a || pinned_apt --fix-broken install
	fi
	pinned_apt upgrade
}

# restart_outdated UNIT...: those whose processes run a program or a library that the update has replaced. The programs of the other units
# are not of packages, and statically linked.
restart_outdated() {
	for unit; do
		pid=$(systemctl show --property=MainPID --value -- "$unit")
		if grep -Eqs ' /(usr/)?(s?bin|lib[0-9a-z]*)/.* \(deleted\)$' "/proc/$pid/maps"; then systemctl restart -- "$unit"; fi
	done
}

# reboot_once OPERATION BOOT_ID: unless this is another boot already. The marker is on the disk before the reboot is ordered.
# Beside it the first who holds the operators' lock afterwards leaves a trace.
reboot_once() {
	[ "$(cat "$boot_id")" = "$2" ] || return 0
	rm -rf -- "$reboot_marker.locked"
	printf '%s %s\n' "$1" "$2" >"$reboot_marker.new"
	sync "$reboot_marker.new"
	mv -f -- "$reboot_marker.new" "$reboot_marker"
	sync "$state"
	systemctl --no-block reboot
}

# end_reboots OPERATION: the whole operation has ended; what is left is to remove its markers.
end_reboots() {
	printf '%s - ended\n' "$1" >"$reboot_marker.new"
	sync "$reboot_marker.new"
	mv -f -- "$reboot_marker.new" "$reboot_marker"
}

forget_reboot() {
	rm -rf -- "$reboot_marker" "$reboot_marker.new" "$reboot_marker.locked"
}

# await_units SECONDS: until all units that clusterctl started are active.
await_units() {
	deadline=$(($(date +%s) + $1))
	until late=$(late_units) && [ -z "$late" ]; do
		[ "$(date +%s)" -lt "$deadline" ] || die "not all units are active within $1 s; last seen: $late"
		sleep 0.2
	done
}

late_units() {
	for stamp in "$state"/stamps/*.service; do
		unit=${stamp##*/}
		if [ -e "$stamp" ] && ! systemctl is-active --quiet -- "$unit"; then
			printf '%s is %s; ' "$unit" "$(systemctl is-active -- "$unit" || :)"
		fi
	done
}
