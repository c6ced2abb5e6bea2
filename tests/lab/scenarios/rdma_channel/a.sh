# The destination. Each probe: NAME MIB CHANNELS BUDGET_MIB, as in b.sh.
receive() {
  rdma_probe receive /host/files/offer.$1 /host/files/done.$1 $2 $3 $4 $LAB_A & local probe=$!
  for _ in $(seq 300); do [ -e /host/files/offer.$1 ] && break; sleep 0.1; done
  lab_signal "$1"
  lab_check "receive $1" wait $probe
}
bandwidth() {
  ib_write_bw -d rxe0 -s $1 -n $2 -q $3 -F > /tmp/bw & local server=$!
  lab_listening 18515
  lab_signal "bw.$1.$3"
  wait $server
}
receive one 256 1 0
bandwidth 1048576 192 1
bandwidth 4096 5000 1
receive two 256 2 0
receive budget 256 2 64
receive staging 128 1 0
