# The destination. Each probe: NAME MIB CHANNELS BUDGET_MIB, as in b.sh.
receive() {
  rdma_probe receive $FILES/offer.$1 $FILES/done.$1 $2 $3 $4 $LAB_A & local probe=$!
  for _ in $(seq 300); do [ -e $FILES/offer.$1 ] && break; sleep 0.1; done
  lab_signal "$1"
  lab_check "receive $1" wait $probe
}
receive one 96 1 0
receive two 96 2 0
receive budget 128 2 64
receive staging 64 1 0
