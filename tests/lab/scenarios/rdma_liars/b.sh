# The source.
send() {
  lab_wait "$1"
  rdma_probe send $FILES/offer.$1 $FILES/done.$1 $2 1 0 $LAB_A > "$RESULTS/$1" && { echo "FAILED: $1: it went"; exit 1; }
  cat "$RESULTS/$1"
}
for lie in key address; do
  send $lie 32
  lab_check "a write with a wrong $lie is refused by the device" \
    grep -q "error: the destination's RDMA device refused a write .*the key it gave is not good there" "$RESULTS/$lie"
done
send size 64
lab_check "the source hears why" grep -q 'error: the destination says: .*which this guest does not have' "$RESULTS/size"
