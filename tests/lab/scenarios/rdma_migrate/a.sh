# The source.
. /host/guest/move.sh
guest_disk
guest_start
ramferry check qemu:/run/guest.qmp --state-dir /tmp/state > /tmp/check
lab_check "this kernel's tracker is PAGEMAP_SCAN" grep -q '^ok .*dirty-page tracking *userfaultfd.*PAGEMAP_SCAN' /tmp/check
cat /tmp/check
lab_check "it tells the RDMA device" grep -q '^note .*RDMA device *rxe0: NUMA node .* registrations, .* requests a queue pair, no on-demand paging' /tmp/check
lab_check "its port" grep -q '^note .*RDMA port *rxe0 port 1: active, Ethernet, .* Gbit/s, MTU 4096' /tmp/check
lab_check "its addresses" grep -q "^note .*RDMA GID *rxe0 port 1: .* $LAB_A (RoCE v2) on $LAB_nic" /tmp/check
lab_check "what may be pinned" grep -q '^note .*RDMA pinned memory *no limit (memlock); room for [0-9]* MiB' /tmp/check
lab_check "a low limit, and how to lift it" sh -c 'ulimit -l 1024; setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \
  ramferry check --state-dir /tmp/state | grep -q "^note .*only 1 MiB may be pinned.*LimitMEMLOCK"'
lab_wait receiving 300
lab_check "the guest moves" guest_move report --transport auto --bandwidth 8
lab_check "writes were seen meanwhile" grep -q '^round 1: .* dirty again [1-9]' "$RESULTS/report.txt"
lab_check "with a disk that both hosts know by its worldwide name" grep -q '^naa\.5000c500a1b2c3d4$' /sys/block/sda/device/wwid
lab_check "over RDMA" reported report transport '"rdma"'
guest_has_left report
