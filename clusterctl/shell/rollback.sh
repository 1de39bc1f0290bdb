# shellcheck shell=sh disable=SC2154
# What a machine was before a change that interrupts something, and the way back to it. Runs after the prelude.

previous=$state/previous

# save_previous UNITS PATH...: copies of these paths as they are, and the units that run with them, for roll_back. UNITS has a line for
# each unit: UNIT, then what says that it serves. Until forget_previous, what a run kept that was killed is what runs, or ran last:
# it stays, as the files in its place may be half of the new ones. Unless all of its units came up: then the run was done but for this.
save_previous() {
	if [ ! -e "$previous/begun" ] && never_came_up "$1"; then return 0; fi
	if [ ! -e "$previous/begun" ] || came_up; then begin_keeping; fi
	units=$1
	printf '%s\n' "$units" >>"$previous/units"
	awk '!seen[$1]++' "$previous/units" >"$previous/units.merged"
	mv -f -- "$previous/units.merged" "$previous/units"
	shift
	number=$(wc -l <"$previous/paths")
	for path; do
		if grep -qxF -e "$path" "$previous/paths"; then continue; fi
		number=$((number + 1))
		rm -rf -- "${previous:?}/$number"
		if [ -e "$path" ] || [ -L "$path" ]; then cp -a -- "$path" "$previous/$number"; fi
		printf '%s\n' "$path" >>"$previous/paths"
	done
	# A stamp is written where a unit came up: those that come are of what is new.
	printf '%s\n' "$units" | while read -r unit _; do forget_stamps "$unit"; done
	: >"$work/kept"
}

# never_came_up UNITS: whether none of these ever came up with inputs of ours: then there is nothing to roll back to, and no reason to wait
# for less long.
never_came_up() {
	printf '%s\n' "$1" | while read -r unit _; do
		if [ -e "$state/stamps/$unit" ] || [ -e "$state/stamps/$unit.old" ]; then exit 1; fi
	done
}

# Whether all units that were to be interrupted have come up.
came_up() {
	while read -r unit _; do
		[ -e "$state/stamps/$unit" ] || return 1
	done <"$previous/units"
}

begin_keeping() {
	rm -rf -- "$previous" "$previous.new"
	mkdir -p -- "$previous.new"
	: >"$previous.new/units"
	: >"$previous.new/paths"
	: >"$previous.new/begun"
	mv -- "$previous.new" "$previous"
}

# What is new runs; it may still be found wanting by others, and what was there before is still there for that.
forget_previous() {
	rm -f -- "$previous/begun"
}

# roll_back SECONDS: what was kept stands again, and the units run with it.
roll_back() {
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
	# What stands in place again is no start of this program's inputs.
	# shellcheck disable=SC2034 # read by until_ready and not_ready
	latest=$(($(date +%s) + $1 + 540)) digest=
	ends=$(($(date +%s) + $1))
	while read -r unit probe; do
		# shellcheck disable=SC2086 # words without blanks, as they were kept
		until_ready "$unit" "$ends" $probe </dev/null
	done <"$previous/units"
}
