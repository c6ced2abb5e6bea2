# Where it goes to, and comes from; its ticks come here all the time.
. "$LAB_SCENARIO/scenario/common.sh"
bridge_host
python3 -S -B /host/guest/ticks.py > /tmp/ticks & 
xen_certificates
RAMFERRY_TEST_STOP=after:holding xen_receive
lab_meet receiving 400
lab_check "killed, with a whole domain" strike "$receiver"
wait "$receiver"
xen_receive
lab_check "the next receiver removes it" nothing_is_left
lab_wait rolled-back 400
lab_check "it ticks" grep -q memory_work /tmp/ticks
guest_moves 3 guest_is_well
tick() { tail -n 1 /tmp/ticks | sed -n "s/.*\"$1\": \([0-9.]*\).*/\1/p"; }
work=$(tick memory_work)
sleep 2
tail -n 1 /tmp/ticks
lab_check "it goes on rewriting its memory" test "$(tick memory_work)" -gt "$work"
lab_check "and never found a wrong page" test "$(tick memory_bad)" = 0
unbridge_host
