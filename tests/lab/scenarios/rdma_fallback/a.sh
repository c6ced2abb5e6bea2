# The source. Twice RDMA fails in the middle of round 1.
. /host/guest/move.sh
sent() { cat /sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts; }
# Begins a move, and returns when a part of the guest's 24 MiB has gone over RDMA, in packets of 4 KiB.
begin_move() {
  local start
  start=$(sent)
  guest_move "$1" --transport auto --bandwidth 2 & move=$!
  until [ $(($(sent) - start)) -gt 1000 ]; do
    kill -0 $move 2>/dev/null || { echo "FAILED: the move ended too early"; cat "$RESULTS/$1.txt"; exit 1; }
    sleep 0.1
  done
}
move_ends_with() {
  local code=0
  wait $move || code=$?
  echo "ramferry migrate ended with $code"
  [ $code = "$1" ]
}

guest_start
lab_wait receiving 300

begin_move cut
lab_world cut-link a
lab_check "without any link the move is rolled back" move_ends_with 4
lab_check "the report says so" reported cut outcome '"rolled-back"'
lab_check "the guest runs on here, and every page is whole" guest_is_whole
lab_world mend-link a
lab_wait released 300
until grep -q ACTIVE /sys/class/infiniband/rxe0/ports/1/state; do sleep 0.1; done

ticks=$(guest_counter ticks)
begin_move gone
lab_check "the RDMA device goes away" rdma link delete rxe0
lab_check "the move goes on without it" wait $move
lab_check "over TCP" reported gone transport '"tcp-tls"'
lab_check "its memory was compared" reported gone verified true
lab_check "the source says why" grep -q 'rdma has failed (.*going on over another transport' "$RESULTS/gone.txt"
lab_check "its QEMU has ended here" wait $guest
echo "$ticks" > /host/files/ticks
lab_signal moved
