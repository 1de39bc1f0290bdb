# shellcheck shell=sh disable=SC2154
# The functions that compiled programs call. POSIX sh: runs in dash, bash and busybox. fd 3 alone reaches the controller.
set -u
umask 077
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
tab='	'
newline='
'
root=/opt/clusterctl
state=/var/lib/clusterctl
nonce=$1
work=$2

# emit WORD...: one record.
emit() {
	line=$nonce
	for word; do line="$line$tab$word"; done
	# Do nothing more once the controller has closed the connection.
	printf '%s\n' "$line" >&3 || exit 1
}

# lines KIND: until the next record, each line that reaches fd 3 is one of this kind.
lines() {
	emit lines "$1"
}

# lock_machine -x|-s HOLDER: take the lock of this machine, which ends with the program. After a second of waiting the holder's text is
# reported. Programs that share the lock leave none: what they find is of a program that was killed.
lock_machine() {
	exec 9>>"$state/lock"
	if ! flock "$1" -w 1 9; then
		emit waiting "$(head -c 300 "$state/lock" | head -n 1 | tr -d '\t')"
		flock "$1" -w 119 9 || exit 75
	fi
	if [ "$1" = -s ]; then set -- "$1" ''; fi
	if [ -n "$2" ] || [ -s "$state/lock" ]; then printf '%s' "${2:+$2$newline}" >"$state/lock" || :; fi
}

# use_proxy: from here on the environment names the machine's proxy, as it was sent with this program or is on the machine.
use_proxy() {
	for proxy in "$work/blobs/proxy" /etc/clusterctl/proxy.env; do
		[ -r "$proxy" ] || continue
		set -a
		# shellcheck disable=SC1090 # made by clusterctl
		. "$proxy"
		set +a
		return 0
	done
}

# Each line of stdin becomes a record of the given kind, the last one too where it does not end.
emit_lines() {
	lines "$1"
	awk 1 >&3
}

# step INDEX FUNCTION ARG...: run in a subshell; the first failure ends the program.
step() {
	index=$1
	shift
	(
		set -e
		"$@"
	) >"$work/output" 2>&1 </dev/null 3>&- 9>&-
	code=$?
	if [ "$code" -ne 0 ]; then
		emit failed "$index" "$code" "$({ tail -c 1900 "$work/output"; full_disks; } | base64 | tr -d '\n')"
		if [ -e "$work/kept" ]; then go_back; fi
		exit 0
	fi
	emit ok "$index"
}

# What runs was interrupted and does not come up with what is new: what was there before stands again.
go_back() {
	(
		set -e
		roll_back 60
	) >"$work/output" 2>&1 </dev/null 3>&- 9>&-
	emit back "$?" "$(tail -c 1900 "$work/output" | base64 | tr -d '\n')"
}

# Programs have many words for a full disk, and some none: it is said here.
full_disks() {
	df -Pk /opt /var/lib /etc 2>/dev/null | awk 'NR > 1 && $4 < 1024 && !seen[$6]++ {print "no space is left on the file system " $6}'
}

die() {
	printf '%s\n' "$*" >&2
	exit 1
}

# sha256 FILE...: a line 'DIGEST *NAME' for each, in order; openssl is several times faster than coreutils.
sha256() {
	if command -v openssl >/dev/null 2>&1; then
		openssl dgst -sha256 -r "$@"
	else
		sha256sum -b "$@"
	fi
}

# --- what is there: each takes all its arguments at once, to fork once and not once for each ---

# The time is that of the content's last change. Of links their targets, too; quoted as in C, whatever is in them.
observe_stat() {
	lines stat
	QUOTING_STYLE=c stat -c "%N$tab%F$tab%a$tab%U:%G$tab%Y" -- "$@" 2>/dev/null >&3
}

observe_sha() {
	# Files alone: reading a pipe would wait for ever.
	for path; do
		shift
		[ ! -f "$path" ] || set -- "$@" "$path"
	done
	lines sha
	[ $# -eq 0 ] || sha256sum -- "$@" 2>/dev/null >&3
}

observe_text() {
	for path; do
		shift
		[ ! -f "$path" ] || set -- "$@" "$path"
	done
	lines text
	[ $# -eq 0 ] || grep -H '' -- "$@" 2>/dev/null >&3
}

# observe_content PATH...: whole files, for people who want to see what changes in them.
observe_content() {
	for path; do
		[ ! -f "$path" ] || emit content "$path" "$(head -c 262144 -- "$path" | base64 | tr -d '\n')"
	done
}

# One question for all units.
observe_unit() {
	lines unit
	systemctl show --property=Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload -- "$@" 2>/dev/null >&3 || :
}

observe_module() {
	for pair; do
		if [ -d "/sys/module/${pair%%=*}" ] || [ -e "${pair#*=}" ] || is_builtin "${pair#*=}"; then emit module "$pair" loaded; fi
	done
}

# is_builtin PATTERN: whether the kernel has a module of this name built in; such a one need not have a folder in /sys/module.
is_builtin() {
	case $1 in builtin:*) grep -qE "/${1#builtin:}[.]ko" "/lib/modules/$(uname -r)/modules.builtin" 2>/dev/null ;; *) return 1 ;; esac
}

