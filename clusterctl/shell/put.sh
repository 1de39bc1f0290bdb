# shellcheck shell=sh disable=SC2154
# What is to be on a machine: files, programs, packages. Runs after the prelude.

# put_file PATH MODE OWNER BLOB EXPECTED: whole or not at all; EXPECTED is what the plan saw: a sha256, 'absent' or 'any'.
put_file() {
	[ ! -d "$1" ] || die "$1 is a folder"
	check_fresh "$1" "$5"
	folder=${1%/*}
	[ -d "$folder" ] || make_folders "$folder"
	# What a program that was killed left behind; the lock says that none is at work.
	rm -f -- "$folder"/.clusterctl.?????? 2>/dev/null || :
	temporary=$(mktemp "$folder/.clusterctl.XXXXXX")
	# A full disk is looked at before what did not fit is taken away again.
	trap 'full_disks; rm -f -- "$temporary"' EXIT
	cat "$work/blobs/$4" >"$temporary"
	chown -h -- "$3" "$temporary"
	chmod -- "$2" "$temporary"
	sync "$temporary"
	mv -f -- "$temporary" "$1"
}

check_fresh() {
	case $2 in
	any) ;;
	absent) [ ! -e "$1" ] || die "stale: $1 appeared after the plan was made; run the same command again" ;;
	*) [ "$(sha256sum -- "$1" 2>/dev/null | cut -d ' ' -f 1)" = "$2" ] || die "stale: $1 changed after the plan was made; run the same command again" ;;
	esac
}

# Folders without a declared mode are readable by all; the umask of programs is 077.
make_folders() {
	(umask 022 && mkdir -p -- "$1")
}

put_mode() {
	chown -- "$3" "$1"
	chmod -- "$2" "$1"
}

put_folder() {
	[ ! -e "$1" ] || [ -d "$1" ] || die "$1 is not a folder"
	[ -d "$1" ] || make_folders "$1"
	chown -- "$3" "$1"
	chmod -- "$2" "$1"
}

put_link() {
	[ -d "${1%/*}" ] || make_folders "${1%/*}"
	[ ! -d "$1" ] || [ -L "$1" ] || die "$1 is a folder"
	ln -s -f -n -- "$2" "$1.new"
	mv -f -T -- "$1.new" "$1" 2>/dev/null || mv -f -- "$1.new" "$1"
}

put_sysctl() {
	printf '%s\n' "$2" >"/proc/sys/$(printf %s "$1" | tr . /)"
}

put_module() {
	modprobe -- "$1"
}

put_user() {
	getent group "$1" >/dev/null || groupadd --system -- "$1"
	getent passwd "$1" >/dev/null || useradd --system --gid "$1" --home-dir "$2" --no-create-home --shell /usr/sbin/nologin -- "$1"
}

# put_packages NAME...: nothing else is upgraded; what the packages bring along as services neither starts nor is enabled.
# What comes along is noted in $state/packages, so that it can go again.
put_packages() {
	installed_packages >"$work/installed"
	if command -v apt-get >/dev/null 2>&1; then
		quiet_apt "$@"
	elif command -v dnf >/dev/null 2>&1; then
		dnf_install "$@"
	else
		die "no package manager that clusterctl knows (apt-get, dnf): install by hand: $*"
	fi
}

# dnf_install NAME...: metadata that is too old names packages which the mirror no longer has.
dnf_install() {
	use_proxy
	# The table of the transaction, in whose lines one space precedes the name: a note that a kill cannot lose.
	run_dnf --assumeno --setopt=install_weak_deps=False install "$@" 2>/dev/null | sed -n '/^ Package  *Arch/d; s/^ \([^ ]\{1,\}\).*/\1/p' |
		grep -vxF -f "$work/installed" >>"$state/packages" || :
	run_dnf -y --setopt=install_weak_deps=False install "$@" || run_dnf -y --refresh --setopt=install_weak_deps=False install "$@"
	installed_packages | grep -vxF -f "$work/installed" >>"$state/packages" || :
}

installed_packages() {
	if command -v dpkg-query >/dev/null 2>&1; then
		dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | sed -n 's/^ii *//p' | sort -u
	else
		rpm -qa --queryformat '%{NAME}\n' | sort -u
	fi
}

# run_dnf ARG...: by itself dnf waits for a lock without end. Given up, it names the lock's holder.
run_dnf() {
	begin_waiting
	while :; do
		code=0
		dnf --setopt=exit_on_lock=True "$@" || code=$?
		if [ "$code" -ne 200 ] || [ "$(date +%s)" -ge "$lock_until" ]; then return "$code"; fi
		sleep 2
	done
}

# installed_as NAME: the installed packages that a name stands for, as words; Fedora's family has some under other names.
installed_as() {
	if command -v dpkg-query >/dev/null 2>&1; then
		installed_packages | grep -xF -- "$1" || :
	elif rpm -q --quiet --whatprovides "$1"; then
		rpm -q --whatprovides --queryformat '%{NAME} ' "$1"
	fi
}

# package_units NAME: the services that a package has.
package_units() {
	{ dpkg-query -L "$1" || rpm -ql "$1"; } 2>/dev/null | sed -n 's/^\(\/usr\)\{0,1\}\/lib\/systemd\/system\/\([^/@]*\.service\)$/\2/p'
}

no_services="#!/bin/sh
exit 101"

# Updates at the first boot of a machine may hold apt's locks for minutes.
lock_seconds=600
package_locks='/var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock'

# One deadline for all locks: a program that is silent for longer is given up.
begin_waiting() {
	lock_until=${lock_until:-$(($(date +%s) + lock_seconds))}
}

# fetch_lists: apt waits for dpkg's lock alone, and not for that of the lists, which timers of the machine take at its first boot.
fetch_lists() {
	begin_waiting
	use_proxy
	until timeout 300 apt-get -q -o APT::Color=0 update >"$work/lists" 2>&1; do
		if ! is_locked_out "$work/lists" || [ "$(date +%s)" -ge "$lock_until" ]; then
			cat "$work/lists"
			! is_locked_out "$work/lists" || name_holders
			return 1
		fi
		sleep 1
	done
}

# is_locked_out FILE: whether what apt printed is that another process has a lock.
is_locked_out() {
	grep -q '^E: Could not get lock' "$1"
}

name_holders() {
	holders=$(for lock in $package_locks; do lock_holder "$lock"; done)
	echo "a package manager's lock was not free within $lock_seconds s: ${holders:-its holder has ended; run this again}"
}

# lock_holder FILE: the process that has it locked. Newer apts name it, older ones do not.
lock_holder() {
	inode=$(stat -c %i -- "$1" 2>/dev/null) || return 0
	pid=$(awk -v inode="$inode" '$2 != "->" {n = split($6, part, ":"); if (part[n] == inode) {print $5; exit}}' /proc/locks)
	[ -z "$pid" ] || printf '%s is held by %s (pid %s). ' "$1" "$(cat "/proc/$pid/comm" 2>/dev/null)" "$pid"
}

prepare_apt() {
	# A machine that never fetched the lists would fail first and fetch them then.
	ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || fetch_lists
	DEBIAN_FRONTEND=noninteractive
	export DEBIAN_FRONTEND
}

quiet_apt() {
	prepare_apt
	policy=/usr/sbin/policy-rc.d
	# One of ours was left by a machine that died midway.
	if [ ! -e "$policy" ] || [ "$(cat "$policy")" = "$no_services" ]; then
		trap 'rm -f -- "$policy"' EXIT
		printf '%s\n' "$no_services" >"$policy"
		chmod 755 "$policy"
	fi
	install_or_refresh "$@"
	for name; do
		for unit in $(package_units "$name"); do
			systemctl disable --quiet -- "$unit" 2>/dev/null || :
		done
	done
}

# install_or_refresh NAME...: lists that are too old name packages which the mirror no longer has.
install_or_refresh() {
	begin_waiting
	use_proxy
	if ! install_packages "$@" >"$work/apt" 2>&1; then
		if is_locked_out "$work/apt"; then
			# apt has waited for it already.
			cat "$work/apt"
			name_holders
			return 1
		fi
		fetch_lists
		install_packages "$@"
	fi
}

# apt says what it is about to unpack before it does so: a note that a kill cannot lose.
install_packages() {
	note="sed 's|.*/||; s/_.*//' | grep -vxF -f $work/installed >>$state/packages || :"
	seconds=$((lock_until - $(date +%s)))
	# Less than 0 is for ever.
	[ "$seconds" -ge 0 ] || seconds=0
	apt-get -y -q -o DPkg::Lock::Timeout="$seconds" -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io \
		-o APT::Keep-Downloaded-Packages=false -o "DPkg::Pre-Install-Pkgs::=$note" --no-install-recommends install "$@"
}

# take BLOB: the path of a file that was sent with this program, or brought before it, into 'taken'.
take() {
	case $1 in
	/*) taken=$1 ;;
	*) taken=$work/blobs/$1 ;;
	esac
}

# put_program FOLDER SHA256 KIND BLOB NAME...: verified again here, unpacked beside, then renamed.
# KIND: parcel (programs, with their digests in the blob SHA256.sums), archive or program (upstream's own file).
put_program() {
	folder=$1 sum=$2 kind=$3
	take "$4"
	blob=$taken
	shift 4
	rm -rf -- "$folder.new"
	make_folders "$folder.new"
	trap 'full_disks; rm -rf -- "$folder.new"; rmdir -- "${folder%/*}" 2>/dev/null || :' EXIT
	if [ "$kind" != parcel ]; then
		arrived=$(sha256 "$blob" | cut -d ' ' -f 1)
		[ "$arrived" = "$sum" ] || die "integrity: what arrived for $folder has the sha256 $arrived and not $sum"
	fi
	case $kind in
	parcel) zstd -d -q -c -- "$blob" | tar -xf - -C "$folder.new" --no-same-owner ;;
	archive) unpack "$blob" "$folder.new" "$@" ;;
	program) mv -- "$blob" "$folder.new/$1" ;;
	esac
	cd "$folder.new" || exit
	sha256 -- * >"$work/sums"
	if [ "$kind" = parcel ] && ! cmp -s "$work/sums" "$work/blobs/$sum.sums"; then
		die "integrity: what arrived for $folder is not what was sent: $(cat "$work/sums")"
	fi
	chown 0:0 -- *
	chmod 0755 -- *
	sync -- *
	cd "$folder.new/.." || exit
	rm -rf -- "$folder"
	mv -- "$folder.new" "$folder"
	cd "$folder" || exit
	# Taken after the rename: a rename of the folder changes no ctime of what is inside.
	stat_file -- * >"$work/there"
	{
		echo "$sum"
		cut -d ' ' -f 1 "$work/sums" | paste -d ' ' - "$work/there"
	} >.stamp.new
	sync .stamp.new
	mv -f .stamp.new .stamp
	rm -f -- "$blob"
}

# unpack ARCHIVE FOLDER MEMBER...: just these members, flat, regular files only.
unpack() {
	archive=$1 into=$2
	shift 2
	mkdir "$into/.all"
	tar -xzf "$archive" -C "$into/.all" --no-same-owner -- "$@"
	for member; do
		if [ -L "$into/.all/$member" ] || [ ! -f "$into/.all/$member" ]; then die "integrity: $member is not a file in the archive"; fi
		mv -- "$into/.all/$member" "$into/${member##*/}"
	done
	rm -rf -- "$into/.all"
}

