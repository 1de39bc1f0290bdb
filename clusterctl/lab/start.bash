# Starts one process of a lab: `container` (and stays its parent until it is powered off), or `program` (its arguments).
# Everything comes by environment, LAB_*. The process is in the lab's control groups before it does anything else, so
# that it is found whenever `lab up` is killed; where the groups are gone already it ends at once.
set -eu

join() {
  local hierarchy
  for hierarchy in $LAB_HIERARCHIES; do
    echo "$BASHPID" > "$hierarchy/$LAB_CGROUP/$1/cgroup.procs"
  done
}

# A lock that `lab up` holds was inherited until here.
close_inherited() {
  local file fd
  for file in /proc/"$BASHPID"/fd/*; do
    fd=${file##*/}
    if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
  done
}

overlay() {
  mkdir -p /run/systemd
  mount -t tmpfs -o mode=755 tmpfs /run/systemd
  mount -t overlay overlay -o "lowerdir=$LAB_TREE,upperdir=$LAB_DIRECTORY/upper,workdir=$LAB_DIRECTORY/work" "$LAB_DIRECTORY/root"
}

boot() {
  local bind=() name
  for name in containerd kubelet etcd; do bind+=("--bind=$LAB_DIRECTORY/data/$name:/var/lib/$name"); done
  # systemd 256 and later boot with cgroup v1 only with SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE (its NEWS).
  SYSTEMD_NSPAWN_API_VFS_WRITABLE=1 SYSTEMD_NSPAWN_TMPFS_TMP=0 exec systemd-nspawn --quiet --boot --directory="$LAB_DIRECTORY/root" \
    --machine="$LAB_MACHINE" --hostname="$LAB_MACHINE" --register=no --keep-unit \
    --network-namespace-path="/run/netns/$LAB_NAMESPACE" --capability=all --drop-capability=CAP_SYS_TIME \
    --setenv=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 --system-call-filter='add_key keyctl bpf perf_event_open' --bind=/dev/kmsg "${bind[@]}" \
    --bind="$LAB_DIRECTORY/data/log:/var/log" --resolv-conf=off --timezone=off --link-journal=no --console=read-only
}

machine() {
  local status=133
  overlay
  while [ "$status" -eq 133 ]; do # what nspawn ends with when the machine reboots
    status=0
    (join . && boot) || status=$?
  done
  echo "the machine ended with $status"
}

case "$1" in
  container) # start.bash as LAB_SCRIPT, in a mount namespace of its own: its mounts vanish with its processes
    join "${LAB_LOOP:-.}"
    close_inherited
    exec unshare --mount --propagation slave bash -c "$LAB_SCRIPT" start machine ;;
  machine) machine ;;
  program)
    join .
    close_inherited
    shift
    exec "$@" ;;
esac
