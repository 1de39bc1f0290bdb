# shellcheck shell=sh disable=SC2154
# What an inventory adds to a machine, and how it is noted. Runs after put.

added=/etc/clusterctl/added
hooks=/etc/clusterctl/hooks

# note_added KIND NAME...: what is about to be added, with what was there before, in a line 'KIND<tab>NAME<tab>BEFORE' of $added.
note_added() {
	kind=$1
	shift
	for name; do
		! is_noted "$kind" "$name" || continue
		said=$("before_$kind" "$name")
		{
			[ ! -e "$added" ] || cat "$added"
			printf '%s\t%s\t%s\n' "$kind" "$name" "$said"
		} >"$added.new"
		sync "$added.new"
		mv -f -- "$added.new" "$added"
	done
}

is_noted() {
	[ -e "$added" ] && awk -F "$tab" -v kind="$1" -v name="$2" '$1 == kind && $2 == name {found = 1} END {exit !found}' "$added"
}

# forget_added KIND NAME...: these are no longer of the inventory, and stay as they are.
forget_added() {
	kind=$1
	shift
	for name; do
		awk -F "$tab" -v kind="$kind" -v name="$name" '$1 != kind || $2 != name' "$added" >"$added.new"
		sync "$added.new"
		mv -f -- "$added.new" "$added"
	done
	[ -s "$added" ] || rm -f -- "$added"
}

# Record the packages that this one replaces: undo_one_package installs them again.
before_package() {
	if [ -n "$(installed_as "$1")" ]; then
		echo installed
	elif command -v apt-get >/dev/null 2>&1; then
		prepare_apt >/dev/null
		apt-get -s install -- "$1" 2>/dev/null | sed -n 's/^Remv \([^ :]*\).*/\1/p' | sort | paste -s -d ' ' -
	fi
}

before_module() {
	[ ! -d "/sys/module/$(printf %s "$1" | tr - _)" ] || echo loaded
}

before_sysctl() {
	cat "/proc/sys/$(printf %s "$1" | tr . /)"
}

# The kernel's name, and the one for the next boot where there is one.
before_hostname() {
	printf '%s %s\n' "$(cat /proc/sys/kernel/hostname)" "$(head -n 1 /etc/hostname 2>/dev/null)"
}

# put_hostname NAME: hostnamectl needs D-Bus, which not every machine has. The pretty name is left as it is.
put_hostname() {
	timeout 20 hostnamectl --static --transient set-hostname "$1" 2>/dev/null || :
	[ "$(cat /etc/hostname 2>/dev/null)" = "$1" ] || (umask 022 && printf '%s\n' "$1" >/etc/hostname)
	[ "$(cat /proc/sys/kernel/hostname)" = "$1" ] || hostname "$1"
}

# What is there before a file is kept aside, also a link.
before_file() {
	[ ! -d "$1" ] || [ -L "$1" ] || die "$1 is a folder"
	if [ -e "$1" ] || [ -L "$1" ]; then
		mkdir -p -- "/etc/clusterctl/before${1%/*}"
		cp -a -- "$1" "/etc/clusterctl/before$1"
		echo kept
	fi
}

before_restart() {
	:
}

before_service() {
	systemctl is-enabled --quiet -- "$1" 2>/dev/null && printf 'enabled '
	systemctl is-active --quiet -- "$1" && echo runs
	:
}

before_hook() {
	:
}

# add_packages NAME...: unlike those of clusterctl itself, their services start as the distribution has them.
add_packages() {
	installed_packages >"$work/installed"
	if command -v apt-get >/dev/null 2>&1; then
		prepare_apt
		install_or_refresh "$@"
	else
		dnf_install "$@"
	fi
}

# put_restart UNIT DIGEST: the stamp says with which files it runs.
put_restart() {
	make_folders "$state/stamps"
	forget_stamps "$1"
	systemctl daemon-reload
	systemctl restart -- "$1"
	printf '%s %s\n' "$2" "$(invocation_of "$1")" >"$state/stamps/$1.new"
	mv -f -- "$state/stamps/$1.new" "$state/stamps/$1"
	rm -f -- "$state/stamps/$1.old"
}

# run_hook NAME DIGEST SECONDS COMMAND CONDITION: unless the condition fails. A hook that ended well is recorded.
run_hook() {
	if [ -z "$5" ] || (umask 022 && timeout "$3" sh -c "$5"); then
		code=0
		(umask 022 && timeout "$3" sh -c "$4") || code=$?
		# busybox reports the signal that its timeout sends.
		case $code in 124 | 143) die "the command of hook $1 did not end within $3 s" ;; esac
		[ "$code" -eq 0 ] || die "the command of hook $1 ended with exit code $code"
	fi
	note_hook "$1" "$2"
}

note_hook() {
	mkdir -p -- "$hooks"
	printf '%s\n' "$2" >"$hooks/$1.new"
	sync "$hooks/$1.new"
	mv -f -- "$hooks/$1.new" "$hooks/$1"
}
