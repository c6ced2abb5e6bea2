"""The command line end to end: help, certificates, configuration, who may talk to whom."""
import fcntl
import os
import pty
import re
import signal
import stat
import struct
import subprocess
import termios

import pytest

from tests.harness import leaks, ramferry
from tests.harness.qemu import TESTGUEST, Qemu
from tests.harness.site import make_site_certificates
from .guests import assert_gone, assert_untouched, source_and_target

TINY = "fill_mib=2 wss_mib=1 rate=100 tick_port=none"


@pytest.mark.parametrize("command", ["migrate", "receive", "check", "certs", "status", "resolve", "config", "demo",
                                     "wws", "predict"])
def test_every_command_explains_itself(command):
    result = ramferry.run(command, "--help")
    assert result.returncode == 0 and result.stdout.strip() and result.stderr == ""
    assert command in ramferry.run("--help").stdout


@pytest.mark.parametrize("arguments", [
    [], ["no-such-command"], ["migrate"], ["migrate", "guest"], ["migrate", "qemu:/x", "host", "--workers", "many"],
    ["migrate", "qemu:/x", "host", "--workers", "1000"], ["migrate", "kvm:7", "host"],
    ["migrate", "qemu:/x", "host:70000"], ["migrate", "qemu:/x", "host", "--if-not-converging", "panic"],
    ["resolve", "x", "--run-here", "--discard-here"], ["receive"],
])
def test_wrong_usage_is_told_and_exits_with_2(site, arguments):
    if arguments[:1] in (["migrate"], ["receive"]) and len(arguments) != 1:
        arguments = arguments + site.identity("source")
    result = ramferry.run(*arguments)
    assert result.returncode == 2, result
    assert result.stderr.strip() or result.stdout.strip()


def test_certs_makes_keys_that_only_their_owner_reads_and_does_not_overwrite(tmp_path):
    first = ramferry.run("certs", tmp_path / "c", "--host", "a=a.example,10.0.0.1")
    assert first.returncode == 0, first.stderr
    for name in ("ca-key.pem", "a-key.pem"):
        assert stat.S_IMODE(os.stat(tmp_path / "c" / name).st_mode) == 0o600
    authority = (tmp_path / "c" / "ca.pem").read_bytes()
    more = ramferry.run("certs", tmp_path / "c", "--host", "b")
    assert more.returncode == 0 and (tmp_path / "c" / "ca.pem").read_bytes() == authority
    again = ramferry.run("certs", tmp_path / "c", "--host", "a")
    assert again.returncode == 1 and "a.pem" in again.stderr
    assert ramferry.run("certs", tmp_path / "c", "--host", "a", "--overwrite").returncode == 0


def test_config_prints_what_it_can_read_again(tmp_path):
    path = tmp_path / "ramferry.toml"
    path.write_text('[migrate]\nbandwidth_mib = 77\n[receive]\nallow = ["a", "b"]\n')
    printed = ramferry.run("--config", path, "config")
    assert printed.returncode == 0
    assert "bandwidth_mib = 77" in printed.stdout and 'allow = ["a", "b"]' in printed.stdout
    path.write_text(printed.stdout)
    assert ramferry.run("--config", path, "config").stdout == printed.stdout


@pytest.mark.parametrize("text, reason", [
    ("[migrate]\nbandwith = 1\n", "unknown key 'migrate.bandwith'"),
    ("[migrate]\ndowntime_ms = 0\n", "must be between 1 and"),
    ("[migrate]\ndowntime_ms = \"300\"\n", "must be a whole number"),
    ("[migrate\n", "line 1"),
])
def test_wrong_configuration_is_refused_with_file_and_key(tmp_path, text, reason):
    path = tmp_path / "ramferry.toml"
    path.write_text(text)
    result = ramferry.run("--config", path, "config")
    assert result.returncode == 2 and reason in result.stderr and str(path) in result.stderr


def test_status_of_a_quiet_host_says_so(site):
    assert "no migration is under way" in site.status("source")


