. "$LAB_SCENARIO/scenario/common.sh"
bridge_host
xen_certificates
xen_receive
lab_meet receiving 400
for turn in $(seq $TURNS); do
  for by in xl ramferry; do
    python3 -S -B /host/guest/ticks.py > /tmp/ticks & ticks=$!
    if [ $by = xl ]; then
      python3 -S -B /host/guest/pump.py listen 7000 xl migrate-receive 2> /tmp/xl.log &
      lab_listening 7000
    fi
    sleep 2
    read -r cpu _ <<< "$(used)"
    lab_signal "$by.$turn.ready"
    lab_wait "$by.$turn.moved" 400
    read -r cpu_after _ <<< "$(used)"
    lab_check "the guest is well" guest_is_well
    sleep 2
    kill $ticks
    gap=$(tail -n 1 /tmp/ticks | sed -n 's/.*"longest_gap_s": \([0-9.]*\).*/\1/p')
    echo "$turn $by $gap $cpu $cpu_after" | awk '{ print $1, $2, $3, $5 - $4 }' >> "$FILES/figures.b"
    lab_check "wrong pages: none" grep -q '"memory_bad": 0' <(tail -n 1 /tmp/ticks)
    lab_check "back" guest_move "back$turn.$by" --transport tcp
    lab_signal "$by.$turn.back"
  done
done
