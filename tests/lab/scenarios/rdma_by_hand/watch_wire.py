"""Counts RoCE v2 packets that leave by an interface with a traffic class, IPv4 or IPv6; prints the sum as it grows."""
import socket
import struct
import sys

_ANY_PROTOCOL, _OUTGOING, _UDP, _ROCE = 3, 4, 17, 4791
taps = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ANY_PROTOCOL))
taps.bind((sys.argv[1], _ANY_PROTOCOL))
wanted, count, told = int(sys.argv[2]), 0, 0
print(0, flush=True)
while True:
    packet, address = taps.recvfrom(64)
    if address[2] != _OUTGOING or len(packet) < 48:
        continue
    if packet[0] >> 4 == 6:
        traffic_class, protocol, udp = struct.unpack(">H", packet[:2])[0] >> 4 & 0xff, packet[6], packet[40:]
    else:
        traffic_class, protocol, udp = packet[1], packet[9], packet[20:]
    if protocol == _UDP and struct.unpack(">H", udp[2:4])[0] == _ROCE and traffic_class == wanted:
        count += 1
        if count >= told + 100:
            told = count
            print(count, flush=True)
