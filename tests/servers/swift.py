"""An S3 server of one's own: OpenStack Swift with its S3 interface, Debian's, in a folder of its own, on loopback."""

from __future__ import annotations

import getpass
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .postgres import free_port

KEY, SECRET = "inlay:keeper", "inlaid-7f"
_KINDS = ("account", "container", "object")
_SWIFT = "[swift-hash]\nswift_hash_path_suffix = test\n"
_STORAGE = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {home}
devices = {home}/disks
mount_check = false
# What is not listed in time is listed later by a process that is not there: nothing may be late.
conn_timeout = 60
node_timeout = 60
container_update_timeout = 60
log_name = {kind}
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {home}
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth copy slo dlo versioned_writes
  symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
conn_timeout = 60
node_timeout = 60
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{closed}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_inlay_keeper = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
"""


class Swift:
    """Four servers: accounts, containers and objects on one disk, and the proxy that speaks S3."""

    def __init__(self, home: Path):
        self.disks, self.port, self._home = home / "disks", free_port(), home
        self._processes: list[subprocess.Popen[bytes]] = []
        (self.disks / "d1").mkdir(parents=True)
        (home / "swift.conf").write_text(_SWIFT)
        user = getpass.getuser()
        for kind in _KINDS:
            port = free_port()
            (home / f"{kind}.conf").write_text(_STORAGE.format(port=port, user=user, home=home, kind=kind))
            for words in (["create", "4", "1", "0"], ["add", f"r1z1-127.0.0.1:{port}/d1", "1"], ["rebalance"]):
                subprocess.run(
                    ["swift-ring-builder", str(home / f"{kind}.builder"), *words], check=True, capture_output=True
                )
        settings = {"port": self.port, "user": user, "home": home, "closed": free_port(), "secret": SECRET}
        (home / "proxy.conf").write_text(_PROXY.format(**settings))

    @property
    def environment(self) -> dict[str, str]:
        """What tells an S3 client where it is, and who asks."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            # It knows none of the checksums that newer clients send unasked.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def start(self) -> None:
        """Start all, and wait until the proxy answers."""
        for kind in (*_KINDS, "proxy"):
            with (self._home / f"{kind}.log").open("ab") as log:
                command = [f"/usr/bin/swift-{kind}-server", str(self._home / f"{kind}.conf"), "-v"]
                environment = {"SWIFT_DIR": str(self._home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
                self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        deadline = time.monotonic() + 300
        while not self._answers():
            dead = [process.args for process in self._processes if process.poll() is not None]
            assert not dead, self._said()
            assert time.monotonic() < deadline, self._said()
            time.sleep(0.2)

    def stop(self) -> None:
        """End all that was started here."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(timeout=30)
        self._processes.clear()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthcheck", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _said(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self._home.glob("*.log")))


@contextmanager
def swift() -> Iterator[Swift]:
    """A running server, gone with its folder afterwards."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # clients of an earlier server: the address in the environment is no key
    with tempfile.TemporaryDirectory(prefix="intarsia-swift-") as home:
        server = Swift(Path(home))
        try:
            server.start()
            yield server
        finally:
            server.stop()
