# The source: two nodes. Nothing is said about CPUs or nodes. CPU 1 is isolated (scenario.toml).
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
# In a cgroup that leaves CPU 3.
mount -t cgroup2 cgroup /sys/fs/cgroup
echo +cpuset > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/small
echo 3 > /sys/fs/cgroup/small/cpuset.cpus
sh -c 'echo $$ > /sys/fs/cgroup/small/cgroup.procs && exec ramferry topology qemu:/run/guest.qmp --workers 2 --json -' > /tmp/plan.json
lab_check "where a cgroup leaves one CPU, all workers are there" test "$(planned cpus | paste -sd ' ')" = "3 3"
umount /sys/fs/cgroup
lab_wait receiving 300
# The kernel keeps processes off CPU 1 by their affinity; one that takes all CPUs back must still leave it alone.
lab_check "the isolated CPU is shown" sh -c "taskset -c 0-3 ramferry topology | grep 'isolated CPUs: 1'"
MOVE_UNDER="taskset -c 0-3" guest_move report --transport tcp --workers 3 --bandwidth 3 & move=$!
ramferry=$(pid_of ramferry)
cpus=$(for worker in 0 1 2; do thread_cpus "$ramferry" rf-worker-$worker; done | sort -u | paste -sd ' ')
echo "workers on CPUs $cpus"
lab_signal moving
lab_check "none on the vCPU's CPU, nor on the isolated one" test "$cpus" = "2 3"
lab_check "the guest moves" wait $move
guest_has_left report
