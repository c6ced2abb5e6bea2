# For scenarios that move the project's test guest, a PVH domain of 128 MiB, between the dom0s a and b; they begin with
# `. /host/guest/xen.sh`.
#
# The emulated host has one CPU for dom0 and the guest, and the guest never halts (PVH has no timer that it could wait
# with): half of all time is its.
# GUEST is the domain's name; a scenario may set it, and how busy the test guest is, before. Pages are not encrypted
# unless it sets ENCRYPTION=on: the emulator is slow at that.
: "${GUEST:=guest}" "${ENCRYPTION:=off}" "${FILL_MIB:=16}" "${WSS_MIB:=2}" "${RATE:=40}"
CERTIFICATES=$FILES/certificates
IDENTITY=(--ca $CERTIFICATES/ca.pem --cert "$CERTIFICATES/$LAB_host.pem" --key "$CERTIFICATES/$LAB_host-key.pem"
  --state-dir /tmp/state)
case $LAB_host in a) LAB_other=b LAB_OTHER=$LAB_B ;; *) LAB_other=a LAB_OTHER=$LAB_A ;; esac

# Out of the slow 9p file system.
cp -r /host/bin /host/lib /tmp/
export PATH=/tmp/bin:$PATH LD_LIBRARY_PATH=/tmp/lib

guest_is_whole() { guest_watch "xen:$GUEST" whole; }
guest_is_here() { xl domid "$GUEST" > /dev/null 2>&1; }
# guest_moves TURNS COMMAND...: to and fro, beginning at a; after each turn the host that the guest has come to runs the
# command. Both hosts call this at the same time, and receive.
guest_moves() {
  local turns=$1 turn from
  shift
  for turn in $(seq "$turns"); do
    from=$([ $((turn % 2)) = 1 ] && echo a || echo b)
    if [ $from = $LAB_host ]; then
      lab_check "move $turn" guest_move "move$turn" --transport tcp
      lab_check "nothing of it is left here" nothing_is_left
      lab_signal "moved$turn"
      lab_wait "seen$turn" 500
    else
      lab_wait "moved$turn" 500
      lab_check "after move $turn: $*" "$@"
      lab_signal "seen$turn"
    fi
  done
}

# guest_start: returns when the guest has filled its memory.
guest_start() {
  cat > /tmp/guest.cfg <<END
type = "pvh"
name = "guest"
kernel = "/tmp/bin/testguest.elf"
extra = "fill_mib=$FILL_MIB wss_mib=$WSS_MIB rate=$RATE check_rate=0 zero_pct=20 tick_us=10000 tick_port=none"
memory = 128
vcpus = 1
on_crash = "preserve"
END
  lab_check "the domain is created" xl create -q /tmp/guest.cfg
  lab_check "the test guest runs" guest_watch "xen:$GUEST" running
}

# Free for domains on this host, in MiB, when Xen has scrubbed what was given back.
free_memory() { xl info | awk '$1 == "free_memory" { print $3 }'; }
# memory_is_back MIB: as much is free again; a small difference is xenheap that Xen keeps for the next domain.
memory_is_back() {
  local left=100
  until [ "$(free_memory)" -ge $(($1 - 1)) ]; do
    [ $((left--)) -gt 0 ] || { echo "free: $(free_memory) of $1 MiB"; xl list; return 1; }
    sleep 0.1
  done
}
# nothing_is_left: of the guest on this host.
nothing_is_left() {
  local left=100
  until [ "$(xl list | wc -l)" = 2 ]; do
    [ $((left--)) -gt 0 ] || { xl list; return 1; }
    sleep 0.1
  done
}

# xen_receive COMMAND...: takes domains in the background, run by COMMAND if there is one. Its process is $receiver;
# what it says is in /tmp/receive.log.
xen_certificates() {
  [ $LAB_host = a ] && lab_check "certificates" ramferry certs $CERTIFICATES --host "a=$LAB_A" --host "b=$LAB_B"
  lab_meet certificates 300
}
xen_receive() {
  "$@" ramferry receive --xen --data-encryption "$ENCRYPTION" "${IDENTITY[@]}" --port 7711 --runtime-dir /tmp/run 2> >(tee -a /tmp/receive.log) & receiver=$!
  lab_listening 7711
}

# guest_move REPORT FLAG...: to the other host; exit code of `ramferry migrate`. The report comes back as
# $RESULTS/REPORT.json, what was printed as $RESULTS/REPORT.txt.
guest_move() {
  local name=$1 code=0
  shift
  ramferry migrate "xen:$GUEST" $LAB_OTHER:7711 "${IDENTITY[@]}" --json "$RESULTS/$name.json" --data-encryption "$ENCRYPTION" \
    --downtime 3000 --max-rounds 6 --if-not-converging stop "$@" > "$RESULTS/$name.txt" 2>&1 || code=$?
  cat "$RESULTS/$name.txt"
  return $code
}
# wait_stopped PID: of a ramferry with RAMFERRY_TEST_STOP (engine/journal.cc).
wait_stopped() {
  local left=1200
  until [ "$(sed 's/.*) //' "/proc/$1/stat" | cut -c1)" = T ]; do
    kill -0 "$1" 2>/dev/null || { echo "it ended before"; return 1; }
    [ $((left--)) -gt 0 ] || { echo "it never came so far"; return 1; }
    sleep 0.1
  done
}
# strike PID: kills it where it waits.
strike() {
  wait_stopped "$1" && kill -9 "$1"
}

reported() { grep -qF "\"$2\": $3" "$RESULTS/$1.json"; }