observe_package() {
	if command -v dpkg-query >/dev/null 2>&1; then
		lines dpkg
		dpkg-query -W -f '${binary:Package} ${db:Status-Abbrev}\n' -- "$@" 2>/dev/null >&3 || :
	else
		for name; do
			# Fedora's family has some of them under other names, and says so.
			if rpm -q --quiet --whatprovides "$name"; then emit package "$name"; fi
		done
	fi
}

observe_user() {
	lines user
	getent passwd "$@" >&3
}

# observe_image all: the references of all images.
observe_image() {
	[ -S /run/containerd/containerd.sock ] || return 0
	names=$("$root/bin/ctr" --namespace k8s.io --timeout 20s images ls -q 2>/dev/null) || return 0
	lines image
	[ -z "$names" ] || printf '%s\n' "$names" >&3
}

# observe_program PRODUCT...: all installed versions of products, by the folder of each product. Their files are hashed again only
# where the stat cache does not vouch for them.
observe_program() {
	for product; do
		shift
		for folder in "$product"/*; do
			[ ! -r "$folder/.stamp" ] || set -- "$@" "$folder"
		done
	done
	[ $# -gt 0 ] || return 0
	verdicts=$(stat_cache "$@") IFS=$newline
	set -f
	# shellcheck disable=SC2086 # a line is a word
	set -- $verdicts
	set +f
	unset IFS
	while [ $# -ge 3 ]; do
		verdict=$3
		if [ "$verdict" != intact ] || [ "${verify:-}" = yes ]; then
			verdict=$(program_verdict "$1" "$(sed 1d "$1/.stamp")")
		fi
		emit program "$1" "$verdict" "$2"
		shift 3
	done
}

# stat_file -- FILE...: a line of the stat cache for each; put_program writes the same lines to .stamp, after the digests.
stat_file() {
	stat -c '%s:%.Y:%.Z:%i %a %U %n' "$@"
}

# stat_cache FOLDER...: three lines each: the folder, the sha256 of the source, and 'intact' where no file can have been written to
# since its digest was noted in .stamp. As in git's index, an entry is compared by size, mtime, ctime and inode, and not trusted where
# it is racy: changed in the tick of the clock in which .stamp was written, or later (gitformat-index(5), racy-git).
stat_cache() {
	for folder; do
		shift
		set -- "$@" "$folder/.stamp"
	done
	stat_file -- "$@" "$root"/*/*/* 2>/dev/null >"$work/there" || :
	awk 'FILENAME == ARGV[1] {
		name = $0
		for (i = 0; i < 3; i++) sub(/^[^ ]* /, "", name)
		base = name
		sub(/.*\//, "", base)
		folder = substr(name, 1, length(name) - length(base) - 1)
		split($1, state, ":")
		if (base == ".stamp") {
			written[folder] = state[2] + 0
			next
		}
		there[folder] = there[folder] substr($0, 1, length($0) - length(name)) base "\n"
		if (state[3] + 0 > changed[folder]) changed[folder] = state[3] + 0
		next
	}
	FNR == 1 {
		report()
		folder = substr(FILENAME, 1, length(FILENAME) - 7)
		source = $0
		recorded = ""
		next
	}
	{
		line = $0
		sub(/^[^ ]* /, "", line)
		recorded = recorded line "\n"
	}
	function report() {
		racy = changed[folder] >= written[folder]
		if (source != "") printf "%s\n%s\n%s\n", folder, source, recorded == there[folder] && !racy ? "intact" : "unknown"
	}
	END {report()}' "$work/there" "$@"
}

program_verdict() {
	printf '%s\n' "$2" | while read -r sum _ mode owner name; do
		[ -f "$1/$name" ] || { echo "missing $name"; break; }
		[ "$(sha256 "$1/$name" | cut -d ' ' -f 1)" = "$sum" ] || { echo "modified $name"; break; }
		[ "$(stat -c '%a %U' -- "$1/$name")" = "$mode $owner" ] || { echo "mode $name"; break; }
	done | grep . || echo intact
}

# observe_command COMMAND: what it prints and how it ends.
observe_command() {
	code=0
	sh -c "$1" >"$work/output" 2>&1 </dev/null 3>&- 9>&- || code=$?
	emit_lines output <"$work/output"
	emit exit "$code"
}

# etcd_data: formed where etcd's member here has served, lost where it has and its write-ahead log is gone, begun where it has data alone.
etcd_data() {
	set -- /var/lib/etcd/member/wal/*.wal
	if [ -e /etc/etcd/formed ] && [ -e "$1" ]; then
		echo formed
	elif [ -e /etc/etcd/formed ]; then
		echo lost
	elif [ -e /var/lib/etcd/member ]; then
		echo begun
	fi
}

observe_etcd_data() {
	emit etcd_data "$1" "$(etcd_data)"
}
