# shellcheck shell=sh disable=SC2154
# Units that run, and how they are asked whether they serve. Runs after the prelude.

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
	# Where there is a way back, it is taken in time for others not to notice.
	if [ -e "$work/kept" ] && [ "$seconds" -gt 75 ]; then seconds=75; fi
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
	if [ $# -eq 0 ]; then
		set -- true
		[ ! -e "$work/kept" ] || set -- stays_up "$unit"
	fi
	before=$(restarts_of "$unit") turn=0 often=5 most=4
	# What takes seconds is not asked in vain, and says by itself that a program falls.
	[ "$1" != stays_up ] || often=1 most=1
	until "$@" >"$work/probe" 2>&1 && systemctl is-active --quiet -- "$unit"; do
		# systemd has much to do while programs start: it is asked at every fifth turn.
		if [ "$((turn % often))" -eq 0 ]; then waits_in_vain "$unit"; fi
		turn=$((turn + 1))
		sleep 0.1
	done
}

# waits_in_vain UNIT: ends the program where the deadline is over or the unit has failed. Where there is a way back, one that falls
# over and over again is not waited for.
waits_in_vain() {
	if [ -e "$work/kept" ] && [ "$(($(restarts_of "$1") - before))" -ge "$most" ]; then unit_failed "$1" "does not stay up"; fi
	if [ "$(date +%s)" -ge "$deadline" ] || systemctl is-failed --quiet -- "$1"; then
		unit_failed "$1" "is not ready; last seen: $(tail -c 300 "$work/probe" 2>/dev/null)"
	fi
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

# A kubectl that starts is no small thing beside an API server that does: it is asked once somebody listens.
api_ready() {
	tcp_open 127.0.0.1 6443 && "$root/bin/kubectl" --kubeconfig "$1" --request-timeout 5s get --raw /readyz
}

tcp_open() {
	# shellcheck disable=SC2016 # expanded by the inner bash
	timeout 5 bash -c 'exec 5<>"/dev/tcp/$1/$2"' tcp_open "$1" "$2"
}
