# The destination.
offered() {
  for _ in $(seq 300); do [ -e $FILES/offer.$1 ] && break; sleep 0.1; done
  lab_signal "$1"
}
for lie in key address; do
  lying_destination $FILES/offer.$lie 32 $LAB_A $lie & liar=$!
  offered $lie
  lab_check "the connection of the lie about the $lie is broken" wait $liar
done
# A guest of 32 MiB, and a source that writes one of 64.
rdma_probe receive $FILES/offer.size $FILES/done.size 32 1 0 $LAB_A > $RESULTS/size & probe=$!
offered size
wait $probe
cat $RESULTS/size
lab_check "the destination refuses what lies outside the guest" grep -q 'error: .*which this guest does not have' $RESULTS/size
