# The destination: four nodes with a CPU and a cable each.
GUEST_MIB=32 FILL_MIB=40
RECEIVE_FLAGS=(--numa-map "0:3,1:2")
. /host/guest/move.sh
. /host/guest/numa.sh
guest_on_nodes
lab_check "this host has four nodes" test -e /sys/devices/system/node/node3
# Node 3 is full at first, but for what the kernel keeps in reserve: more than the guest needs, and yet it is not to be had.
echo 3 > /proc/sys/vm/drop_caches
free=$(awk '/MemFree/ { print $4 }' /sys/devices/system/node/node3/meminfo)
mkdir /tmp/full
mount -t tmpfs -o mpol=prefer:3,size=100% full /tmp/full
head -c $((free - 4096))K /dev/zero > /tmp/full/file
grep -E 'MemFree|active.file|SReclaim' /sys/devices/system/node/node3/meminfo
guest_receive
lab_wait refused 300
umount /tmp/full
lab_signal room
ramferry=$(pid_of ramferry)
cpus0=$(thread_cpus "$ramferry" rf-land-0) cpus1=$(thread_cpus "$ramferry" rf-land-1)
maps=$RESULTS/numa_maps
grep -E 'uverbs|ramferry-local' "/proc/$ramferry/numa_maps" > "$maps"
echo "channel 0 is received on CPUs $cpus0, channel 1 on CPUs $cpus1"
# Worker 0 of the source brings guest node 1, which comes to node 2.
lab_check "channel 0 is served on node 2" test "$(node_of_cpu "$cpus0")" = 2
lab_check "channel 1 is served on node 3" test "$(node_of_cpu "$cpus1")" = 3
own=() queues=(0 0 0 0)
for node in 0 1 2 3; do
  own+=("$(own_pages "$maps" $node)")
  for n in 0 1 2 3; do queues[node]=$((queues[node] + $(queue_pages "$maps" rxe$n $node))); done
done
echo "pages of the threads' own: ${own[*]}; of queues: ${queues[*]}"
lab_check "what they have for themselves is there" test "${own[2]}" -gt 3 -a "${own[2]}" = "${own[3]}" -a $((own[0] + own[1])) = 0
lab_check "and their queues" test "${queues[2]}" -gt 3 -a "${queues[2]}" = "${queues[3]}" -a $((queues[0] + queues[1])) = 0
guest_has_come
qemu=$(pid_of qemu-system-x86)
lab_check "guest node 0 is on our node 3" all_on "$qemu" /dev/shm/guest0 3 4000
lab_check "guest node 1 is on our node 2" all_on "$qemu" /dev/shm/guest1 2 4000
lab_check "that was told" grep -q 'memory ram0 (guest node 0): .* on node 3, as planned' /tmp/receive.log
lab_check "and nothing else" sh -c '! grep "NOT AS PLANNED" /tmp/receive.log'
