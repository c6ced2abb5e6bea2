# The destination: four nodes with a CPU and a cable each.
GUEST_MIB=32 FILL_MIB=40
RECEIVE_FLAGS=(--numa-map "0:3,1:2")
. /host/guest/move.sh
. /host/guest/numa.sh
guest_on_nodes
lab_check "this host has four nodes" test -e /sys/devices/system/node/node3
guest_receive
ramferry=$(pid_of ramferry)
lab_wait moving 500
cpus0=$(thread_cpus "$ramferry" rf-land-0) cpus1=$(thread_cpus "$ramferry" rf-land-1)
echo "channel 0 is received on CPUs $cpus0, channel 1 on CPUs $cpus1"
# Worker 0 of the source brings guest node 1, which comes to node 2.
lab_check "channel 0 is served on node 2" test "$(node_of_cpu "$cpus0")" = 2
lab_check "channel 1 is served on node 3" test "$(node_of_cpu "$cpus1")" = 3
guest_has_come
qemu=$(pid_of qemu-system-x86)
lab_check "guest node 0 is on our node 3" all_on "$qemu" /dev/shm/guest0 3 4000
lab_check "guest node 1 is on our node 2" all_on "$qemu" /dev/shm/guest1 2 4000
lab_check "that was told" grep -q 'memory ram0 (guest node 0): .* on node 3, as planned' /tmp/receive.log
lab_check "and nothing else" sh -c '! grep "NOT AS PLANNED" /tmp/receive.log'