def test_status_shows_a_migration_under_way_on_both_hosts(site):
    with source_and_target("fill_mib=48 wss_mib=1 rate=10") as (source, target):
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, "--bandwidth", "8")
            ramferry.wait_until(lambda: "being copied" in site.status("source"), "the source's status")
            assert "on its way here" in site.status("destination")
            moving.process.terminate()
            assert moving.wait().exit_code == 130
            assert_gone(target)


def read_to_its_end(terminal):
    shown = b""
    try:
        while part := os.read(terminal, 4096):
            shown += part
    except OSError:  # how a terminal ends
        pass
    os.close(terminal)
    return shown


def test_on_a_terminal_one_line_lives_and_is_written_over(site):
    with source_and_target(TINY) as (source, target), site.receiver(target) as receiver:
        terminal, stderr = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 150, 0, 0))
        with subprocess.Popen([ramferry.binary(), "migrate", f"qemu:{source.ramferry_socket}",
                               f"127.0.0.1:{receiver.port}", "--bandwidth", "3", *site.identity("source")],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr) as moving:
            os.close(stderr)
            shown = read_to_its_end(terminal)
        assert moving.returncode == 0, shown
    line = re.search(rb"\r\x1b\[K(round 1: [^\r\n]*dirty again[^\r\n]*)\r\x1b\[K", shown)
    assert line, shown
    for word in (b"pages", b"MiB/s", b"predicted downtime", b" to go"):
        assert word in line[1], line[1]
    parts = [int(part) for part in re.findall(rb"\r\x1b\[Kround 1: (\d+) %, \d+ pages, \d+ MiB/s", shown)]
    assert len(parts) >= 2 and parts == sorted(parts) and parts[-1] <= 100, shown
    assert re.search(rb"round 1: \d+ %[^\r]* to its end\r", shown), shown


def test_no_live_line_is_wider_than_its_terminal(site):
    with source_and_target(TINY) as (source, target), site.receiver(target) as receiver:
        terminal, stderr = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        with subprocess.Popen([ramferry.binary(), "migrate", f"qemu:{source.ramferry_socket}",
                               f"127.0.0.1:{receiver.port}", *site.identity("source")],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr) as moving:
            os.close(stderr)
            shown = read_to_its_end(terminal)
        assert moving.returncode == 0, shown
    live = re.findall(rb"\x1b\[K(round [^\r\n]*)\r", shown)
    assert live and max(map(len, live)) == 39, shown


@pytest.mark.parametrize("what, reason", [
    ("authority", "certificate"), ("server name", "certificate"), ("allow list", "allow"),
])
def test_hosts_that_do_not_trust_each_other_are_refused_with_the_reason(site, tmp_path, what, reason):
    with source_and_target(TINY) as (source, target):
        before = leaks.snapshot(source)
        flags, certificates, allow = (), None, ()
        if what == "authority":
            certificates = make_site_certificates(tmp_path / "others")
        elif what == "server name":
            flags = ("--server-name", "somebody.else")
        else:
            allow = ("--allow", "somebody.else")
        with site.receiver(target, arguments=allow) as receiver:
            result = site.migrate(source, receiver, *flags, certificates=certificates, seconds=60)
        assert result.exit_code in (1, 3), result
        assert reason in result.stderr.lower(), result.stderr
        assert_untouched(source, before)
        assert_gone(target)


def test_host_without_a_certificate_is_told_which_file_is_missing(site, tmp_path):
    with Qemu("guest", kernel=TESTGUEST, append=TINY) as source:
        source.wait_running()
        before = leaks.snapshot(source)

        class Nobody:
            port = 9

        result = site.migrate(source, Nobody, certificates=tmp_path / "nowhere")
        assert result.exit_code == 1 and str(tmp_path / "nowhere") in result.stderr
        assert_untouched(source, before)


