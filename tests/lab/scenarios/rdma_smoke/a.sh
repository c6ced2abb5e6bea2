ibv_devinfo | grep -E 'hca_id|state|active_mtu'
rping -s -a $LAB_A -C 10 & server=$!
sleep 1
lab_signal rping
lab_check "rping server" wait $server
for size in 4096 65536 1048576; do
  ib_write_bw -d rxe0 -s $size -n 100 -F > /tmp/bw & server=$!
  lab_listening 18515
  lab_signal bw.$size
  lab_check "ib_write_bw server, $size bytes" wait $server
done
