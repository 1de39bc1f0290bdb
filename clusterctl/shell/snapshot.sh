# shellcheck shell=sh disable=SC2154
# A snapshot of etcd is proven by what it is for: a member is restored from it, started and asked. Runs after the prelude.

# observe_snapshot BLOB: one record: ok REVISION KEYS, or failed and why.
observe_snapshot() {
	if said=$(prove_snapshot "$work/blobs/$1" "$work/scratch" 2>&1 </dev/null 3>&- 9>&-); then
		# shellcheck disable=SC2086 # two numbers
		emit snapshot ok $said
	else
		emit snapshot failed "$(printf '%s' "$said" | tail -c 1500 | base64 | tr -d '\n')"
	fi
}

# prove_snapshot FILE FOLDER: with other ports where somebody has these; the kernel gives those from 32768 on to whoever connects.
prove_snapshot() {
	turn=0
	until prove_at "$1" "$2" "$((20000 + ($$ + turn * 1237) % 5000 * 2))"; do
		turn=$((turn + 1))
		if [ "$turn" -eq 4 ] || ! grep -q 'address already in use' "$2.log"; then
			tail -c 1000 "$2.log"
			return 1
		fi
		rm -rf -- "$2"
	done
}

# prove_at FILE FOLDER PORT: a member of its own on 127.0.0.1, which takes nobody without our certificates.
prove_at() {
	client=$3 peer=$(($3 + 1))
	"$root/bin/etcdutl" snapshot restore "$1" --data-dir "$2" --name scratch --initial-cluster "scratch=https://127.0.0.1:$peer" \
		--initial-advertise-peer-urls "https://127.0.0.1:$peer" >"$2.log" 2>&1 || return 1
	"$root/bin/etcd" --data-dir "$2" --name scratch --initial-advertise-peer-urls "https://127.0.0.1:$peer" \
		--listen-peer-urls "https://127.0.0.1:$peer" --listen-client-urls "https://127.0.0.1:$client" \
		--advertise-client-urls "https://127.0.0.1:$client" --initial-cluster "scratch=https://127.0.0.1:$peer" \
		--cert-file /etc/etcd/pki/server.crt --key-file /etc/etcd/pki/server.key --client-cert-auth \
		--trusted-ca-file /etc/etcd/pki/ca.crt --peer-cert-file /etc/etcd/pki/peer.crt --peer-key-file /etc/etcd/pki/peer.key \
		--peer-client-cert-auth --peer-trusted-ca-file /etc/etcd/pki/ca.crt --force-new-cluster >"$2.log" 2>&1 &
	scratch=$!
	ask_scratch "https://127.0.0.1:$client"
	code=$?
	kill "$scratch" 2>/dev/null
	wait "$scratch" 2>/dev/null
	return "$code"
}

# ask_scratch URL: its revision and the number of its keys.
ask_scratch() {
	ends=$(($(date +%s) + 60))
	until etcd_at "$1" endpoint health >/dev/null 2>&1; do
		if [ "$(date +%s)" -ge "$ends" ] || ! kill -0 "$scratch" 2>/dev/null; then return 1; fi
		sleep 0.1
	done
	fields=$(etcd_at "$1" get '' --prefix --count-only --write-out fields) || return 1
	printf '%s %s\n' "$(printf '%s\n' "$fields" | sed -n 's/^"Revision" : //p')" "$(printf '%s\n' "$fields" | sed -n 's/^"Count" : //p')"
}
