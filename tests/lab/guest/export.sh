# For scenarios that export what hwloc sees of an emulated host, for tests/unit/topologies.

# export_host: all of it, what this process may not use included; and what `ramferry` makes of it.
export_host() {
  lab_check "lstopo" lstopo-no-graphics --disallowed --no-icaches --whole-io --of xml "$RESULTS/host.xml"
  lstopo-no-graphics --disallowed --of console
  cat /sys/devices/system/node/node*/distance
  lab_check "ramferry topology" ramferry topology
}
