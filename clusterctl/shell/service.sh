# shellcheck shell=sh disable=SC2154
# Units that run, and how they are asked whether they serve. Runs after the prelude.

# forget_stamps UNIT...: these will be restarted; should this run not come so far, the next one sees it. What remains says that the unit
# came up once: only then is there something to roll back to.
forget_stamps() {
	for unit; do
		[ ! -e "$state/stamps/$unit" ] || mv -f -- "$state/stamps/$unit" "$state/stamps/$unit.old"
		rm -f -- "$state/stamps/$unit.started"
	done
}

# begin_services UNIT...: have them start all at once; put_service then waits for each.
begin_services() {
	make_folders "$state/stamps"
	forget_stamps "$@"
	systemctl daemon-reload
	systemctl enable --quiet -- "$@"
	systemctl reset-failed -- "$@" 2>/dev/null || :
	systemctl restart --no-block -- "$@"
}

# put_service UNIT DIGEST VERB SECONDS LIMIT PROBE...: VERB is restart, start, or await for a unit that was started with these inputs; the
# stamp says with what it runs, and in which invocation, and is written last. It may take SECONDS; on a slow machine, up to LIMIT while it makes progress.
put_service() {
	unit=$1 digest=$2 verb=$3 seconds=$4 latest=$(($(date +%s) + $5))
	shift 5
	# Where there is a rollback it must come before others notice.
	if [ -e "$work/kept" ] && [ "$seconds" -gt 75 ]; then seconds=75; fi
	deadline=$(($(date +%s) + seconds)) stopped=
	if [ "$verb" != await ]; then
		make_folders "$state/stamps"
		forget_stamps "$unit"
		stopped=$(invocation_of "$unit")
		systemctl daemon-reload
		systemctl enable --quiet -- "$unit"
		systemctl reset-failed -- "$unit" 2>/dev/null || :
		timeout "$seconds" systemctl "$verb" -- "$unit" || still_starts "$unit" "$?" || unit_failed "$unit" "did not start"
	fi
	until_ready "$unit" "$deadline" "$@"
	printf '%s %s\n' "$digest" "$(invocation_of "$unit")" >"$state/stamps/$unit.new"
	sync "$state/stamps/$unit.new"
	mv -f -- "$state/stamps/$unit.new" "$state/stamps/$unit"
	rm -f -- "$state/stamps/$unit.started" "$state/stamps/$unit.old"
}

# still_starts UNIT CODE: whether only the time was over (timeout's exit code 124) while the unit starts on.
still_starts() {
	[ "$2" -eq 124 ] && case $(systemctl show --property=ActiveState --value -- "$1") in active* | activating*) ;; *) return 1 ;; esac
}

