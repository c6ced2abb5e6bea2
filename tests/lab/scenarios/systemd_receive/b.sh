# The destination: systemd is its first process (guest/init), and ramferry receive runs from configs/.
. /host/guest/move.sh
make_certificates
cp /tmp/bin/ramferry /usr/bin/
cp -n /tmp/lib/* /usr/lib/x86_64-linux-gnu/
cp "$FILES/configs/ramferry-receive.service" /etc/systemd/system/
install -d -m 755 /etc/ramferry
install -m 600 "$CERTIFICATES"/{ca.pem,b.pem,b-key.pem} /etc/ramferry/
words=$(printf '"%s", ' "${GUEST_QEMU[@]}")
printf 'name = "guest"\nargv = [%s]\n' "${words%, }" > /etc/ramferry/guest.toml
cat > /etc/ramferry/ramferry.toml << END
[identity]
ca = "/etc/ramferry/ca.pem"
certificate = "/etc/ramferry/b.pem"
key = "/etc/ramferry/b-key.pem"
[receive]
guests = ["/etc/ramferry/guest.toml"]
port = 7711
END
unset LD_LIBRARY_PATH  # the rest is the unit's own

service() { systemctl show ramferry-receive --property="$1" --value; }
in_status() { grep -q "$1" "/proc/$(service MainPID)/status"; }
memory_blocks() { stat -c %b $GUEST_MEMORY 2>/dev/null || echo 0; }
pages_land() {
  local left=1200
  until [ "$(memory_blocks)" -gt 4096 ]; do
    [ $((left--)) -le 0 ] && { journalctl -u ramferry-receive; return 1; }
    sleep 0.1
  done
}
is_there_again() { # an earlier MainPID
  until [ "$(service MainPID)" != "$1" ] && [ "$(service ActiveState)" = active ]; do sleep 0.2; done
  lab_listening 7711
}

lab_check "systemd knows all that the unit says" sh -c \
  '! systemd-analyze verify /etc/systemd/system/ramferry-receive.service 2>&1 | grep ramferry-receive.service'
systemctl daemon-reload
lab_check "the unit starts" systemctl start ramferry-receive
lab_listening 7711
lab_check "it has two rights" in_status '^CapBnd:.*0000010000001000$'
lab_check "it cannot get more" in_status '^NoNewPrivs:.*1$'
lab_check "its system calls are filtered" in_status '^Seccomp:.*2$'
lab_signal receiving

lab_check "pages land" pages_land
lab_check "it is stopped in the middle of the move" systemctl stop ramferry-receive
lab_check "in good order" test "$(service Result)" = success
lab_check "nothing is left of the guest" sh -c '! pgrep -f "[n]ame guest" && ls -A /var/lib/ramferry | grep -c . | grep -qx 0'
lab_wait stayed 300

lab_check "it starts again" systemctl start ramferry-receive
lab_listening 7711
lab_signal receiving-again
guest_has_come
qemu=$(pgrep -f "[n]ame guest")
lab_check "the guest's QEMU is in the service's sandbox" grep -q '^Seccomp:.*2$' "/proc/$qemu/status"
receiver=$(service MainPID)
lab_check "it is restarted" systemctl restart ramferry-receive
is_there_again "$receiver"
lab_check "the guest goes on" guest_is_whole
receiver=$(service MainPID)
lab_check "it is killed" kill -9 "$receiver"
is_there_again "$receiver"
lab_check "the guest goes on" guest_is_whole
lab_check "its socket is where it was" test -S /run/ramferry/guest.qmp
lab_check "the receiver is told of a new configuration" systemctl reload ramferry-receive
lab_check "and is the same" test "$(service ActiveState)" = active

kill "$qemu"
while [ -e "/proc/$qemu" ]; do sleep 0.1; done
rm -f $GUEST_MEMORY
lab_signal guest-has-gone
lab_check "pages land" pages_land
# The host is shut down now (guest/init).
