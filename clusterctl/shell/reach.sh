# shellcheck shell=sh disable=SC2154
# Whether machines reach each other: listeners, connections and datagrams of a few seconds. Runs after the prelude.

# How long connections are tried, and how long listeners stay for machines that begin later, in seconds.
dial_seconds=5
window_seconds=9

# observe_reach NAME TOKEN LINE...: LINE is 'listen PROTOCOL ADDRESS PORT', 'watch PROTOCOL ADDRESS PORT' (report it where a service
# listens) or 'dial PROTOCOL ADDRESS PORT'. NAME and TOKEN mark the datagrams of this run. Ends after the window, by observe_reach_end, or
# as soon as the controller reads no more; listeners end with it.
observe_reach() {
	name=$1 token=$2 children='' dialers='' datagrams='' watched=''
	shift 2
	emit runs "$work" "$$"
	: >"$work/heard"
	trap end_children EXIT
	trap 'exit 1' HUP INT TERM PIPE
	end=$(($(date +%s) + window_seconds))
	command -v systemd-socket-activate >/dev/null 2>&1 || emit unable listen
	command -v bash >/dev/null 2>&1 || emit unable dial
	# Listeners first: the others may be connecting already.
	for verb in watch listen dial; do
		for line; do
			# shellcheck disable=SC2086 # words
			case $line in "$verb "*) $verb ${line#"$verb "} ;; esac
		done
	done
	report_ports
	# On a slow machine connections may still be tried; they end by themselves.
	# shellcheck disable=SC2086 # words
	[ -z "$dialers" ] || wait $dialers || :
}

# observe_reach_end FOLDER PID: end the program of an observe_reach, and wait until nothing is left of it.
observe_reach_end() {
	last=$(($(date +%s) + window_seconds))
	while [ -e "$1" ] && [ "$(date +%s)" -le "$last" ]; do
		kill "$2" 2>/dev/null || :
		sleep 0.05
	done
}

watch() {
	watched="$watched $1/$3"
}

# listen PROTOCOL ADDRESS PORT: what listens already is what others connect to. The limits are for a program that is killed: its listeners
# end by themselves.
listen() {
	if is_listened "$1" "$3"; then
		# The kernel's socket of an overlay takes datagrams and reports none.
		[ "$1" = udp ] || watch "$@"
		return
	fi
	command -v systemd-socket-activate >/dev/null 2>&1 || return 0
	watch "$@"
	if [ "$1" = tcp ]; then
		timeout "$window_seconds" systemd-socket-activate -l "$2:$3" sleep "$window_seconds" >/dev/null 2>&1 3>&- 9>&- &
	else
		# dd writes each datagram at once.
		timeout "$window_seconds" systemd-socket-activate -d -l "$2:$3" sh -c 'exec dd bs=2048 count=4096 <&3' \
			>>"$work/heard" 2>/dev/null 3>&- 9>&- &
	fi
	children="$children $!"
}

# is_listened PROTOCOL PORT: state 0A is a TCP listener, 07 an unconnected UDP socket (include/net/tcp_states.h).
is_listened() {
	cat "/proc/net/$1" "/proc/net/${1}6" 2>/dev/null | grep -q "$(printf ':%04X [0-9A-F:]* 0[7A] ' "$2")"
}

# The machine's lock is released only once the ports are free again.
end_children() {
	# shellcheck disable=SC2086 # words
	[ -z "$children" ] || kill $children 2>/dev/null || :
	wait
}

dial() {
	command -v bash >/dev/null 2>&1 || return 0
	if [ "$1" = udp ]; then
		datagrams="$datagrams $2/$3"
	else
		dial_tcp "$2" "$3" 9>&- &
		children="$children $!" dialers="$dialers $!"
	fi
}

# dial_tcp ADDRESS PORT: until it is accepted, or to the end of its time: the listener may begin a moment later than this.
dial_tcp() {
	trap - EXIT
	last=$(($(date +%s) + dial_seconds)) answer=dropped
	while left=$((last - $(date +%s))) && [ "$left" -gt 0 ]; do
		code=0
		# shellcheck disable=SC2016 # of bash
		said=$(timeout "$left" bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1 3>&-) || code=$?
		case $code:$said in
			0:*)
				emit reached "$1" "$2" open
				return
				;;
			*'onnection refused'*) answer=refused ;;
			# The kernel sends few of these in a second: the next connection may get no answer at all.
			*'o route to host'* | *nreachable*) answer=no-route ;;
		esac
		sleep 0.2
	done
	emit reached "$1" "$2" "$answer"
}

send_datagrams() {
	[ -n "$datagrams" ] || return 0
	# shellcheck disable=SC2016 # of bash
	timeout 2 bash -c 'for to in $1; do echo "$0" >"/dev/udp/$to"; done' "$token $name" "$datagrams" >/dev/null 2>&1 3>&- 9>&- || :
}

# report_ports: ports once they are listened on, and datagrams as they come. Each turn writes to the controller: where that fails, this ends.
report_ports() {
	known=' '
	while [ "$(date +%s)" -lt "$end" ]; do
		emit waits "$name"
		for port in $watched; do
			case $known in *" $port "*) continue ;; esac
			if is_listened "${port%/*}" "${port#*/}"; then
				emit listens "$port"
				known="$known$port "
			fi
		done
		send_datagrams
		peers=$(sed -n "s/^$token \([a-z0-9-]*\)\$/\1/p" "$work/heard" | sort -u)
		for peer in $peers; do
			case $known in *" from:$peer "*) continue ;; esac
			emit heard "$peer"
			known="${known}from:$peer "
		done
		sleep 0.2
	done
}
