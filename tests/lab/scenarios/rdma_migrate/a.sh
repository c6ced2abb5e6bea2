# The source.
. /host/guest/move.sh
guest_start
lab_wait receiving 300
ticks=$(guest_counter ticks)
lab_check "the guest moves" guest_move report --transport auto
lab_check "over RDMA" reported report transport '"rdma"'
lab_check "its memory was compared" reported report verified true
lab_check "its QEMU has ended here" wait $guest
echo "$ticks" > /host/files/ticks
lab_signal moved
