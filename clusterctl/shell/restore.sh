# shellcheck shell=sh disable=SC2154
# Restore of etcd's data on its members. Runs after the prelude and snapshot.sh.
#
# One line in $state/restore says how far this machine is: ID PHASE SHA256 MEMBERS, with tabs between. Phases: prepared (the new
# data lies beside the old), held (etcd is stopped and cannot start), swapped, started, done. Each function is a no-op beyond its phase.

etcd_data=/var/lib/etcd
etcd_etc=/etc/etcd
units=/etc/systemd/system
hold=$units/etcd.service.d/90-clusterctl-restore.conf
stop_seconds=20
control_plane='kube-apiserver.service kube-controller-manager.service kube-scheduler.service'

# observe_restore X: the marker; whether etcd is installed here and active; kilobytes of its data.
observe_restore() {
	[ ! -r "$state/restore" ] || emit_lines mark <"$state/restore"
	if [ -x "$root/bin/etcdutl" ] && [ -e "$units/etcd.service" ] && [ -e "$etcd_etc/pki/ca.crt" ]; then emit installed yes; fi
	emit active "$(systemctl is-active etcd.service)"
	if [ -e "$etcd_data/member" ]; then emit data "$(du -sk "$etcd_data/member" | cut -f 1)"; fi
}

# observe_revision X: of a member that is stopped, as its database has it.
observe_revision() {
	said=$("$root/bin/etcdutl" snapshot status "$etcd_data/member/snap/db" --write-out json 2>/dev/null) || return 0
	emit revision "$(printf '%s' "$said" | sed -n 's/.*"revision":\([0-9]*\).*/\1/p')"
}

# read_mark: into 'id', 'phase', 'digest', 'members'; empty where there is none.
read_mark() {
	id='' phase='' digest='' members=''
	[ ! -r "$state/restore" ] || IFS=$tab read -r id phase digest members <"$state/restore" || :
}

# write_mark ID PHASE SHA256 MEMBERS
write_mark() {
	printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >"$state/restore.new"
	sync "$state/restore.new"
	mv -f -- "$state/restore.new" "$state/restore"
	sync "$state"
}

# own_mark ID: read it. Another restore's ends the program.
own_mark() {
	read_mark
	[ "$id" = "$1" ] || die "restore $1 is not the one that this machine takes part in: ${id:-none}"
}

# restore_prepare ID SHA256 MEMBERS NAME PEER_URL TOKEN: make the new data beside the old, which serves meanwhile.
restore_prepare() {
	read_mark
	[ -z "$id" ] || [ "$id" = "$1" ] || die "the restore $id is not finished on this machine"
	if [ "$id" = "$1" ]; then return 0; fi
	arrived=$(sha256 "$work/blobs/snapshot" | cut -d ' ' -f 1)
	[ "$arrived" = "$2" ] || die "integrity: what arrived has the sha256 $arrived"
	make_data "$1" "$work/blobs/snapshot" "$3" "$4" "$5" "$6"
	write_mark "$1" prepared "$2" "$3"
}

# make_data ID FILE MEMBERS NAME PEER_URL TOKEN [FLAG...]: restore a file into $etcd_data/restore-ID. Revisions that clients have seen
# must not come again with other content: the revision is raised far beyond, and all before it is compacted.
make_data() {
	staged=$etcd_data/restore-$1 file=$2 cluster=$3 name=$4 url=$5 token=$6
	shift 6
	rm -rf -- "$etcd_data"/restore-*
	limit_scratch "$file"
	(spared "$root/bin/etcdutl" snapshot restore "$file" --data-dir "$staged.new" --name "$name" --initial-cluster "$cluster" \
		--initial-cluster-token "$token" --initial-advertise-peer-urls "$url" --bump-revision 1000000000 --mark-compacted "$@")
	chown -R etcd:etcd "$staged.new"
	chmod 700 "$staged.new"
	find "$staged.new" -type f -exec sync {} +
	mv -- "$staged.new" "$staged"
	sync "$etcd_data"
}

