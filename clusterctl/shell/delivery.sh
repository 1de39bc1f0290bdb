# shellcheck shell=sh disable=SC2154
# Files that are brought to a machine before anything is changed on it. Runs after the prelude.

incoming=$root/.incoming
relay=clusterctl-relay.service

# A download that gets no byte for so long is given up, in seconds; a relay that was left behind ends by itself after so long.
stall_seconds=60
relay_seconds=7200

# observe_delivery LINE...: LINE is 'NAME SHA256 URL'. Fetches the files, in order, until one fails; removes all others.
observe_delivery() {
	names=' ' child=
	for line; do names="$names${line%% *} "; done
	keep_incoming "$names"
	trap 'end_fetch' EXIT
	trap 'exit 1' HUP INT TERM PIPE
	(umask 022 && mkdir -p -- "$incoming")
	for line; do
		# shellcheck disable=SC2086 # words
		bring $line || break
	done
	rmdir -- "$incoming" "$root" 2>/dev/null || :
}

end_fetch() {
	use_proxy
	[ -z "$child" ] || kill "$child" 2>/dev/null || :
}

# keep_incoming NAMES: remove what an earlier run left; NAMES has spaces around each name.
keep_incoming() {
	for path in "$incoming"/*; do
		case $1 in *" ${path##*/} "*) ;; *) rm -f -- "$path" ;; esac
	done
}

# observe_drop: leave no trace of files that were not used. A look, as the machine may belong to no cluster.
observe_drop() {
	systemctl stop "$relay" 2>/dev/null || :
	rm -rf -- "$incoming"
	rmdir -- "$root" 2>/dev/null || :
}

# store_incoming NAME SHA256: keep a file that was sent with this program.
store_incoming() {
	(umask 022 && mkdir -p -- "$incoming")
	is_whole "$work/blobs/$1" "$2" || die "integrity: what arrived as $1 has the sha256 $sum"
	mv -- "$work/blobs/$1" "$incoming/$1"
}

# is_whole FILE SHA256: whether it is there and has the digest; the one that it has is then in 'sum'.
is_whole() {
	[ -f "$1" ] || return 1
	sum=$(sha256 "$1" | cut -d ' ' -f 1)
	[ "$sum" = "$2" ]
}

# bring NAME SHA256 URL: one file. Reports its size while it comes.
bring() {
	file=$incoming/$1
	if ! is_whole "$file" "$2"; then
		rm -f -- "$file" "$file.part"
		if ! fetch_watched "$1" "$3" "$file.part"; then
			emit unfetched "$1" "$3" "$(grep -v '^ *$' "$work/fetch" | tail -n 1 | tr -d '\t\r' | head -c 300)"
			rm -f -- "$file.part"
			return 1
		fi
		if ! is_whole "$file.part" "$2"; then
			emit altered "$1" "$3" "$sum" "$(stat -c %s -- "$file.part")"
			rm -f -- "$file.part"
			return 1
		fi
		mv -f -- "$file.part" "$file"
	fi
	emit brought "$1"
}

# fetch_watched NAME URL FILE: fetch, and end it where it gets nothing more.
fetch_watched() {
	fetch "$2" "$3" >"$work/fetch" 2>&1 </dev/null 3>&- 9>&- &
	child=$! last=0 moved=$(date +%s)
	while kill -0 "$child" 2>/dev/null; do
		size=$(stat -c %s -- "$3" 2>/dev/null || echo 0)
		emit arriving "$1" "$size"
		if [ "$size" -ne "$last" ]; then
			last=$size moved=$(date +%s)
		elif [ "$(date +%s)" -ge $((moved + stall_seconds)) ]; then
			kill "$child" 2>/dev/null || :
			echo "no byte for $stall_seconds s, after $size bytes" >>"$work/fetch"
		fi
		sleep 0.2
	done
	code=0
	wait "$child" || code=$?
	child=
	return "$code"
}

# fetch URL FILE: with the first program of these that the machine has; every Debian has apt's own.
fetch() {
	use_proxy
	helper=/usr/lib/apt/apt-helper
	if command -v curl >/dev/null 2>&1; then
		exec curl -fsSL --connect-timeout 10 --max-redirs 10 -o "$2" -- "$1"
	elif command -v wget >/dev/null 2>&1 && wget --version >/dev/null 2>&1; then # busybox's has no --version, and none of these options
		exec wget -nv -t 1 -T 60 --connect-timeout 10 -O "$2" -- "$1"
	elif command -v python3 >/dev/null 2>&1; then
		exec python3 -c 'import shutil, sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=60) as answer, open(sys.argv[2], "wb") as file: shutil.copyfileobj(answer, file)' "$1" "$2"
	elif [ -x "$helper" ]; then
		exec "$helper" -q -o APT::Sandbox::User=root -o Acquire::http::Timeout=10 -o Acquire::Retries=0 download-file "$1" "$2"
	fi
	die "curl, wget and python3 are missing"
}

# serve_incoming ADDRESS PORT: give the files to other machines over HTTP, until stop_serving.
serve_incoming() {
	stop_serving
	cat >"$incoming/.serve" <<'END'
read -r method path _
while read -r header && [ "${#header}" -gt 1 ]; do :; done
file=${0%/*}/${path##*/}
if [ "$method" = GET ] && [ -f "$file" ]; then
	printf 'HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %s\r\n\r\n' "$(stat -c %s -- "$file")"
	exec cat -- "$file"
fi
printf 'HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n'
END
	systemd-run --quiet --collect --unit="$relay" --property=RuntimeMaxSec="$relay_seconds" --property=ProtectSystem=strict \
		systemd-socket-activate --accept --inetd -l "$1:$2" sh "$incoming/.serve"
	port=$(printf ':%04X [0-9A-F:]* 0A ' "$2")
	turns=50
	until grep -q "$port" /proc/net/tcp; do
		turns=$((turns - 1))
		if [ "$turns" -eq 0 ] || ! systemctl is-active --quiet "$relay"; then
			systemctl status --no-pager "$relay" || :
			die "nothing listens on $1:$2"
		fi
		sleep 0.1
	done
}

stop_serving() {
	systemctl stop "$relay" 2>/dev/null || :
	rm -f -- "$incoming/.serve"
}
