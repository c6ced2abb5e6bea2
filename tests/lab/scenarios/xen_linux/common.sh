# What both hosts of xen_linux do.
GUEST=linux
. /host/guest/xen.sh
. /host/guest/xen_network.sh
ADDRESS=10.9.0.50
CONSOLE=/var/log/xen/console/guest-linux.log

linux_start() {
  cp -r /host/linux /tmp/
  cat > /tmp/linux.cfg <<END
type = "pvh"
name = "linux"
kernel = "/tmp/linux/vmlinuz"
ramdisk = "/tmp/linux/initrd.img"
extra = "console=hvc0 quiet rf.chatty rf.ip=$ADDRESS/24 rf.ticks=$LAB_B:9000 rf.tick_ms=50 rf.mem_mib=24 rf.mem_rate=100"
memory = 128
vcpus = 1
vif = ["mac=00:16:3e:00:00:50,bridge=xenbr0"]
END
  lab_check "the domain is created" xl create -q /tmp/linux.cfg
  lab_check "its console speaks" console_speaks
}
spoken() { cat $CONSOLE 2>/dev/null | grep -c alive; }
# Lines from now on, not those of before.
console_speaks() {
  local before left=600
  before=$(spoken)
  until [ "$(spoken)" -gt $((before + 1)) ]; do
    [ $((left--)) -gt 0 ] || { tail -n 20 $CONSOLE; return 1; }
    sleep 0.1
  done
}
network_works() {
  local left=20
  until timeout 10 bash -c "exec 5<> /dev/tcp/$ADDRESS/7; echo $left >&5; read -r said <&5; [ \"\$said\" = $left ]"; do
    [ $((left--)) -gt 0 ] || { ip addr; ip neigh; return 1; }
    sleep 0.5
  done
}
guest_is_well() { console_speaks && network_works; }
