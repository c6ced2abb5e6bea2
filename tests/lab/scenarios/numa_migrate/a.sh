# The source: two nodes with two CPUs each, cables 0 and 1 at node 0, 2 and 3 at node 1. The guest's memory is crossed
# over: its node 0 is on our node 1. So where it is must have been measured.
GUEST_MIB=32 FILL_MIB=40
. /host/guest/move.sh
. /host/guest/numa.sh
guest_on_nodes host-nodes=1,policy=bind host-nodes=0,policy=bind
lab_check "this host has two nodes" test -e /sys/devices/system/node/node1 -a ! -e /sys/devices/system/node/node2
guest_start
lab_check "guest node 0 is on our node 1" all_on $guest /dev/shm/guest0 1 4000
lab_check "guest node 1 is on our node 0" all_on $guest /dev/shm/guest1 0 4000
ramferry topology qemu:/run/guest.qmp --workers 2 --svg "$RESULTS/plan.svg" > "$RESULTS/plan.txt"
cat "$RESULTS/plan.txt"
ramferry topology qemu:/run/guest.qmp --workers 2 --json - > /tmp/plan.json
cp /tmp/plan.json "$RESULTS"
lab_wait receiving 300
code=0
guest_move refused --transport tcp --workers 2 || code=$?
lab_check "refused, because node 3 is full there" test $code = 3
lab_check "with both figures" grep -q 'node 0 of the guest uses .* MiB, node 3 here has .* MiB free' "$RESULTS/refused.txt"
lab_signal refused
lab_wait room
before=()
for n in 0 1 2 3; do before+=("$(packets_sent rxe$n)"); done
guest_move report --transport rdma --workers 2 --bandwidth 3 & move=$!
ramferry=$(pid_of ramferry)
cpus0=$(thread_cpus "$ramferry" rf-worker-0) cpus1=$(thread_cpus "$ramferry" rf-worker-1)
lab_check "its queue pairs are on the devices of the plan" test "$(devices_of "$ramferry")" = "$(planned nic | sort)"
# The workers send: all that they have for themselves is there.
until [ $(($(packets_sent rxe0) + $(packets_sent rxe1) - before[0] - before[1])) -gt 200 ] &&
  [ $(($(packets_sent rxe2) + $(packets_sent rxe3) - before[2] - before[3])) -gt 200 ]; do sleep 0.1; done
maps=$RESULTS/numa_maps
grep -E 'uverbs|ramferry-local' "/proc/$ramferry/numa_maps" > "$maps"
own=("$(own_pages "$maps" 0)" "$(own_pages "$maps" 1)")
echo "pages of the workers' own: ${own[*]}"
lab_check "each worker's own memory is on its node" test "${own[0]}" -gt 10 -a "${own[0]}" = "${own[1]}"
for device in $(devices_of "$ramferry"); do
  node=$(node_of_rdma "$device")
  here=$(queue_pages "$maps" "$device" "$node") there=$(queue_pages "$maps" "$device" $((1 - node)))
  echo "queues on $device: $here pages on node $node, $there elsewhere"
  lab_check "the queues of $device are on its worker's node" test "$here" -gt 0 -a "$there" = 0
done
echo "worker 0 on CPUs $cpus0, worker 1 on CPUs $cpus1"
lab_check "the workers are bound as planned" test "$(printf '%s\n' "$cpus0" "$cpus1")" = "$(planned cpus)"
lab_check "worker 0 is on node 0, beside guest node 1" test "$(node_of_cpu "$cpus0")" = 0
lab_check "worker 1 is on node 1, beside guest node 0" test "$(node_of_cpu "$cpus1")" = 1
lab_check "the guest moves" wait $move
lab_check "the report says so too" reported report memory_node 1
for n in 0 1 2 3; do sent[n]=$(($(packets_sent rxe$n) - before[n])); done
echo "packets by rxe0 to rxe3: ${sent[*]}"
lab_check "a queue pair on a device of node 0 carried pages" test $((sent[0] + sent[1])) -gt 500
lab_check "a queue pair on a device of node 1 carried pages" test $((sent[2] + sent[3])) -gt 500
guest_has_left report
