# The source.
send() {
  lab_wait "$1"
  echo "== $1: $2 MiB, $3 channels, pin budget $4 MiB $5"
  lab_check "send $1" rdma_probe send $FILES/offer.$1 $FILES/done.$1 $2 $3 $4 $LAB_A $5
}
bandwidth() {
  lab_wait "$1"
  echo "== ib_write_bw $2 bytes, $4 queue pairs"
  ib_write_bw -d rxe0 -s $2 -n $3 -q $4 -F $LAB_A | grep -A1 '#bytes'
}
for turn in 1 2 3; do
  send one$turn 128 1 0
  bandwidth large$turn 1048576 96 1
  bandwidth small$turn 4096 2000 1
done
