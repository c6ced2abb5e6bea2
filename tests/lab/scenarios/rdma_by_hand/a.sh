# The source.
. /host/guest/move.sh
DESTINATION="[$LAB_B6]:7711"
guest_start
lab_wait receiving 300
low_memlock() { (ulimit -l 1024; exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock "$@"); }
(MOVE_UNDER=low_memlock guest_move low --transport rdma)
lab_check "what may not be pinned is refused before the guest is touched" test $? = 3
low_memlock ramferry check qemu:/run/guest.qmp --state-dir /tmp/state > /tmp/check || true
lab_check "check tells it as well" grep -q '^note .*RDMA needs to pin 48 MiB .* RLIMIT_MEMLOCK is 1024 KiB: raise it' /tmp/check
lab_check "with how to mend it" grep -q 'RDMA needs to pin 48 MiB .* RLIMIT_MEMLOCK is 1024 KiB: raise it .* or set --pin-budget' "$RESULTS/low.txt"
python3 $LAB_SCENARIO/scenario/watch_wire.py $LAB_nic 96 > /tmp/wire & watch=$!
until [ -s /tmp/wire ]; do sleep 0.1; done
most_pinned > /tmp/pinned & pinned=$!
lab_check "the guest moves" guest_move report --transport rdma --rdma-address $LAB_A6 --traffic-class 96 \
  --service-level 3 --pin-budget 16
kill $watch $pinned
lab_check "the choice is shown" grep -q "over rdma.*; rxe0 port 1, GID [0-9]* $LAB_A6 (RoCE v2), MTU 4096, traffic class 96, service level 3" \
  "$RESULTS/report.txt"
lab_check "and in the report" grep -q "$LAB_A6 (RoCE v2)" "$RESULTS/report.json"
tail -n 1 /tmp/wire
lab_check "packets with that traffic class were on the wire" test "$(tail -n 1 /tmp/wire)" -gt 1000
tail -n 1 /tmp/pinned
lab_check "something was pinned" test "$(tail -n 1 /tmp/pinned)" -gt 1024
lab_check "never more than the budget, and 1 MiB for messages" test "$(tail -n 1 /tmp/pinned)" -le $((17 * 1024))
guest_has_left report
