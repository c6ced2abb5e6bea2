# The source. A probe that sends until it fails, and what makes it fail.
until_failure() {
  lab_wait $1
  rdma_probe send $FILES/offer.$1 $FILES/done.$1 64 2 0 $LAB_A until-failure > $RESULTS/$1 & probe=$!
  until grep -q '^bulk' $RESULTS/$1; do kill -0 $probe || break; sleep 0.1; done
}
lab_check "rdma check finds the device" rdma_probe check

until_failure cut
lab_world cut-link b
lab_check "a cut link fails the channels" wait $probe
cat $RESULTS/cut
lab_check "the failure names the port" grep -q 'went down' $RESULTS/cut
lab_check "rdma check tells it" sh -c 'rdma_probe check; test $? = 1'
lab_world mend-link b
lab_signal cut.over

lab_wait mended
until grep -q ACTIVE /sys/class/infiniband/rxe0/ports/1/state; do sleep 0.1; done
lab_check "the mended link works" \
  rdma_probe send $FILES/offer.mended $FILES/done.mended 64 2 0 $LAB_A

until_failure power
lab_world cut-power a
lab_check "a destination without power fails the channels" wait $probe
cat $RESULTS/power
