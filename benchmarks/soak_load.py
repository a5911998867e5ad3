"""What a service does under load: throughput and latency of many at once, and memory over minutes of mixed traffic."""

from __future__ import annotations

import itertools
import random
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

from served import Client, Lost, Served, guest, percentiles

MIB = 2**20


def load(
    service: Served, names: Sequence[str], *, clients: int, images: int, rounds: int, steps: int
) -> dict[str, Any]:
    """Clients with different subsets, one image per request: all at once, and one at a time, by turns.

    One at a time every client waits until nobody else is being served, as before a server without batching; latency is
    from the moment a client wants its image.
    """
    subsets = [each for size in range(1, len(names) + 1) for each in itertools.combinations(names, size)]
    chosen = random.Random(0).sample(subsets, clients)
    keys = [guest(service, f"client-{k}", subset) for k, subset in enumerate(chosen)]
    found: dict[str, tuple[list[float], list[float]]] = {"at once": ([], []), "one at a time": ([], [])}
    turn = threading.Lock()

    def client(key: str, alone: bool) -> list[float]:
        asker, latencies = service.client(key), []
        for seed in range(images):
            began = time.perf_counter()
            with turn if alone else nullcontext():
                status, told = asker.draw(seed=seed, num_inference_steps=steps, sampler="ddim", routing="full")
            assert status == 200, told
            latencies.append(time.perf_counter() - began)
        return latencies

    for key in keys:  # compose, so that no round has to
        service.client(key).draw(num_inference_steps=1, sampler="ddim", routing="full")
    for _ in range(rounds):
        for way, (seconds, latencies) in found.items():
            began = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                for each in pool.map(client, keys, [way == "one at a time"] * clients):
                    latencies += each
            seconds.append(time.perf_counter() - began)
    figures: dict[str, Any] = {
        way: {"images_per_second": len(latencies) / sum(seconds), **percentiles(latencies)}
        for way, (seconds, latencies) in found.items()
    }
    figures["times"] = figures["at once"]["images_per_second"] / figures["one at a time"]["images_per_second"]
    figures["sources"] = statistics.mean(map(len, chosen))
    return figures | {"clients": clients, "images": images * rounds * clients, "steps": steps}


@dataclass
class Traffic:
    """Clients that ask for everything, in a random order that a seed fixes.

    `answers` counts what was answered, `strange` what should not have been.
    """

    service: Served
    names: Sequence[str]
    keys: Sequence[str]
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)

    def run(self, number: int, until: float) -> None:
        """Be one client."""
        rng, receipts = random.Random(number), deque[str](maxlen=20)
        client = self.service.client(self.keys[number % len(self.keys)])
        kinds: dict[str, tuple[Callable[..., int], int, set[int]]] = {
            "draw": (self._draw, 40, {200, 429}),
            "stream": (self._stream, 12, {200}),
            "leave": (self._leave, 6, {200}),
            "look": (self._look, 20, {200}),
            "receipt": (self._receipt, 8, {200}),
            "credit": (self._credit, 2, {200, 429}),
            "prove": (self._prove, 4, {200}),
            "grant and revoke": (self._grants, 4, {200, 503}),
            "wrong": (self._wrong, 8, {400, 401, 403, 404, 405, 422}),
        }
        weights = [weight for _, weight, _ in kinds.values()]
        while time.monotonic() < until:
            (kind,) = rng.choices(list(kinds), weights)
            act, _, expected = kinds[kind]
            try:
                status = act(client, rng, receipts)
            except Lost as error:
                self.strange.append(f"{kind}: {error}")
                continue
            self.answers[kind, status] += 1
            if status not in expected:
                self.strange.append(f"{kind}: {status}")

    def _settings(self, rng: random.Random) -> dict[str, Any]:
        settings: dict[str, Any] = {"seed": rng.randrange(2**31), "num_inference_steps": rng.randint(2, 8)}
        settings |= {"n": rng.randint(1, 2), "sampler": rng.choice(["ddpm", "ddim"])}
        if rng.random() < 0.5:
            settings["sources"] = rng.sample(list(self.names), rng.randint(1, len(self.names)))
        return settings | {"weights": rng.choice(["gaussian", "prior"])}

    def _draw(self, client: Client, rng: random.Random, receipts: deque[str]) -> int:
        status, told = client.draw(**self._settings(rng))
        if status == 200:
            receipts.append(told["intarsia"]["receipt"])
        return status

    def _stream(self, client: Client, rng: random.Random, receipts: deque[str]) -> int:
        kinds = [kind for kind, _ in client.stream(**self._settings(rng), partial_images=2)]
        return 200 if kinds and kinds[-1] == "image_generation.completed" else 0

    def _leave(self, client: Client, rng: random.Random, receipts: deque[str]) -> int:
        for _ in client.stream(**self._settings(rng) | {"num_inference_steps": 30}, partial_images=20):
            break
        return 200

    def _look(self, client: Client, rng: random.Random, receipts: deque[str]) -> int:
        paths = ["/v1/sources", "/v1/vault", "/v1/me", "/v1/models", "/metrics", "/", "/page/js/main.js"]
        return client.ask("GET", rng.choice(paths))[0]

    def _receipt(self, client: Client, rng: random.Random, receipts: deque[str]) -> int:
        return client.ask("GET", f"/v1/receipts/{rng.choice(receipts)}")[0] if receipts else 200

    def _credit(self, client: Client, rng: random.Random, receipts: deque[str]) -> int:
        if not receipts:
            return 200
        return client.ask("POST", "/v1/credit", {"receipt": receipts[-1], "repeats": 1})[0]

    def _prove(self, client: Client, rng: random.Random, receipts: deque[str]) -> int:
        status, head = client.ask("GET", "/v1/ledger")
        if status != 200:
            return status
        query = f"index={rng.randrange(head['size'])}&size={head['size']}"
        return client.ask("GET", f"/v1/ledger/proof/inclusion?{query}")[0]

    def _grants(self, client: Client, rng: random.Random, receipts: deque[str]) -> int:
        """Of a principal whom nobody else is."""
        admin, name = self.service.client(), f"guest-{rng.randrange(2**40)}"
        status = admin.ask("POST", "/v1/principals", {"name": name})[0]
        if status == 201:
            admin.ask("POST", "/v1/grants", {"principal": name, "sources": [rng.choice(self.names)], "quota": "5/day"})
            status = admin.ask("DELETE", f"/v1/principals/{name}")[0]
        admin.close()
        return status

    def _wrong(self, client: Client, rng: random.Random, receipts: deque[str]) -> int:
        asked: list[tuple[str, str, object]] = [
            ("POST", "/v1/images/generations", b"{"),
            ("POST", "/v1/images/generations", {"sources": ["nobody"]}),
            ("POST", "/v1/images/generations", {"n": 10_000}),
            ("GET", "/v1/principals", None),
            ("DELETE", "/v1/me", None),
            ("GET", "/tile/../../vault.json", None),
        ]
        return client.ask(*rng.choice(asked))[0]