# restore_hold ID SHA256 MEMBERS: stop etcd; it does not start before restore_start, not even after a reboot.
restore_hold() {
	read_mark
	[ -z "$id" ] || [ "$id" = "$1" ] || die "the restore $id is not finished on this machine"
	case $phase in swapped | started | done) return 0 ;; esac
	make_folders "${hold%/*}"
	printf '[Unit]\n# A restore of etcd is not finished here.\nConditionPathExists=!%s\n' "$hold" >"$hold"
	sync "$hold" "${hold%/*}"
	systemctl daemon-reload
	systemctl stop etcd.service
	write_mark "$1" held "$2" "$3"
}

# recover_prepare ID NAME PEER_URL TOKEN: make the new data out of a copy of the old. The copy is started once, alone, on 127.0.0.1:
# so its write-ahead log, where the last acknowledged writes may be, goes into the database.
recover_prepare() {
	own_mark "$1"
	case $phase in swapped | started | done) return 0 ;; esac
	if [ -e "$etcd_data/restore-$1/member" ]; then return 0; fi
	[ -e "$etcd_data/member/snap/db" ] || die "there is no data of etcd in $etcd_data/member"
	copy=$etcd_data/recover-$1
	turn=0
	until replay "$copy" "$2" "$((20000 + ($$ + turn * 1237) % 5000 * 2))"; do
		turn=$((turn + 1))
		if [ "$turn" -eq 4 ] || ! grep -q 'address already in use' "$copy.log"; then die "a copy of its data cannot be started: $(tail -c 1000 "$copy.log")"; fi
	done
	make_data "$1" "$copy/member/snap/db" "$members" "$2" "$3" "$4" --skip-hash-check
	rm -rf -- "$copy" "$copy.log"
}

# replay COPY NAME PORT
replay() {
	rm -rf -- "$1"
	mkdir "$1"
	cp -a -- "$etcd_data/member" "$1/member"
	limit_scratch "$1/member/snap/db"
	start_scratch "$1" "$2" "$3"
	code=0
	await_scratch "https://127.0.0.1:$3" || code=1
	stop_scratch || code=1
	return "$code"
}

# restore_swap ID TOKEN: move the old data aside and the new one in its place; nothing is deleted.
restore_swap() {
	own_mark "$1"
	case $phase in swapped | started | done) return 0 ;; esac
	[ "$phase" = held ] || die "etcd is not stopped here yet: $phase"
	staged=$etcd_data/restore-$1
	keep_old "$1"
	if [ -e "$staged/member" ]; then mv -- "$staged/member" "$etcd_data/member"; fi
	rm -rf -- "$staged"
	printf 'ETCD_INITIAL_CLUSTER=%s\nETCD_INITIAL_CLUSTER_STATE=existing\nETCD_INITIAL_CLUSTER_TOKEN=%s\n' "$members" "$2" >"$etcd_etc/.initial.new"
	sync "$etcd_etc/.initial.new"
	mv -f -- "$etcd_etc/.initial.new" "$etcd_etc/initial.env"
	sync "$etcd_data" "$etcd_etc"
	write_mark "$1" swapped "$digest" "$members"
}

# keep_old ID: where new data is about to come, move the old aside; 'none' says that there was none.
keep_old() {
	old=$etcd_data/before-restore-$1
	mkdir -p -- "$old"
	chown etcd:etcd "$old"
	if [ -e "$etcd_etc/initial.env" ] && [ ! -e "$old/initial.env" ]; then
		cp -p -- "$etcd_etc/initial.env" "$old/.initial.new"
		mv -- "$old/.initial.new" "$old/initial.env"
	fi
	[ -e "$etcd_data/restore-$1/member" ] || return 0
	if [ -e "$old/member" ] || [ -e "$old/none" ]; then return 0; fi
	if [ -e "$etcd_data/member" ]; then mv -- "$etcd_data/member" "$old/member"; else : >"$old/none"; fi
	sync "$old" "$etcd_data"
}

