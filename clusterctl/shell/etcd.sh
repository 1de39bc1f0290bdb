# shellcheck shell=sh disable=SC2154
# etcd's members. Runs after the prelude.

join_seconds=60

# etcd_at ENDPOINTS WORD...: etcdctl with the certificate that health checks use.
etcd_at() {
	endpoints=$1
	shift
	"$root/bin/etcdctl" --endpoints "$endpoints" --cacert /etc/etcd/pki/ca.crt --cert /etc/etcd/pki/healthcheck-client.crt --key /etc/etcd/pki/healthcheck-client.key --command-timeout 5s "$@"
}

# A learner does not answer an ordinary read; that it serves its metrics is all that can be asked of it.
etcd_ready() {
	if [ "$(etcd_learner)" = 1 ]; then return 0; fi
	etcd_at https://127.0.0.1:2379 --command-timeout 15s endpoint health
}

# etcd_listed PEER_URL: 'started' or 'unstarted', as 'members' has it; nothing where it is not among them.
etcd_listed() {
	printf '%s\n' "$members" | awk -F ', ' -v url="$1" '$4 == url {print $2}'
}

# etcd_join NAME PEER_URL ENDPOINTS TOKEN: become a learner, once, and write down what the first start must be told.
etcd_join() {
	members=$(etcd_at "$3" member list)
	deadline=$(($(date +%s) + join_seconds))
	while [ -z "$(etcd_listed "$2")" ]; do
		# Refused as "unhealthy cluster" while a voter has been connected for less than 5 s (mayAddMember in etcd's server.go).
		if ! said=$(etcd_at "$3" member add "$1" --learner "--peer-urls=$2" 2>&1); then
			[ "$(date +%s)" -lt "$deadline" ] || die "etcd.not-added: no learner was added within $join_seconds s; last seen: $said"
			sleep 0.5
		fi
		# An attempt whose answer was lost may have added it.
		members=$(etcd_at "$3" member list) || members=
	done
	[ "$(etcd_listed "$2")" = unstarted ] \
		|| die "etcd.member-exists: the member with $2 has been started; an empty data folder must not take its place"
	rm -f -- /etc/etcd/formed
	# A member that has not started yet has no name in the list: it is ours.
	cluster=$(printf '%s\n' "$members" | awk -F ', ' -v name="$1" -v url="$2" '{printf "%s%s=%s", (NR > 1 ? "," : ""), ($4 == url ? name : $3), $4}')
	printf 'ETCD_INITIAL_CLUSTER=%s\nETCD_INITIAL_CLUSTER_STATE=existing\nETCD_INITIAL_CLUSTER_TOKEN=%s\n' "$cluster" "$4" >/etc/etcd/.initial.new
	sync /etc/etcd/.initial.new
	mv -f /etc/etcd/.initial.new /etc/etcd/initial.env
}

# etcd_promote NAME ENDPOINTS SECONDS: refused until the learner has caught up.
etcd_promote() {
	id=$(etcd_at "$2" member list | awk -F ', ' -v name="$1" '$3 == name {print $1}')
	[ -n "$id" ] || die "etcd has no member named $1"
	deadline=$(($(date +%s) + $3))
	until said=$(etcd_at "$2" member promote "$id" 2>&1); do
		if [ "$(etcd_learner)" = 0 ]; then return 0; fi
		[ "$(date +%s)" -lt "$deadline" ] || die "the learner was not promoted within $3 s; last seen: $said"
		sleep 0.5
	done
}