def soak(service: Served, names: Sequence[str], *, minutes: float, clients: int) -> dict[str, Any]:
    """Mixed traffic for a while; memory and handles of the service once a second."""
    keys = [guest(service, f"soaked-{k}", names) for k in range(4)]
    traffic, seconds = Traffic(service, names, keys), 60 * minutes
    with watched(service) as samples, ThreadPoolExecutor(clients) as pool:
        until = time.monotonic() + seconds
        list(pool.map(lambda number: traffic.run(number, until), range(clients)))
    memory = [resident for _, resident, _ in samples]
    third = max(1, len(memory) // 3)
    return {
        "minutes": minutes,
        "clients": clients,
        "requests": sum(traffic.answers.values()),
        "answers": {f"{kind}, {status}": count for (kind, status), count in sorted(traffic.answers.items())},
        "strange": Counter(traffic.strange),
        "faults": service.faults,
        "mib_second_third": statistics.median(memory[third : 2 * third] or memory) / MIB,
        "mib_last_third": statistics.median(memory[2 * third :] or memory) / MIB,
        "handles": max(handles for _, _, handles in samples),
        "samples": [(round(at, 1), round(resident / MIB, 1), handles) for at, resident, handles in samples],
    }


def cycles(service: Served, names: Sequence[str], *, times: int) -> dict[str, Any]:
    """Draw from one source after the other where nothing may stay in memory: each is read and given up every time."""
    client = service.client()
    memory = []
    for number in range(times):
        if number % max(1, times // 10) == 0:
            memory.append(service.resident / MIB)
        status, told = client.draw(sources=[names[number % len(names)]], num_inference_steps=1)
        assert status == 200, told
    memory.append(service.resident / MIB)
    return {"cycles": times, "mib": [round(each, 1) for each in memory]}


@contextmanager
def watched(service: Served) -> Iterator[list[tuple[float, int, int]]]:
    """Seconds, bytes of memory and handles of a service while something happens."""
    samples, over, began = [(0.0, service.resident, service.handles)], threading.Event(), time.monotonic()

    def watch() -> None:
        with suppress(OSError):  # it was ended
            while not over.wait(1.0):
                samples.append((time.monotonic() - began, service.resident, service.handles))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()