# recover_leave ID: a survivor whose data is not taken joins the cluster anew: it becomes a machine that was never a member.
recover_leave() {
	own_mark "$1"
	case $phase in swapped | started | done) return 0 ;; esac
	old=$etcd_data/before-restore-$1
	mkdir -p -- "$old"
	chown etcd:etcd "$old"
	if [ -e "$etcd_data/member" ]; then mv -- "$etcd_data/member" "$old/member"; fi
	for file in initial.env formed; do
		[ ! -e "$etcd_etc/$file" ] || mv -f -- "$etcd_etc/$file" "$old/$file"
	done
	sync "$etcd_data" "$etcd_etc"
	release_etcd
	write_mark "$1" started "$digest" "$members"
}

release_etcd() {
	rm -f -- "$hold"
	rmdir -- "${hold%/*}" 2>/dev/null || :
	systemctl daemon-reload
}

# restore_start ID: from here on there may be new writes, and no way back.
restore_start() {
	own_mark "$1"
	case $phase in
	swapped) write_mark "$1" started "$digest" "$members" ;;
	started | done) ;;
	*) die "the data is not restored here yet: $phase" ;;
	esac
	release_etcd
	systemctl reset-failed etcd.service 2>/dev/null || :
	systemctl start --no-block etcd.service
}

# restore_serve SECONDS: until etcd answers with a majority behind it.
restore_serve() {
	until_ready etcd.service "$(($(date +%s) + $1))" etcd_ready
	[ -e "$etcd_etc/formed" ] || printf 'This member has served.\n' >"$etcd_etc/formed"
}

# An API server whose etcd has no quorum would wait for it until systemd kills it after 90 s. It keeps no data itself.
stop_control_plane() {
	set --
	for unit in $control_plane; do
		[ ! -e "$units/$unit" ] || set -- "$@" "$unit"
	done
	if [ $# -eq 0 ] || timeout "$stop_seconds" systemctl stop "$@"; then return 0; fi
	systemctl kill --signal=KILL "$@" || :
	systemctl stop "$@"
}

# start_control_plane SECONDS
start_control_plane() {
	[ -e "$units/kube-apiserver.service" ] || return 0
	for unit in $control_plane; do systemctl reset-failed "$unit" 2>/dev/null || :; done
	systemctl start --no-block kube-apiserver.service
	until_ready kube-apiserver.service "$(($(date +%s) + $1))" api_ready /etc/kubernetes/admin.conf
	systemctl start kube-controller-manager.service kube-scheduler.service
}

restart_node() {
	for unit in kubelet.service kube-proxy.service; do
		[ ! -e "$units/$unit" ] || systemctl restart "$unit"
	done
}

# restore_done ID: the machine is through; its marker goes once all are.
restore_done() {
	own_mark "$1"
	write_mark "$1" "done" "$digest" "$members"
}

restore_forget() {
	rm -f -- "$state/restore"
	sync "$state"
}

# restore_abort ID: as it was before, where nothing was started yet. The old data comes back; what was restored goes.
restore_abort() {
	read_mark
	if [ "$id" != "$1" ]; then return 0; fi
	case $phase in started | done) die "the restored member was started here: there may be new writes" ;; esac
	old=$etcd_data/before-restore-$1
	if [ -e "$old/member" ]; then
		rm -rf -- "$etcd_data/member"
		mv -- "$old/member" "$etcd_data/member"
	elif [ -e "$old/none" ]; then
		rm -rf -- "$etcd_data/member"
	fi
	if [ -e "$old/initial.env" ]; then mv -f -- "$old/initial.env" "$etcd_etc/initial.env"; fi
	rm -rf -- "$old" "$etcd_data"/restore-* "$etcd_data"/recover-*
	sync "$etcd_data" "$etcd_etc"
	release_etcd
	systemctl start --no-block etcd.service
	restore_forget
}
