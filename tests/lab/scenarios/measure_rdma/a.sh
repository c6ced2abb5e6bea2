# The destination. In turns, so that what else the machine does hits all alike.
cp -r /host/bin /host/lib /tmp/
export PATH=/tmp/bin:$PATH LD_LIBRARY_PATH=/tmp/lib
receive() {
  rdma_probe receive $FILES/offer.$1 $FILES/done.$1 128 1 0 $LAB_A $2 & local probe=$!
  for _ in $(seq 300); do [ -e $FILES/offer.$1 ] && break; sleep 0.1; done
  lab_signal "$1"
  lab_check "receive $1" wait $probe
}
bandwidth() {
  ib_write_bw -d rxe0 -s $2 -n $3 -t 256 -F > /tmp/bw & local server=$!
  lab_listening 18515
  lab_signal "$1"
  wait $server
}
for turn in $(seq 7); do
  receive rdma$turn
  bandwidth large$turn 1048576 96
  bandwidth small$turn 4096 2000
  receive tcp$turn tcp
  if rdma_probe check | grep -q 'on-demand paging yes'; then receive odp$turn on-demand; fi
done
