. /host/guest/export.sh
# A cgroup with one core, of node 2, and the memory of nodes 2 and 3.
mount -t cgroup2 cgroup /sys/fs/cgroup
echo +cpuset > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/small
echo 4-5 > /sys/fs/cgroup/small/cpuset.cpus
echo 2-3 > /sys/fs/cgroup/small/cpuset.mems
echo $$ > /sys/fs/cgroup/small/cgroup.procs
export_host
echo $$ > /sys/fs/cgroup/cgroup.procs
