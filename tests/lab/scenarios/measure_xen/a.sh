# Each turn moves the domain to b by one of them; it comes back by ramferry.
. "$LAB_SCENARIO/scenario/common.sh"
bridge_host
xen_certificates
linux_start
xen_receive
printf '#!/bin/sh\nexec python3 -S -B /host/guest/pump.py connect %s 7000\n' "$LAB_B" > /tmp/rsh
chmod +x /tmp/rsh
lab_meet receiving 400
for turn in $(seq $TURNS); do
  for by in xl ramferry; do
    lab_wait "$by.$turn.ready" 300
    read -r cpu bytes <<< "$(used)"
    began=$EPOCHREALTIME
    if [ $by = xl ]; then
      lab_check "xl migrate" xl migrate -s /tmp/rsh linux b
    else
      lab_check "ramferry" guest_move "ramferry$turn" --transport tcp
    fi
    ended=$EPOCHREALTIME
    read -r cpu_after bytes_after <<< "$(used)"
    echo "$turn $by $began $ended $cpu $cpu_after $bytes $bytes_after" |
      awk '{ print $1, $2, $4 - $3, $6 - $5, ($8 - $7) / 1048576 }' >> "$FILES/figures.a"
    lab_signal "$by.$turn.moved"
    lab_wait "$by.$turn.back" 400
  done
done
python3 -S -B "$LAB_SCENARIO/scenario/ratios.py" "$FILES/figures.a" "$FILES/figures.b"