# accepts PROGRAM FLAG...: whether a program that nothing runs yet knows its flags; asked for its version, it does nothing else.
accepts() {
	said=$("$@" --version 2>&1) || {
		printf '%s does not take its flags: %s\n' "$1" "$(printf '%s\n' "$said" | tail -n 3)" >&2
		exit 1
	}
}

put_image() {
	take "$2"
	[ "$(sha256 "$taken" | cut -d ' ' -f 1)" = "$1" ] || die "integrity: the image archive that arrived does not have the sha256 $1"
	"$root/bin/ctr" --namespace k8s.io images import --local --digests=false "$taken" || "$root/bin/ctr" --namespace k8s.io images import "$taken"
	rm -f -- "$taken"
}

# put_pair PATH OWNER BLOB STAMP NOTE: a key and its certificate. The stamp, written last, has both digests, which show that they belong
# together, and a note of what the certificate says.
put_pair() {
	rm -f -- "$4"
	put_file "$1.key" 600 "$2" "$3.key" any
	put_file "$1.crt" 644 "$2" "$3.crt" any
	make_folders "$state/stamps"
	{
		sha256sum -- "$1.crt" "$1.key" | cut -d ' ' -f 1 | paste -s -d ' ' -
		printf '%s\n' "$5"
	} >"$4.new"
	sync "$4.new"
	mv -f -- "$4.new" "$4"
}
