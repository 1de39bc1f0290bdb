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
images=/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db
rest_seconds=3
nonce=$1
work=$2

# emit WORD...: one record.
emit() {
	line=$nonce
	for word; do line="$line$tab$word"; done
	# Where nobody listens any more, nothing more is done.
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
		put_back 60
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

# One question for all units. What is not active now may be so in a moment, without a trace in any file.
observe_unit() {
	answer=$(systemctl show --property=Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload -- "$@" 2>/dev/null)
	lines unit
	printf '%s\n\n' "$answer" >&3
	active=$(printf '%s\n' "$answer" | grep -cx 'ActiveState=active')
	[ "$active" -eq $# ] || passing
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
		[ -e /var/lib/rpm/rpmdb.sqlite ] || passing
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

observe_image() {
	[ -S /run/containerd/containerd.sock ] || return 0
	[ -n "${marks:-}" ] || take_marks
	noted images list_images
}

list_images() {
	answer=$("$root/bin/ctr" --namespace k8s.io --timeout 20s images ls -q 2>/dev/null) || { passing && return 0; }
	lines image
	[ -z "$answer" ] || printf '%s\n' "$answer" >&3
}

# noted NAME FUNCTION: the records that a function prints; those of the last time, where what they are made of is as it was then.
# They are noted beside the state of those files: until somebody has written to one, the same is seen in it. A function that saw what
# no file tells of says 'passing'. On machines of other clusters, and of none, nothing is noted. What was noted a week ago is asked anew,
# and what else is asked has other notes. Notes are read as sh reads its own text: its 'read' takes one byte at a time. Nothing goes through a file: half of it could be there on a full disk.
noted() {
	note=$state/noted/$1 noted_at=0 noted_state='' noted_records=''
	state_of "$1"
	current=$found began=${marks%%:*}
	# shellcheck disable=SC1090 # made here
	if [ "${verify:-}" != yes ] && [ -r "$note" ]; then . "$note"; fi
	if [ -n "$current" ] && [ "$noted_state" = "$current" ] && [ "$((${began%%.*} - noted_at))" -lt 604800 ]; then
		printf '%s' "$noted_records" >&3
		return 0
	fi
	# Whether all of it was said its own end tells: a question may fail.
	records=$({ "$2"; emit whole; } 3>&1 >/dev/null)
	case $records in *"$nonce${tab}whole") records=${records%"$nonce${tab}whole"} ;; *) exit 1 ;; esac
	printf '%s' "$records" >&3
	case $records in *"$nonce${tab}passing"*) return 0 ;; esac
	if [ -z "$current" ] || ! of_this_cluster || ! made_of no_links; then return 0; fi
	take_marks
	state_of "$1"
	if [ "$found" != "$current" ] || ! at_rest; then return 0; fi
	mkdir -p "$state/noted"
	{
		printf 'noted_at=%s\n' "${began%%.*}"
		printf 'noted_state="%s"\n' "$(printf '%s\n' "$current" | sed 's/[\\"$`]/\\&/g')"
		# The next program has a nonce of its own.
		printf 'noted_records="%s\n"\n' "$(printf '%s' "$records" | sed "s/[\\\\\"\$\`]/\\\\&/g; s/^$nonce$tab/\$nonce$tab/")"
	} >"$note.$$" && sync "$note.$$" && mv -f "$note.$$" "$note"
	find "$state/noted" -type f -mtime +7 -exec rm -f {} +
}

passing() {
	emit passing yes
}

of_this_cluster() {
	line=
	[ ! -r /etc/clusterctl/cluster ] || read -r line </etc/clusterctl/cluster || :
	[ -n "$line" ] && [ "$line" = "$our_cluster" ]
}

# The lines of the marks that tell of what is noted under a name; of all that stands, what is asked as well.
state_of() {
	found=$images_state
	[ "$1" = images ] || found=$standing_state
}

# Since long enough before the look began: what is written within one tick of the clock leaves the times as they are, and some file
# systems count whole seconds.
at_rest() {
	printf '%s\n%s\n' "$began" "$found" | awk -v rest="$rest_seconds" 'NR == 1 {now = $1; next}
		NF > 7 && ($3 > now - rest || $4 > now - rest) {exit 1}'
}

no_links() {
	for path; do [ ! -L "$path" ] || return 1; done
}

# A program that looks tells here what its answers are made of: files, and places with whatever stands there.
made_of() {
	"$@"
}

places() {
	"$@"
}

# The state of all that may be noted, of all programs and of the links to them; each name comes last in its line, and a link's is
# 'NAME -> TARGET'. The first line says what time it is: that of a file which is made now.
take_marks() {
	: >"$work/now"
	set -- "$work/now" "$images" "$root"/*/*/* "$root"/bin/* /opt/cni/bin/bridge /opt/cni/bin/flannel
	marks=$(made_of places mark %u:%g "$@") || :
	images_state='' standing_state=${marks#*"$newline"}
	case ${standing_state%%"$newline"*} in *" $images")
		images_state=${standing_state%%"$newline"*}
		standing_state=${standing_state#*"$newline"}
		;;
	esac
	standing_state="${asked:-}$newline$standing_state"
}

# mark OWNER PATH...: OWNER is how its owner is told; to find a name takes as long as all of the rest.
mark() {
	owner=$1
	shift
	QUOTING_STYLE=literal stat -c "%.Y:%.Z %s %Y %Z %i %a $owner %N" -- "$@" 2>/dev/null
}

# observe_program FOLDER...: installed programs; they are hashed again only where size, times or inode differ from the stamp.
observe_program() {
	for folder; do
		shift
		[ ! -r "$folder/.stamp" ] || set -- "$@" "$folder"
	done
	[ $# -gt 0 ] || return 0
	mark %U "$root"/*/*/* >"$work/there" || :
	verdicts=$(stamps "$@") IFS=$newline
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

# stamps FOLDER...: three lines each: the folder, the source that its stamp names, and 'intact' where the rest of it is what is there.
stamps() {
	for folder; do
		shift
		set -- "$@" "$folder/.stamp"
	done
	awk 'FILENAME == ARGV[1] {
		line = $0
		sub(/^[^ ]* /, "", line)
		name = line
		for (i = 0; i < 6; i++) sub(/^[^ ]* /, "", name)
		base = name
		sub(/.*\//, "", base)
		folder = substr(name, 1, length(name) - length(base) - 1)
		there[folder] = there[folder] substr(line, 1, length(line) - length(name)) base "\n"
		next
	}
	FNR == 1 {
		said()
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
	function said() {
		if (source != "") printf "%s\n%s\n%s\n", folder, source, recorded == there[folder] ? "intact" : "differs"
	}
	END {said()}' "$work/there" "$@"
}

program_verdict() {
	printf '%s\n' "$2" | while read -r sum _ _ _ _ mode owner name; do
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
