# What both hosts of measure_xen do.
. "$FILES/common.sh"
TURNS=3
# CPU seconds of dom0 and bytes on the wire so far, as two numbers.
used() {
  echo "$(xl list Domain-0 | awk 'NR == 2 { print $6 }') $(awk -v nic="$LAB_nic:" '$1 == nic { print $10 }' /proc/net/dev)"
}
