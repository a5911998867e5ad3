"""What a service does when things go wrong: killed, out of disk, slow clients, grants taken away under way."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from served import Client, Lost, Served, guest, percentiles, served

from intarsia.ledger import read_receipts
from intarsia.vault import Vault
from intarsia.vault.receipts import folder_beside

DISK = "size=192m"
_SLOW = 1.0  # seconds between the bytes of a slow client
_LONGEST = 600.0  # seconds that a busy machine may take for what is waited for


def killed(root: Path, options: Sequence[str], *, times: int, clients: int) -> dict[str, Any]:
    """Kill the service while it draws and grants; begin it again, and look for all that it had answered."""
    rng, began, acknowledged, lost = random.Random(1), [], 0, 0
    problems: list[str] = []
    for trial in range(times):
        receipts: list[str] = []
        quotas: list[int] = []
        over = threading.Event()
        with served(root, *options) as service:
            name = f"granted-{trial}"
            guest(service, name, ["source-0"])
            work = [partial(_draw, service, receipts, over)] * clients + [partial(_grant, service, name, quotas, over)]
            with ThreadPoolExecutor(len(work)) as pool:
                waiting = [pool.submit(each) for each in work]
                wanted, end = rng.randint(10, 60), time.monotonic() + _LONGEST
                while len(receipts) + len(quotas) < wanted and time.monotonic() < end:
                    time.sleep(rng.uniform(0, 0.05))
                service.kill()
                over.set()
            for each in waiting:
                each.result()
        with served(root, *options) as service:
            began.append(service.seconds)
            asker = service.client()
            lost += sum(asker.ask("GET", f"/v1/receipts/{id}")[0] != 200 for id in receipts)
            quota = asker.ask("GET", f"/v1/principals/{name}")[1]["grants"][0]["quota"]
            lost += bool(quotas) and int(str(quota).split("/")[0]) < quotas[-1]
        acknowledged += len(receipts) + len(quotas)
        problems += map(str, Vault.open(root).verify().problems)
    return {
        "kills": times,
        "acknowledged": acknowledged,
        "lost": lost,
        "problems": problems,
        "seconds_until_ready": statistics.median(began),
    }


def _draw(service: Served, receipts: list[str], over: threading.Event) -> None:
    client = service.client()
    with contextlib.suppress(Lost):
        while not over.is_set():
            status, told = client.draw(num_inference_steps=3, sources=["source-1", "source-2"])
            if status == 200:
                receipts.append(told["intarsia"]["receipt"])


def _grant(service: Served, name: str, quotas: list[int], over: threading.Event) -> None:
    client, quota = service.client(), 1
    with contextlib.suppress(Lost):
        while not over.is_set():
            body = {"principal": name, "sources": ["source-0"], "quota": f"{quota}/day"}
            if client.ask("POST", "/v1/grants", body)[0] == 201:
                quotas.append(quota)
            quota += 1


def killed_while_forgetting(root: Path, options: Sequence[str]) -> dict[str, Any]:
    """Kill the service the moment it has answered that a picture is forgotten; the next one must finish that."""
    vault = Vault.open(root)
    gone = vault.source("source-5").manifest.ids[0]
    with served(root, *options) as service:
        status, told = service.client().ask("POST", "/v1/sources/source-5/forget", {"samples": [gone]})
        service.kill()
    assert status == 202, told
    with served(root, *options):
        began = time.monotonic()
        while vault.unfinished() and time.monotonic() < began + _LONGEST:
            time.sleep(0.2)
        seconds = time.monotonic() - began
    kinds = sorted(each.entry.kind for path in folder_beside(root).glob("*.json") for each in read_receipts(path))
    return {
        "seconds": seconds,
        "finished": not vault.unfinished() and gone not in vault.source("source-5").manifest.ids,
        "receipts": kinds,
        "problems": [str(each) for each in vault.verify().problems],
    }


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path | None]:
    """A file system of its own, of `DISK`; None where this process may not make one."""
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(place)], check=False).returncode != 0:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def full_disk(root: Path, scratch: Path, options: Sequence[str]) -> dict[str, Any]:
    """Fill the disk under a service; ask everything of it, then make room and ask again.

    What could not be forgotten must still be there.
    """
    with small_disk(scratch / "small") as place:
        if place is None:
            return {"skipped": "only root can mount a small file system"}
        shutil.copytree(root, place / root.name)
        with served(place / root.name, *options, log=scratch / "small.log") as service:
            guest(service, "hungry", ["source-1"])
            before = _everything(service)
            filler = place / "filler"
            with filler.open("wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(os.urandom(2**16))
                    file.flush()
            full = _everything(service)
            full["forget"] = service.client().ask("POST", "/v1/sources/source-3/forget", {})[0]
            filler.unlink()
            after = _everything(service)
            there = [each["name"] for each in service.client().ask("GET", "/v1/sources")[1]["data"]]
        problems = [str(each) for each in Vault.open(place / root.name).verify().problems]
    answers = {"before": before, "full": full, "after": after}
    return answers | {"nothing_forgotten": "source-3" in there, "problems": problems}


def _everything(service: Served) -> dict[str, int]:
    """What those who draw, grant, ask and look are answered."""
    client = service.client()
    grant = {"principal": "hungry", "sources": ["source-1"], "quota": "1000/day"}
    return {
        "draw": client.draw(num_inference_steps=2)[0],
        "grant": client.ask("POST", "/v1/grants", grant)[0],
        "ticket": client.ask("POST", "/v1/tickets", {"source": "source-2"})[0],
        "sources": client.ask("GET", "/v1/sources")[0],
        "alive": client.ask("GET", "/healthz")[0],
    }


def slow_clients(service: Served, *, slow: int, seconds: float) -> dict[str, Any]:
    """Clients that send a byte a second, or read nothing, beside four that draw; how long each kind is borne."""
    quiet = _latencies(service, seconds / 3)
    head = b"GET /v1/me HTTP/1.1\r\nHost: x\r\nX-Slow: "
    body = f"POST /v1/credit HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\nContent-Length: 9999\r\n\r\n"
    streams = [service.client().stream(num_inference_steps=20, partial_images=20) for _ in range(4)]
    for each in streams:
        next(each)  # and then never again
    with ThreadPoolExecutor(2 * slow) as pool:
        heads = [pool.submit(_drip, service, head, 60.0) for _ in range(slow)]
        bodies = [pool.submit(_drip, service, body.encode(), 60.0) for _ in range(slow)]
        busy = _latencies(service, seconds)
        borne = {"head": max(each.result() for each in heads), "body": max(each.result() for each in bodies)}
    for each in streams:
        each.close()
    return {"slow": 2 * slow, "without": percentiles(quiet), "beside": percentiles(busy), "seconds_borne": borne}


def _drip(service: Served, begin: bytes, longest: float) -> float:
    """Send a beginning, then a byte now and then; returns the seconds until the service had enough."""
    began = time.monotonic()
    with socket.create_connection((service.host, service.port), timeout=_SLOW) as connection:
        connection.sendall(begin)
        while time.monotonic() - began < longest:
            try:
                connection.sendall(b"x")
                connection.recv(1024)
                break  # it has answered, or closed
            except TimeoutError:
                continue  # nothing was said yet
            except OSError:
                break
    return time.monotonic() - began


def _latencies(service: Served, seconds: float) -> list[float]:
    """Of four clients that draw one image after the other."""
    until = time.monotonic() + seconds

    def client(_: int) -> list[float]:
        asker, found = service.client(), []
        while time.monotonic() < until:
            began = time.perf_counter()
            status, told = asker.draw(num_inference_steps=5)
            assert status == 200, told
            found.append(time.perf_counter() - began)
        return found

    with ThreadPoolExecutor(4) as pool:
        return [each for found in pool.map(client, range(4)) for each in found]


def revoked(service: Served, names: Sequence[str], *, times: int) -> dict[str, Any]:
    """Take a grant away while images are being drawn with it, beside somebody who keeps his."""
    admin, keeps = service.client(), service.client(guest(service, "keeps", names))
    delays: list[float] = []
    ends, others = Counter[str](), 0
    for number in range(times):
        name = f"loses-{number}"
        loser = service.client(guest(service, name, names))
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(keeps.draw, num_inference_steps=30, seed=number)
            ends[_end_of(loser, admin, f"/v1/grants/{name}/{names[0]}", delays)] += 1
            others += other.result()[0] == 200
    return {"times": times, "ends": dict(ends), "others": others, "seconds_to_the_end": percentiles(delays)}


def _end_of(loser: Client, admin: Client, grant: str, delays: list[float]) -> str:
    """How a stream ends whose grant is taken after its first preview."""
    answered: float | None = None
    for kind, _ in loser.stream(num_inference_steps=100, partial_images=50, n=2):
        if answered is None:
            status, told = admin.ask("DELETE", grant)
            assert status == 200, told
            answered = time.perf_counter()
        elif kind in ("error", "image_generation.completed"):
            delays.append(time.perf_counter() - answered)
            return kind
    return "nothing"
