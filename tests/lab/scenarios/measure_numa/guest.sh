# The guest of measure_numa, on either host: on a all its memory is there from the start.
: "${FILL_MIB:=16}"
GUEST_QEMU[-1]="fill_mib=$FILL_MIB wss_mib=1 rate=10 check_rate=100 zero_pct=0 tick_us=10000 tick_port=none idle=halt"
if [ "$LAB_host" = a ]; then
  guest_on_nodes host-nodes=0,policy=bind,prealloc=on host-nodes=1,policy=bind,prealloc=on
else
  guest_on_nodes
fi
