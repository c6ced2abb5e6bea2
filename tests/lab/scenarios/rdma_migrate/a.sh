# The source.
. /host/guest/move.sh
guest_start
ramferry check qemu:/run/guest.qmp --state-dir /tmp/state > /tmp/check
lab_check "this kernel's tracker is PAGEMAP_SCAN" grep -q '^ok .*dirty-page tracking *userfaultfd.*PAGEMAP_SCAN' /tmp/check
lab_wait receiving 300
lab_check "the guest moves" guest_move report --transport auto --bandwidth 8
lab_check "writes were seen meanwhile" grep -q '^round 1: .* dirty again [1-9]' "$RESULTS/report.txt"
lab_check "over RDMA" reported report transport '"rdma"'
guest_has_left report
