# What both hosts of xen_kills know.
FILL_MIB=8
. /host/guest/xen.sh
# Who is killed when (RAMFERRY_TEST_STOP, engine/journal.cc), and what must come of it. The guest is at a before each.
CASES="
source:after:tracking:stayed
source:after:pausing:stayed
source:after:handing-over:stayed
source:after:gone:moved
destination:after:reserved:stayed
destination:after:holding:stayed
destination:after:activating:moved
"
# All that is unsettled here is settled, as a person would: again and again until the other side answers.
settle() {
  local id left=100
  for id in $(ramferry status "${IDENTITY[@]}" | awk '{ print $1 }' | grep -E '^[0-9a-f]{8}-'); do
    until ramferry resolve "$id" "${IDENTITY[@]}"; do
      [ $((left--)) -gt 0 ] || return 1
      sleep 0.3
    done
  done
}
