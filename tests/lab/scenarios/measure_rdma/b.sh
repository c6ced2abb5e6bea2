# The source. One queue pair each, 256 requests deep. Figures: $RESULTS/figures, KIND MB/s.
cp -r /host/bin /host/lib /tmp/
export PATH=/tmp/bin:$PATH LD_LIBRARY_PATH=/tmp/lib
send() {
  lab_wait "$1$2" 300
  lab_check "send $1" rdma_probe send $FILES/offer.$1$2 $FILES/done.$1$2 128 1 0 $LAB_A $3 > /tmp/sent
  cat /tmp/sent
  sed -n "s/^\(bulk\|scattered\|no zeros\) .*: *\([0-9.]*\) MB\/s, \([0-9.]*\) CPU.*/\1|\2|\3/p" /tmp/sent |
    while IFS='|' read -r round rate cpu; do echo "$1-${round/ /-} $rate $cpu"; done >> "$RESULTS/figures"
}
bandwidth() {
  lab_wait "$1$2" 300
  ib_write_bw -d rxe0 -s $3 -n $4 -t 256 -F $LAB_A > /tmp/bw
  grep -A1 '#bytes' /tmp/bw
  # The fourth column: the average, in units of 2^20 bytes.
  grep -A1 '#bytes' /tmp/bw | awk -v kind="ib_write_bw-$1" 'NR == 2 { print kind, $4 * 1.048576, 0 }' >> "$RESULTS/figures"
}
for turn in $(seq 7); do
  send rdma $turn
  bandwidth large $turn 1048576 96
  bandwidth small $turn 4096 2000
  send tcp $turn tcp
  if rdma_probe check | grep -q 'on-demand paging yes'; then send odp $turn on-demand; fi
done
python3 $LAB_SCENARIO/scenario/ratios.py "$RESULTS/figures"