# until_ready UNIT DEADLINE PROBE...: DEADLINE in seconds of the epoch; put_service gives a later one for what makes progress.
until_ready() {
	unit=$1 deadline=$2 latest=${latest:-$2}
	shift 2
	if [ $# -eq 0 ]; then
		set -- true
		[ ! -e "$work/kept" ] || set -- stays_up "$unit"
	fi
	before=$(restarts_of "$unit") turn=0 often=5 most=4 asked=$(date +%s) worked=
	# What takes seconds is not asked in vain, and says by itself that a program falls.
	[ "$1" != stays_up ] || often=1 most=1
	until "$@" >"$work/probe" 2>&1 && systemctl is-active --quiet -- "$unit"; do
		took=$(($(date +%s) - asked))
		# systemd has much to do while programs start: it is asked at every fifth turn.
		if [ "$((turn % often))" -eq 0 ] || [ "$took" -gt 1 ]; then waits_in_vain "$unit"; fi
		turn=$((turn + 1))
		# A probe that takes long slows down what it waits for: it rests as long as it took.
		if [ "$took" -gt 1 ]; then sleep "$took"; else sleep 0.1; fi
		asked=$(date +%s)
	done
}

# waits_in_vain UNIT: ends the program where the unit has failed, or the deadline is over and it makes no progress. A unit in a crash loop
# is not waited for, least of all where there is a rollback.
waits_in_vain() {
	restarted=$(($(restarts_of "$1") - before))
	if [ "$restarted" -ge 20 ] || { [ -e "$work/kept" ] && [ "$restarted" -ge "$most" ]; }; then unit_failed "$1" "does not stay up"; fi
	if systemctl is-failed --quiet -- "$1"; then not_ready "$1"; fi
	now=$(date +%s)
	if [ "$now" -ge "$deadline" ]; then
		if [ "$now" -ge "$latest" ] || ! progresses "$1"; then not_ready "$1"; fi
		deadline=$((now + 10))
	elif [ -z "$worked" ]; then
		progresses "$1" || :
	fi
}

not_ready() {
	note_started "$1"
	unit_failed "$1" "is not ready; last seen: $(tail -c 300 "$work/probe" 2>/dev/null)"
}

# progresses UNIT: whether its process, since this was asked last, has had a processor or waited for one for a fifth of the time, or waits
# for a disk now. One that waits for something else has neither, and a crash loop is no progress. The second number of schedstat is the time
# that a thread waited for a processor (Documentation/scheduler/sched-stats.rst), which a cgroup's quota adds to. An ExecStartPre of ours
# waits for other machines and has a deadline of its own where these do not answer.
progresses() {
	unit_of=$1
	[ "$(restarts_of "$1")" -eq "$before" ] || return 1
	[ "$(systemctl show --property=SubState --value -- "$1")" != start-pre ] || return 0
	pid=$(systemctl show --property=MainPID --value -- "$unit_of")
	# shellcheck disable=SC2086 # three words
	set -- $worked
	work_now=$(cat "/proc/$pid/task"/*/schedstat 2>/dev/null | awk '{spent += $1 + $2} END {printf "%.0f", spent / 1000000}')
	now=$(date +%s)
	worked="$pid $now $work_now"
	[ "${1:-}" = "$pid" ] || return 1
	[ "$((work_now - $3))" -ge "$(((now - $2) * 200))" ] || grep -q '^State:.D' "/proc/$pid/task"/*/status 2>/dev/null
}

# note_started UNIT: it runs with the inputs of this program and is not ready yet; the next run waits for it and does not restart it.
note_started() {
	now=$(invocation_of "$1")
	if [ -n "${digest:-}" ] && [ -n "$now" ] && [ "$now" != "${stopped:-}" ]; then
		printf '%s %s\n' "$digest" "$now" >"$state/stamps/$1.started"
	fi
}

# invocation_of UNIT: systemd's id of this run of the unit, of which it keeps a link (systemd.exec(5), INVOCATION_ID).
invocation_of() {
	readlink -- "/run/systemd/units/invocation:$1" || :
}

# stays_up UNIT: a program that serves nothing that could be asked must at least not fall again at once. Where a restart was only asked
# for, the process that is about to end may still be seen first.
stays_up() {
	first=$(systemctl show --property=MainPID --value -- "$1")
	sleep 3
	[ "$(systemctl show --property=MainPID --value -- "$1")" = "$first" ] || { echo "its process changed within 3 s" && return 1; }
}

restarts_of() {
	systemctl show --property=NRestarts --value -- "$1" 2>/dev/null | grep -E '^[0-9]+$' || echo 0
}

# unit_failed UNIT WHAT: with the line of its log that matters most likely, and the last ones.
unit_failed() {
	printf '%s %s (%s)\n' "$1" "$2" "$(systemctl show --property=ActiveState,SubState,Result --value -- "$1" | tr '\n' ' ')"
	log=$(journalctl --unit "$1" --lines 60 --no-pager --output cat 2>/dev/null)
	matters=$(printf '%s\n' "$log" | grep -iE 'unknown flag|unrecognized|invalid argument|^Error|"command failed"|panic:|fatal|cannot|denied|refused' | tail -n 1)
	[ -z "$matters" ] || printf 'its log says: %s\n' "$(printf '%s' "$matters" | cut -c 1-400)"
	printf '%s\n' "$log" | tail -n 12 | tail -c 1200
	exit 1
}

# api_ready KUBECONFIG: /readyz, which needs no identity. A kubectl that starts costs seconds on a slow machine: it asks only where curl is
# missing, and neither asks before the port is open.
api_ready() {
	port=$(sed -n 's,^ *server: "*https://127.0.0.1:\([0-9]*\)"*$,\1,p' "$1")
	tcp_open 127.0.0.1 "${port:?}" || return 1
	if ! command -v curl >/dev/null 2>&1; then
		"$root/bin/kubectl" --kubeconfig "$1" --request-timeout 15s get --raw /readyz
		return
	fi
	status=$(curl -sS --noproxy '*' -m 15 --cacert /etc/kubernetes/pki/ca.crt -o "$work/body" -w '%{http_code}' "https://127.0.0.1:$port/readyz") || return 1
	tail -c 250 "$work/body"
	[ "$status" = 200 ]
}

tcp_open() {
	# shellcheck disable=SC2016 # expanded by the inner bash
	timeout 5 bash -c 'exec 5<>"/dev/tcp/$1/$2"' tcp_open "$1" "$2"
}
