# The source.
. /host/guest/move.sh
lab_check "the tracker keeps its promises on this kernel" \
  sh -c 'tracking_soft_dirty_test > /tmp/test; code=$?; tail -n 12 /tmp/test; exit $code'
lab_check "none of them was skipped" sh -c '! grep -q "no soft-dirty bits" /tmp/test'
guest_start
ramferry check qemu:/run/guest.qmp --state-dir /tmp/state > /tmp/check
cat /tmp/check
lab_check "ramferry check says which tracker it will be" grep -q '^ok .*dirty-page tracking *soft-dirty bits' /tmp/check
lab_wait receiving 300
lab_check "the guest moves" guest_move report --transport auto --bandwidth 8
lab_check "writes were seen meanwhile" grep -q '^round 1: .* dirty again [1-9]' "$RESULTS/report.txt"
lab_check "over RDMA" reported report transport '"rdma"'
guest_has_left report
