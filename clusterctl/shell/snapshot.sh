# shellcheck shell=sh disable=SC2154
# Restores a snapshot of etcd into a scratch member, starts it and asks it. Runs after the prelude.

# observe_room PATH...: the file system of each, or of the folder that it would be in: free and usable bytes, and its id.
observe_room() {
	for path; do
		place=$path
		until [ -e "$place" ]; do
			place=${place%/*}
			place=${place:-/}
		done
		stat -f -c '%a %b %f %S %i' -- "$place" | while read -r free blocks unused size device; do
			emit room "$path" "$((free * size))" "$(((blocks - unused + free) * size))" "$device"
		done
	done
}

# observe_snapshot BLOB: one record: ok REVISION KEYS, killed, or failed and why.
observe_snapshot() {
	code=0
	said=$(prove_snapshot "$work/blobs/$1" "$work/scratch" 2>&1 </dev/null 3>&- 9>&-) || code=$?
	# shellcheck disable=SC2086 # two numbers
	case $code in
	0) emit snapshot ok $said ;;
	137) emit snapshot killed ;;
	*) emit snapshot failed "$(printf '%s' "$said" | tail -c 1500 | base64 | tr -d '\n')" ;;
	esac
}

# prove_snapshot FILE FOLDER: with other ports where these are taken; the kernel assigns those from 32768 on to outgoing connections.
prove_snapshot() {
	limit_scratch "$1"
	turn=0
	until prove_at "$1" "$2" "$((20000 + ($$ + turn * 1237) % 5000 * 2))"; do
		[ "$code" -ne 137 ] || return 137
		turn=$((turn + 1))
		if [ "$turn" -eq 4 ] || ! grep -q 'address already in use' "$2.log"; then
			tail -c 1000 "$2.log"
			return 1
		fi
		rm -rf -- "$2"
	done
}

# limit_scratch FILE: how programs of the scratch member are kept from harming the member that serves. Cgroups limit memory and
# I/O, where systemd offers it; otherwise a low priority has to do.
limit_scratch() {
	memory=$(($(wc -c <"$1") + 805306368))
	scope="systemd-run --quiet --collect --scope -p IOWeight=10 -p CPUWeight=10 -p MemoryMax=$memory --"
	$scope true 2>/dev/null || scope=''
	idle='ionice -c 3'
	$idle true 2>/dev/null || idle=''
}

# spared COMMAND...: in place of this shell, limited, and the first to be killed where memory runs out.
spared() {
	echo 1000 2>/dev/null >/proc/self/oom_score_adj || :
	# shellcheck disable=SC2086 # words
	exec $scope nice -n 19 $idle "$@"
}

# prove_at FILE FOLDER PORT: a member of its own on 127.0.0.1, which admits only clients with our certificates.
prove_at() {
	(spared "$root/bin/etcdutl" snapshot restore "$1" --data-dir "$2" --name scratch \
		--initial-cluster "scratch=https://127.0.0.1:$(($3 + 1))" \
		--initial-advertise-peer-urls "https://127.0.0.1:$(($3 + 1))") >"$2.log" 2>&1 || {
		code=$?
		return "$code"
	}
	start_scratch "$2" scratch "$3"
	ask_scratch "https://127.0.0.1:$3"
	code=$?
	stop_scratch || code=137
	return "$code"
}

# start_scratch FOLDER NAME PORT [FLAG...]: its process into 'scratch'.
start_scratch() {
	data=$1 name=$2 url=https://127.0.0.1:$3 peer=https://127.0.0.1:$(($3 + 1))
	shift 3
	spared "$root/bin/etcd" --data-dir "$data" --name "$name" --initial-advertise-peer-urls "$peer" \
		--listen-peer-urls "$peer" --listen-client-urls "$url" --advertise-client-urls "$url" --initial-cluster "$name=$peer" \
		--cert-file /etc/etcd/pki/server.crt --key-file /etc/etcd/pki/server.key --client-cert-auth \
		--trusted-ca-file /etc/etcd/pki/ca.crt --peer-cert-file /etc/etcd/pki/peer.crt --peer-key-file /etc/etcd/pki/peer.key \
		--peer-client-cert-auth --peer-trusted-ca-file /etc/etcd/pki/ca.crt --force-new-cluster "$@" >"$data.log" 2>&1 &
	scratch=$!
}

# stop_scratch: fails where it was killed before.
stop_scratch() {
	kill "$scratch" 2>/dev/null
	wait "$scratch" 2>/dev/null
	[ $? -ne 137 ]
}

# await_scratch URL
await_scratch() {
	ends=$(($(date +%s) + 60))
	until etcd_at "$1" endpoint health >/dev/null 2>&1; do
		if [ "$(date +%s)" -ge "$ends" ] || ! kill -0 "$scratch" 2>/dev/null; then return 1; fi
		sleep 0.1
	done
}

# ask_scratch URL: its revision and the number of its keys.
ask_scratch() {
	await_scratch "$1" || return 1
	fields=$(etcd_at "$1" get '' --prefix --count-only --write-out fields) || return 1
	printf '%s %s\n' "$(printf '%s\n' "$fields" | sed -n 's/^"Revision" : //p')" "$(printf '%s\n' "$fields" | sed -n 's/^"Count" : //p')"
}
