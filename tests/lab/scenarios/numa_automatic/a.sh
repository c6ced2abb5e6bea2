# The source: two nodes. Nothing is said about workers, CPUs or nodes.
GUEST_MIB=32 FILL_MIB=40
. /host/guest/move.sh
. /host/guest/numa.sh
guest_on_nodes host-nodes=0,policy=bind host-nodes=1,policy=bind
# So that its vCPUs' threads have names.
for i in "${!GUEST_QEMU[@]}"; do
  if [ "${GUEST_QEMU[i]}" = guest ]; then GUEST_QEMU[i]=guest,debug-threads=on; fi
done
guest_start
# A vCPU that has CPU 0 for itself: nobody else may take it.
for task in /proc/$guest/task/*; do
  case $(cat "$task/comm") in "CPU 0/"*) taskset -p 1 "${task##*/}" ;; esac
done
lab_wait receiving 300
guest_move report --transport tcp --bandwidth 3 & move=$!
ramferry=$(pid_of ramferry)
cpus0=$(thread_cpus "$ramferry" rf-worker-0)
echo "worker 0 on CPUs $cpus0"
lab_signal moving
lab_check "not on the vCPU's CPU" test "$cpus0" != 0
lab_check "the guest moves" wait $move
guest_has_left report
