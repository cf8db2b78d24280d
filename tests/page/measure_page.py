"""Milliseconds a tile, seconds a view, and four viewers at once for a minute, of a page that runs here.

    clit-zoo serve --no-browser --port 8765 &
    python tests/page/measure_page.py 8765 $!          # the server's process, for CPU seconds and memory

Run by hand: the figures are a machine's.
"""

import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import psutil
from page_server import Client

SIDE = 256


def tile(client, model, id, size, scale, dice, viewer=""):
    """The address of a random whole tile of an enlargement."""
    columns = [int(side * scale) // SIDE for side in size]
    x, y = (dice.randrange(count) * SIDE for count in columns)
    address = f"/iiif/{model}/{id}@{scale}/{x},{y},{SIDE},{SIDE}/max/0/default.png"
    began = time.monotonic()
    answer = client("GET", address, headers={"X-Viewer": viewer}, raw=True)
    assert answer.status == 200, answer.body
    return address, time.monotonic() - began


def main(port, process, model="edsr-light-lit", seconds=60):
    client, server, dice = Client(int(port)), psutil.Process(int(process)), random.Random(0)
    cpu = lambda: sum(server.cpu_times()[:2])  # noqa: E731
    picture = client("POST", "/api/example").body
    id, size = picture["id"], (picture["width"], picture["height"])
    began, used = time.monotonic(), cpu()
    client("POST", f"/api/pictures/{id}/encode?model={model}")
    client.wait(f"/api/pictures/{id}", lambda one: one["encoded"].get(model) == 1, 600)
    print(f"encoding {size[0]}x{size[1]}: {time.monotonic() - began:.1f} s, CPU {cpu() - used:.1f} s")
    for scale in (2, 8, 32):
        tile(client, model, id, size, scale, dice)
        used, first, again = cpu(), [], []
        for _ in range(8):
            address, took = tile(client, model, id, size, scale, dice)
            first.append((took, address))
        used = cpu() - used
        for _, address in first:
            began = time.monotonic()
            client("GET", address, raw=True)
            again.append(time.monotonic() - began)
        times = sorted(1000 * took for took, _ in first)
        used *= 1000 / len({address for _, address in first})
        print(
            f"x{scale}: first {times[len(times) // 2]:.0f} ms (slowest {times[-1]:.0f}), CPU {used:.0f} ms; "
            f"cached {1000 * sorted(again)[len(again) // 2]:.1f} ms"
        )
    for scale in (4, 8, 16):  # what a screen of 1000 x 700 shows, asked for as browsers do, six at a time
        columns, rows = (range(0, side, SIDE) for side in (1000, 700))
        x, y = (int(side * scale) // 3 for side in size)
        places = [
            f"/iiif/{model}/{id}@{scale}/{x + left},{y + top},{SIDE},{SIDE}/max/0/default.png"
            for top, left in product(rows, columns)
        ]
        began = time.monotonic()
        with ThreadPoolExecutor(6) as six:
            answers = list(six.map(lambda place: client("GET", place, raw=True).status, places))
        assert set(answers) == {200}
        print(f"x{scale}: a view of {len(places)} tiles in {time.monotonic() - began:.2f} s")
    slowest, count, end = [], [], time.monotonic() + seconds

    def view(number):
        own = random.Random(number)
        while time.monotonic() < end:
            scale = own.choice((2, 3.7, 8, 17.3, 32))
            slowest.append(tile(client, model, id, size, scale, own, str(number))[1])
            count.append(1)

    before, used = server.memory_info().rss, cpu()
    viewers = [threading.Thread(target=view, args=[number]) for number in range(4)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    used = cpu() - used
    middle = sorted(slowest)[len(slowest) // 2]
    print(
        f"4 viewers, {seconds} s: {len(count)} tiles, median {middle:.2f} s, slowest {max(slowest):.2f} s, "
        f"CPU {used:.0f} s; memory {before / 1e6:.0f} -> {server.memory_info().rss / 1e6:.0f} MB"
    )
    print(client.get("/api/status").body)


if __name__ == "__main__":
    main(*sys.argv[1:3])
