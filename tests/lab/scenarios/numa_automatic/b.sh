# The destination: four nodes, all alike.
GUEST_MIB=32 FILL_MIB=40
. /host/guest/move.sh
. /host/guest/numa.sh
guest_on_nodes
guest_receive
ramferry=$(pid_of ramferry)
lab_wait moving 500
cpus=$(thread_cpus "$ramferry" rf-land-0)
echo "channel 0 is received on CPUs $cpus"
lab_check "a thread that receives has a CPU" test "$(echo "$cpus" | wc -w)" = 1 -a "${cpus#*-}" = "$cpus"
guest_has_come
qemu=$(pid_of qemu-system-x86)
lab_check "guest node 0 is on our node 0" all_on "$qemu" /dev/shm/guest0 0 4000
lab_check "guest node 1 is on our node 1" all_on "$qemu" /dev/shm/guest1 1 4000
lab_check "that was told" grep -q 'memory ram1 (guest node 1): .* on node 1, as planned' /tmp/receive.log
lab_check "and nothing else" sh -c '! grep "NOT AS PLANNED" /tmp/receive.log'
