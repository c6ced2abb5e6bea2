# The source.
send() {
  lab_wait "$1"
  echo "== $1: $2 MiB, $3 channels, pin budget $4 MiB $5"
  local code=0
  rdma_probe send $FILES/offer.$1 $FILES/done.$1 $2 $3 $4 $LAB_A $5 > "$RESULTS/$1" || code=$?
  cat "$RESULTS/$1"
  lab_check "send $1" test $code = 0
}
send one 96 1 0
send two 96 2 0
lab_check "the send queue was full on the way" grep -q '^full send queue: [1-9]' "$RESULTS/two"
send budget 128 2 64
send staging 64 1 0 unregistered
