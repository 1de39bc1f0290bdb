# shellcheck shell=sh disable=SC2154
# What our own programs say over HTTP. Runs after the prelude.

# http_get PORT PATH: what 127.0.0.1 answers to a GET; fails unless it is 200. With whatever the machine has.
http_get() {
	if command -v curl >/dev/null 2>&1; then
		: >"$work/body"
		# A proxy that the environment names is not the way to ourselves.
		status=$(curl -sS --noproxy '*' -m 15 -o "$work/body" -w '%{http_code}' "http://127.0.0.1:$1$2") || return 1
		cat "$work/body"
		[ "$status" = 200 ]
	elif command -v bash >/dev/null 2>&1; then
		# shellcheck disable=SC2016 # expanded by the inner bash
		timeout 15 bash -c 'exec 5<>"/dev/tcp/127.0.0.1/$1" && printf "GET %s HTTP/1.0\r\n\r\n" "$2" >&5 && read -r status <&5 && case $status in *" 200 "*) cat <&5 ;; *) echo "$status" && exit 1 ;; esac' http_get "$1" "$2"
	else
		http_proxy='' wget -q -T 15 -O - "http://127.0.0.1:$1$2"
	fi
}

http_ok() {
	http_get "$1" "$2" >"$work/answer" || {
		tail -c 200 "$work/answer"
		return 1
	}
}

etcd_learner() {
	http_get 2381 /metrics 2>/dev/null | sed -n 's/^etcd_server_is_learner \([01]\).*/\1/p'
}

observe_etcd_role() {
	case $(etcd_learner) in
	0) emit etcd_role "$1" voter ;;
	1) emit etcd_role "$1" learner ;;
	esac
}
