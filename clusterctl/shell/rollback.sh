# shellcheck shell=sh disable=SC2154
# What a machine was before a change that interrupts something, and the way back to it. Runs after the prelude.

previous=$state/previous

# keep UNITS PATH...: copies of these paths as they are, and the units that run with them, for put_back. UNITS has a line for
# each unit: UNIT, then what says that it serves.
keep() {
	rm -rf -- "$previous" "$previous.new"
	mkdir -p -- "$previous.new"
	printf '%s\n' "$1" >"$previous.new/units"
	shift
	number=0
	for path; do
		number=$((number + 1))
		if [ -e "$path" ] || [ -L "$path" ]; then cp -a -- "$path" "$previous.new/$number"; fi
		printf '%s\n' "$path" >>"$previous.new/paths"
	done
	mv -- "$previous.new" "$previous"
	: >"$work/kept"
}

# put_back SECONDS: what was kept stands again, and the units run with it.
put_back() {
	number=0
	while read -r path; do
		number=$((number + 1))
		if [ -e "$previous/$number" ] || [ -L "$previous/$number" ]; then
			rm -rf -- "$path.new"
			cp -a -- "$previous/$number" "$path.new"
			mv -f -T -- "$path.new" "$path" 2>/dev/null || mv -f -- "$path.new" "$path"
		else
			rm -rf -- "$path"
		fi
	done <"$previous/paths"
	systemctl daemon-reload
	restart_kept
	await_kept "$1"
	rm -rf -- "$previous" "$work/kept"
}

restart_kept() {
	while read -r unit _; do
		systemctl reset-failed -- "$unit" 2>/dev/null || :
		# None waits for another: which of them broke the others is not known.
		systemctl restart --no-block -- "$unit"
	done <"$previous/units"
}

await_kept() {
	ends=$(($(date +%s) + $1))
	while read -r unit probe; do
		# shellcheck disable=SC2086 # words without blanks, as they were kept
		until_ready "$unit" "$ends" $probe </dev/null
	done <"$previous/units"
}
