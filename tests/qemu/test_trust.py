"""Who may send guests to whom, as operators say it: by names, and by a list of revoked certificates."""
import shutil

import pytest

from tests.harness import leaks, ramferry
from tests.harness.site import make_site_certificates
from .guests import assert_moved, assert_untouched, source_and_target

TINY = "fill_mib=2 wss_mib=1 rate=100"


def test_revoked_host_is_refused_at_once_and_comes_again_with_a_new_certificate(site, tmp_path):
    """`receive` is not restarted; on either side the list counts from the next connection."""
    authority = make_site_certificates(tmp_path / "authority")
    site.certificates = authority

    def revoke(host):
        result = ramferry.run("certs", authority, "--revoke", host)
        assert result.returncode == 0, result.stderr

    revoke("source")  # the certificate that it has before the one that it shows
    (authority / "source.pem").unlink()
    (authority / "source-key.pem").unlink()
    make_again = ["certs", authority, "--host", "source=localhost,127.0.0.1"]
    assert ramferry.run(*make_again).returncode == 0
    mine, theirs = tmp_path / "mine.pem", tmp_path / "theirs.pem"
    for copy in (mine, theirs):
        shutil.copy(authority / "crl.pem", copy)
    with source_and_target(TINY) as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target, arguments=("--revocation-list", theirs)) as receiver:
            revoke("destination")
            shutil.copy(authority / "crl.pem", mine)
            result = site.migrate(source, receiver, "--revocation-list", mine)
            assert result.exit_code == 1 and "host destination: its certificate is revoked" in result.stderr, result
            revoke("source")
            shutil.copy(authority / "crl.pem", theirs)
            result = site.migrate(source, receiver)
            assert result.exit_code == 1 and "host source: its certificate is revoked" in result.stderr, result
            assert_untouched(source, before)
            (authority / "source.pem").unlink()
            (authority / "source-key.pem").unlink()
            assert ramferry.run(*make_again).returncode == 0
            counters = source.counters()
            assert_moved(site.migrate(source, receiver), source, target, counters)


def test_list_that_cannot_be_used_ends_receive_at_once_with_the_reason(site, tmp_path):
    with pytest.raises(RuntimeError, match="this host: whether its certificate is revoked cannot be told: .*missing"):
        with site.receiver('name = "guest"\nargv = ["qemu-system-x86_64"]\n',
                           arguments=("--revocation-list", tmp_path / "missing.pem")):
            pass


def test_guest_is_sent_only_to_hosts_on_the_sources_list(site, tmp_path):
    config = tmp_path / "source.toml"
    with source_and_target(TINY) as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            config.write_text('[migrate]\nallow = ["another"]\n')
            result = site.migrate(source, receiver, "--config", config)
            assert result.exit_code == 1 and "host destination is not on the list" in result.stderr, result
            assert_untouched(source, before)
            config.write_text('[migrate]\nallow = ["another", "destination"]\n')
            counters = source.counters()
            assert_moved(site.migrate(source, receiver, "--config", config), source, target, counters)
