# shellcheck shell=sh
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
	# Where nobody listens any more, nothing more is done.
	printf '%s\n' "$line" >&3 || exit 1
}

# Each line of stdin becomes a record of the given kind.
emit_lines() {
	sed "s/^/$nonce$tab$1$tab/" >&3
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
		emit failed "$index" "$code" "$(tail -c 2048 "$work/output" | base64 | tr -d '\n')"
		exit 0
	fi
	emit ok "$index"
}

die() {
	printf '%s\n' "$*" >&2
	exit 1
}

# sha256 FILE...: the digest of each, one a line; openssl is several times faster than coreutils.
sha256() {
	if command -v openssl >/dev/null 2>&1; then
		openssl dgst -sha256 -r "$@" | cut -d ' ' -f 1
	else
		sha256sum "$@" | cut -d ' ' -f 1
	fi
}

# --- what is there: each takes all its arguments at once, to fork once and not once for each ---

observe_stat() {
	stat -c "%n$tab%F$tab%a$tab%U:%G" -- "$@" 2>/dev/null | emit_lines stat
}

observe_sha() {
	# Files alone: reading a pipe would wait for ever.
	for path; do
		shift
		[ ! -f "$path" ] || set -- "$@" "$path"
	done
	[ $# -eq 0 ] || sha256sum -- "$@" 2>/dev/null | emit_lines sha
}

observe_text() {
	for path; do
		shift
		[ ! -f "$path" ] || set -- "$@" "$path"
	done
	[ $# -eq 0 ] || grep -H '' -- "$@" 2>/dev/null | emit_lines text
}

observe_link() {
	for path; do
		[ -L "$path" ] || continue
		target=$(readlink "$path")
		case $target in *"$tab"* | *"$newline"*) target="not one word" ;; esac
		emit link "$path" "$target"
	done
}

observe_unit() {
	systemctl show --property=Id,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload -- "$@" | emit_lines unit
}

observe_stamp() {
	for unit; do
		if [ -r "$state/stamps/$unit" ]; then
			read -r digest <"$state/stamps/$unit" || :
			emit stamp "$unit" "${digest:-}"
		fi
	done
}

observe_sysctl() {
	for key; do
		path=/proc/sys/$(printf %s "$key" | tr . /)
		# Not by read: dash reads byte by byte, and the kernel gives a number at the first read alone.
		if [ -r "$path" ]; then emit sysctl "$key" "$(cat "$path")"; fi
	done
}

observe_module() {
	for pair; do
		if [ -d "/sys/module/${pair%%=*}" ] || [ -e "${pair#*=}" ]; then emit module "$pair" loaded; fi
	done
}

observe_package() {
	if command -v dpkg-query >/dev/null 2>&1; then
		dpkg-query -W -f '${binary:Package} ${db:Status-Abbrev}\n' -- "$@" 2>/dev/null | sed -n 's/^\([^ :]*\)[^ ]* ii.*/\1/p' | emit_lines package
	else
		for name; do
			if rpm -q --quiet "$name"; then emit package "$name"; fi
		done
	fi
}

observe_user() {
	for name; do
		getent passwd "$name" | emit_lines user
	done
}

observe_image() {
	[ ! -S /run/containerd/containerd.sock ] || "$root/bin/ctr" --namespace k8s.io --timeout 20s images ls -q 2>/dev/null | emit_lines image
}

# observe_program FOLDER...: installed programs; they are hashed again only where size, times or inode differ from the stamp.
observe_program() {
	for folder; do
		[ -r "$folder/.stamp" ] || continue
		{
			read -r source
			recorded=$(cat)
		} <"$folder/.stamp"
		current=$(cd "$folder" && stat -c '%s %Y %Z %i %a %U %n' -- * 2>/dev/null)
		verdict=intact
		if [ "$current" != "$(printf '%s\n' "$recorded" | cut -d ' ' -f 2-)" ]; then
			verdict=$(program_verdict "$folder" "$recorded")
		elif [ "${verify:-}" = yes ]; then
			verdict=$(program_verdict "$folder" "$recorded")
		fi
		emit program "$folder" "$verdict" "$source"
	done
}

program_verdict() {
	printf '%s\n' "$2" | while read -r sum _ _ _ _ mode owner name; do
		[ -f "$1/$name" ] || { echo "missing $name"; break; }
		[ "$(sha256 "$1/$name")" = "$sum" ] || { echo "modified $name"; break; }
		[ "$(stat -c '%a %U' -- "$1/$name")" = "$mode $owner" ] || { echo "mode $name"; break; }
	done | grep . || echo intact
}

# --- what is to be ---

# put_file PATH MODE OWNER BLOB EXPECTED: whole or not at all; EXPECTED is what the plan saw: a sha256, 'absent' or 'any'.
put_file() {
	[ ! -d "$1" ] || die "$1 is a folder"
	check_fresh "$1" "$5"
	folder=${1%/*}
	[ -d "$folder" ] || make_folders "$folder"
	# What a program that was killed left behind; the lock says that none is at work.
	rm -f -- "$folder"/.clusterctl.?????? 2>/dev/null || :
	temporary=$(mktemp "$folder/.clusterctl.XXXXXX")
	trap 'rm -f -- "$temporary"' EXIT
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

# Folders that nobody declared are readable by all; the umask of programs is 077.
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

remove_path() {
	rm -rf -- "$1"
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
put_packages() {
	if command -v apt-get >/dev/null 2>&1; then
		quiet_apt "$@"
	elif command -v dnf >/dev/null 2>&1; then
		dnf -y install "$@"
	else
		die "no package manager that clusterctl knows (apt-get, dnf): install by hand: $*"
	fi
}

quiet_apt() {
	# A machine that never fetched the lists would fail first and fetch them then.
	ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || apt-get -q -o DPkg::Lock::Timeout=120 update
	DEBIAN_FRONTEND=noninteractive
	export DEBIAN_FRONTEND
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap 'rm -f -- "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	install_packages "$@" || {
		apt-get -q -o DPkg::Lock::Timeout=120 update
		install_packages "$@"
	}
	for name; do
		for unit in $(dpkg-query -L "$name" | sed -n 's/^\(\/usr\)\{0,1\}\/lib\/systemd\/system\/\([^/@]*\.service\)$/\2/p'); do
			systemctl disable --quiet -- "$unit" 2>/dev/null || :
		done
	done
}

install_packages() {
	apt-get -y -q -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io --no-install-recommends install "$@"
}

# put_program FOLDER SHA256 KIND BLOB NAME...: verified again here, unpacked beside, then renamed. KIND: zst (one program) or tar (an archive).
put_program() {
	folder=$1 sum=$2 kind=$3 blob=$work/blobs/$4
	shift 4
	rm -rf -- "$folder.new"
	make_folders "$folder.new"
	trap 'rm -rf -- "$folder.new"' EXIT
	if [ "$kind" = zst ]; then
		zstd -d -q -o "$folder.new/$1" -- "$blob"
		arrived=$(sha256 "$folder.new/$1")
	else
		arrived=$(sha256 "$blob")
	fi
	[ "$arrived" = "$sum" ] || die "integrity: what arrived for $folder has the sha256 $arrived and not $sum"
	[ "$kind" = zst ] || unpack "$blob" "$folder.new" "$@"
	cd "$folder.new"
	chown 0:0 -- *
	chmod 0755 -- *
	sync -- *
	cd "$folder.new/.."
	rm -rf -- "$folder"
	mv -- "$folder.new" "$folder"
	cd "$folder"
	# Taken after the rename: a rename of the folder changes no ctime of what is inside.
	{
		echo "$sum"
		for name in *; do
			own=$sum
			[ "$kind" = zst ] || own=$(sha256 "$name")
			echo "$own $(stat -c '%s %Y %Z %i %a %U %n' -- "$name")"
		done
	} >.stamp.new
	sync .stamp.new
	mv -f .stamp.new .stamp
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

put_image() {
	[ "$(sha256 "$work/blobs/$2")" = "$1" ] || die "integrity: the image archive that arrived does not have the sha256 $1"
	"$root/bin/ctr" --namespace k8s.io images import --local --digests=false "$work/blobs/$2" || "$root/bin/ctr" --namespace k8s.io images import "$work/blobs/$2"
}

# forget_stamps UNIT...: these will be restarted; should this run not come so far, the next one sees it.
forget_stamps() {
	for unit; do rm -f -- "$state/stamps/$unit"; done
}

# begin_services UNIT...: have them start all at once; put_service then waits for each.
begin_services() {
	make_folders "$state/stamps"
	for unit; do rm -f -- "$state/stamps/$unit"; done
	systemctl daemon-reload
	systemctl enable --quiet -- "$@"
	systemctl reset-failed -- "$@" 2>/dev/null || :
	systemctl restart --no-block -- "$@"
}

# put_service UNIT DIGEST VERB SECONDS PROBE...: VERB is restart, start, or await after begin_services; the stamp says with what it runs,
# and is written last.
put_service() {
	unit=$1 digest=$2 verb=$3 seconds=$4
	shift 4
	deadline=$(($(date +%s) + seconds))
	if [ "$verb" != await ]; then
		make_folders "$state/stamps"
		rm -f -- "$state/stamps/$unit"
		systemctl daemon-reload
		systemctl enable --quiet -- "$unit"
		systemctl reset-failed -- "$unit" 2>/dev/null || :
		timeout "$seconds" systemctl "$verb" -- "$unit" || unit_failed "$unit" "did not start"
	fi
	until_ready "$unit" "$deadline" "$@"
	printf '%s\n' "$digest" >"$state/stamps/$unit.new"
	sync "$state/stamps/$unit.new"
	mv -f -- "$state/stamps/$unit.new" "$state/stamps/$unit"
}

until_ready() {
	unit=$1 deadline=$2
	shift 2
	[ $# -gt 0 ] || set -- true
	until systemctl is-active --quiet -- "$unit" && "$@" >"$work/probe" 2>&1; do
		if [ "$(date +%s)" -ge "$deadline" ] || systemctl is-failed --quiet -- "$unit"; then
			unit_failed "$unit" "is not ready; last seen: $(tail -c 300 "$work/probe" 2>/dev/null)"
		fi
		sleep 0.1
	done
}

unit_failed() {
	printf '%s %s (%s)\n' "$1" "$2" "$(systemctl show --property=ActiveState,SubState,Result --value -- "$1" | tr '\n' ' ')"
	journalctl --unit "$1" --lines 12 --no-pager --output cat 2>/dev/null | tail -c 1500
	exit 1
}

# http_get PORT PATH: what 127.0.0.1 answers to a GET; fails unless it is 200. With whatever the machine has.
http_get() {
	if command -v curl >/dev/null 2>&1; then
		: >"$work/body"
		# A proxy that the environment names is not the way to ourselves.
		status=$(curl -sS --noproxy '*' -m 5 -o "$work/body" -w '%{http_code}' "http://127.0.0.1:$1$2") || return 1
		cat "$work/body"
		[ "$status" = 200 ]
	elif command -v bash >/dev/null 2>&1; then
		# shellcheck disable=SC2016 # expanded by the inner bash
		timeout 5 bash -c 'exec 5<>"/dev/tcp/127.0.0.1/$1" && printf "GET %s HTTP/1.0\r\n\r\n" "$2" >&5 && read -r status <&5 && case $status in *" 200 "*) cat <&5 ;; *) echo "$status" && exit 1 ;; esac' http_get "$1" "$2"
	else
		http_proxy='' wget -q -T 5 -O - "http://127.0.0.1:$1$2"
	fi
}

http_ok() {
	http_get "$1" "$2" >"$work/answer" || {
		tail -c 200 "$work/answer"
		return 1
	}
}

api_ready() {
	"$root/bin/kubectl" --kubeconfig "$1" --request-timeout 5s get --raw /readyz
}

tcp_open() {
	# shellcheck disable=SC2016 # expanded by the inner bash
	timeout 5 bash -c 'exec 5<>"/dev/tcp/$1/$2"' tcp_open "$1" "$2"
}

# put_pair PATH OWNER BLOB STAMP: a key and its certificate; the stamp, written last, says that they belong together.
put_pair() {
	rm -f -- "$4"
	put_file "$1.key" 600 "$2" "$3.key" any
	put_file "$1.crt" 644 "$2" "$3.crt" any
	make_folders "$state/stamps"
	sha256sum -- "$1.crt" "$1.key" | cut -d ' ' -f 1 | paste -s -d ' ' - >"$4.new"
	sync "$4.new"
	mv -f -- "$4.new" "$4"
}
