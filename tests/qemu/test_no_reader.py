"""What nobody reads must not break a move: logs and progress that meet a closed pipe, or one that is full."""
import contextlib
import json
import os
import re
import socket
import subprocess

import pytest

from tests.harness import ramferry
from tests.harness.deadline import wait_until
from tests.harness.site import free_port
from .guests import assert_moved, source_and_target

SMALL = "fill_mib=8 wss_mib=2 rate=500"


@contextlib.contextmanager
def reader_that(what):
    """A pipe's writing end for a program's messages, and a function that lets it have no reader any more."""
    reading, writing = os.pipe()
    text = bytearray()

    def listen(pattern):
        while not re.search(pattern, text):
            part = os.read(reading, 4096)
            assert part, f"it ended: {text.decode()}"
            text.extend(part)
        return re.search(pattern, text)

    def leave():
        nonlocal reading
        if what == "closed":
            os.close(reading)
            reading = None
        else:  # by a description of its own: the program's must go on waiting where it cannot write
            filler = os.open(f"/proc/self/fd/{reading}", os.O_WRONLY | os.O_NONBLOCK)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(filler, b"x" * 65536)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(filler, b"x")
            os.close(filler)

    try:
        yield writing, listen, leave
    finally:
        os.close(writing)
        if reading is not None:
            os.close(reading)


def test_no_connection_takes_the_number_of_a_stream_that_was_closed_from_the_start(site):
    """What is written to standard error would go to a peer, or into a guest's memory."""
    port = free_port()
    receiver = subprocess.Popen(
        ["sh", "-c", 'exec "$@" 0>&- 1>&- 2>&-', "sh", ramferry.binary(), "receive", "--port", str(port),
         *map(str, site.identity("destination")), "--runtime-dir", site.runtime_directory("destination"),
         "--guest", site.define('name = "guest"\nargv = ["true"]\n')])
    try:
        def listens():
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                return True
            assert receiver.poll() is None
            return False

        wait_until(listens, "ramferry receive to listen")
        # Libraries may have something of their own there before main(): no connection, no file.
        streams = [os.readlink(f"/proc/{receiver.pid}/fd/{fd}") for fd in range(3)]
        assert all(stream == "/dev/null" or stream.startswith("anon_inode:") for stream in streams), streams
        receiver.terminate()
        assert receiver.wait(60) == 0
    finally:
        receiver.kill()
        receiver.wait()


@pytest.mark.parametrize("what", ["closed", "full"])
def test_move_goes_on_when_the_messages_of_both_sides_meet_a_pipe_that_is(site, tmp_path, what):
    with source_and_target(SMALL) as (source, target), reader_that(what) as (theirs, listen, leave_theirs), \
         reader_that(what) as (mine, _, leave_mine):
        before = source.counters()
        receiver = subprocess.Popen(
            [ramferry.binary(), "receive", "--once", "--port", "0", *site.identity("destination"), "--runtime-dir",
             site.runtime_directory("destination"), "--guest", site.define(target.definition())],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs)
        try:
            port = int(listen(rb"listening on \S+ port (\d+)").group(1))
            leave_theirs()
            leave_mine()
            report = tmp_path / "report.json"
            moving = subprocess.run(
                [ramferry.binary(), "migrate", f"qemu:{source.ramferry_socket}", f"127.0.0.1:{port}", "--json", report,
                 *site.identity("source")], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=mine,
                timeout=120)
            result = ramferry.Migration(moving.returncode, json.loads(report.read_text()), "", "")
            assert_moved(result, source, target, before)
            assert receiver.wait(60) == 0
            wait_until(lambda: not site.leftovers_in_journals(), "clean journals")
        finally:
            receiver.kill()
            receiver.wait()
