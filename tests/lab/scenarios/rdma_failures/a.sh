# The destination; it has its power cut at the end.
receive() {
  rdma_probe receive $FILES/offer.$1 $FILES/done.$1 64 2 0 $LAB_A & probe=$!
  for _ in $(seq 300); do [ -e $FILES/offer.$1 ] && break; sleep 0.1; done
  lab_signal "$1"
}
rdma_probe check
receive cut
lab_wait cut.over
kill $probe
receive mended
lab_check "receive after the link was mended" wait $probe
receive power
sleep 100
