# The source.
send() {
  lab_wait "$1"
  echo "== $1: $2 MiB, $3 channels, pin budget $4 MiB $5"
  lab_check "send $1" rdma_probe send /host/files/offer.$1 /host/files/done.$1 $2 $3 $4 $LAB_A $5
}
bandwidth() {
  lab_wait "bw.$1.$3"
  echo "== ib_write_bw $1 bytes, $3 queue pairs"
  ib_write_bw -d rxe0 -s $1 -n $2 -q $3 -F $LAB_A | grep -A1 '#bytes'
}
send one 256 1 0
bandwidth 1048576 192 1
bandwidth 4096 5000 1
send two 256 2 0
send budget 256 2 64
send staging 128 1 0 unregistered
