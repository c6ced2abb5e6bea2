# For scenarios about NUMA, after move.sh: what the kernel says about processes of this host, not what Ramferry says.

# pid_of NAME: of a process by its name (15 characters); waits until there is one.
pid_of() {
  local comm
  until comm=$(grep -lx "$1" /proc/[0-9]*/comm 2>/dev/null | head -1) && [ -n "$comm" ]; do sleep 0.2; done
  echo "$comm" | cut -d/ -f3
}
# thread_cpus PID NAME: the CPUs that a thread is bound to; waits until there is such a thread.
thread_cpus() {
  local comm
  until comm=$(grep -lx "$2" /proc/"$1"/task/*/comm 2>/dev/null | head -1) && [ -n "$comm" ]; do
    [ -e "/proc/$1" ] || { echo "process $1 has ended" >&2; return 1; }
    sleep 0.1
  done
  sed -n 's/^Cpus_allowed_list:\t//p' "${comm%comm}status"
}
# node_of_cpu CPU
node_of_cpu() { basename /sys/devices/system/cpu/cpu"$1"/node* | tr -dc 0-9; }
# pages_on MAPS FILE NODE: pages of a mapped file on a node, by /proc/PID/numa_maps or a copy of it; 0 if there are none.
pages_on() {
  awk -v file="file=$2" -v node="N$3=" '
    index($0, file " ") { for (i = 1; i <= NF; ++i) if (index($i, node) == 1) sum += substr($i, length(node) + 1) }
    END { print sum + 0 }' "$1"
}
# all_on PID FILE NODE LEAST: at least LEAST pages are mapped, all of them from that node.
all_on() {
  local node count here=0 elsewhere=0
  for node in /sys/devices/system/node/node[0-9]*; do
    count=$(pages_on "/proc/$1/numa_maps" "$2" "${node##*node}")
    if [ "${node##*node}" = "$3" ]; then here=$count; else elsewhere=$((elsewhere + count)); fi
  done
  echo "$2: $here pages on node $3, $elsewhere elsewhere"
  [ "$here" -ge "$4" ] && [ "$elsewhere" = 0 ]
}
# own_pages MAPS NODE: pages on a node of what the threads of a ramferry have for themselves (base/local_pages.h).
own_pages() { pages_on "$1" '/memfd:ramferry-local\\040(deleted)' "$2"; }
# node_of_rdma DEVICE: the node that the network device under it hangs on. (A virtio device's is that of the PCI device.)
node_of_rdma() {
  local device
  device=$(realpath "/sys/class/net/$(cat "/sys/class/infiniband/$1/parent")/device")
  until [ -e "$device/numa_node" ]; do device=${device%/*}; done
  cat "$device/numa_node"
}
# queue_pages MAPS DEVICE NODE: pages on a node of the rings of its queue pairs and completion queues on an RDMA device.
queue_pages() {
  local verbs
  for verbs in /sys/class/infiniband_verbs/uverbs*; do
    if [ "$(cat "$verbs/ibdev")" = "$2" ]; then pages_on "$1" "/dev/infiniband/${verbs##*/}" "$3"; fi
  done
}
# devices_of PID: the RDMA devices that it has queue pairs on, one a line for each.
devices_of() { rdma resource show qp | sed -n "s,^link \([a-z0-9]*\)/.* pid $1 .*,\1,p" | sort; }
# planned KEY: of each worker in /tmp/plan.json (`ramferry topology`), one a line.
planned() {
  python3 -S -B -c '
import json, sys
for worker in json.load(open("/tmp/plan.json"))["guest"]["workers"]: print(worker[sys.argv[1]])' "$1"
}
