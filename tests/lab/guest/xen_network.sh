# Gives the guests of a dom0 the host's network: sourced by scenarios whose guests have a network.
bridge_host() {
  local address
  address=$(ip -o -4 addr show dev "$LAB_nic" | awk '{ print $4 }')
  ip link add xenbr0 type bridge
  ip link set xenbr0 address "$(cat /sys/class/net/"$LAB_nic"/address)" up
  ip addr flush dev "$LAB_nic"
  ip link set "$LAB_nic" master xenbr0
  ip addr add "$address" dev xenbr0
}
unbridge_host() {
  local address
  address=$(ip -o -4 addr show dev xenbr0 | awk '{ print $4 }')
  ip link del xenbr0
  ip addr add "$address" dev "$LAB_nic"
}