def test_report_that_cannot_be_written_is_told_before_anything_is_touched(site):
    class Nobody:
        port = 9

    class Missing:
        ramferry_socket = str(site.directory / "no-such.qmp")

    for path in (site.directory / "no" / "such" / "report.json", site.directory):
        result = ramferry.run("migrate", f"qemu:{Missing.ramferry_socket}", f"127.0.0.1:{Nobody.port}", "--json", path,
                              *site.identity("source"))
        assert result.returncode in (1, 2) and f"{path}" in result.stderr and "qmp" not in result.stderr, result


def test_exit_code_says_where_the_guest_is_though_the_report_cannot_be_written(site):
    with source_and_target(TINY) as (source, target):
        counters = source.counters()
        with site.receiver(target, arguments=("--once",)) as receiver:
            result = ramferry.run("migrate", f"qemu:{source.ramferry_socket}", f"127.0.0.1:{receiver.port}", "--json",
                                  "/dev/full", *site.identity("source"))
        assert result.returncode == 0 and "the report is not written: cannot write /dev/full" in result.stderr, result
        target.arrive()
        assert target.wait_sweeps(2)["bad"] == 0 and target.counters()["work"] > counters["work"]


def test_receive_reads_its_configuration_again_on_sighup_and_keeps_it_when_the_new_one_is_wrong(site):
    def config(allowed, definition):
        return f'[receive]\nallow = ["{allowed}"]\nguests = ["{site.define(definition)}"]\n'

    with source_and_target(TINY) as (source, target):
        before = leaks.snapshot(source)
        another = target.definition().replace('name = "guest"', 'name = "another"')
        with site.receiver(config=config("somebody.else", target.definition())) as receiver:
            def take(text, answer):
                receiver.config_path.write_text(text)
                told = receiver.log.count(answer)
                receiver.process.send_signal(signal.SIGHUP)
                ramferry.wait_until(lambda: receiver.log.count(answer) > told, f"'{answer}': {receiver.log}")

            def attempt():
                return site.migrate(source, receiver)

            result = attempt()
            assert result.exit_code == 1 and "is not on the list" in result.stderr, result
            take(config("source", another), "read the configuration again")
            result = attempt()
            assert result.exit_code == 3 and "no guest definition named 'guest'" in result.stderr, result
            take("[receive]\nallow = 7\n", "the configuration is not taken: ")
            take('[receive]\nguests = ["/no/such/definition.toml"]\n', "the configuration is not taken: ")
            result = attempt()
            assert result.exit_code == 3 and "no guest definition named 'guest'" in result.stderr, result
            assert_untouched(source, before)
            take(config("source", target.definition()), "read the configuration again")
            result = attempt()
            assert result.exit_code == 0, result.stderr
        target.arrive()
        assert target.is_running()


def test_what_receive_and_its_qemu_make_is_for_their_owner_only(site):
    def others_may(path):
        return stat.S_IMODE(os.stat(path).st_mode) & 0o077

    usual = os.umask(0o022)
    try:
        with source_and_target(TINY) as (source, target):
            with site.receiver(target) as receiver:
                moving = site.start_migrate(source, receiver, "--bandwidth", "1")
                ramferry.wait_until(lambda: "being copied" in site.status("source"), "the guest to be on its way")
                made = [*target.memory_files, target.ramferry_socket, site.runtime_directory("destination"),
                        site.state_directory("source"), site.state_directory("destination"),
                        *site.runtime_directory("destination").glob("*"),
                        *site.state_directory("source").glob("*.json"),
                        *site.state_directory("destination").glob("*.json")]
                assert {os.path.basename(path): oct(others_may(path)) for path in made if others_may(path)} == {}
                moving.process.terminate()
                assert moving.wait().exit_code == 130
                assert_gone(target)
    finally:
        os.umask(usual)


def test_allowed_host_may_send(site):
    with source_and_target(TINY) as (source, target):
        with site.receiver(target, arguments=("--allow", "source", "--once")) as receiver:
            result = site.migrate(source, receiver)
            assert result.exit_code == 0, result.stderr
            assert receiver.process.wait(30) == 0  # --once
        target.arrive()
        assert target.is_running()
