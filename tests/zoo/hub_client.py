"""The real client in a process of its own (HF_ENDPOINT is read at import), taking calls.

A line in: {"call": "resolve", "args": […], "kwargs": {…}, "row": {…}}; ``row`` changes a registry row for it.
The calls: those of clit_zoo.zoo.hub, "command", a line of the program, and "save", from_pretrained and
save_pretrained.
A line out: {"result": …} or {"error": class, "message": text}, and "seconds".
GRACE in the environment is how long a server may take to answer.
"""

import contextlib
import dataclasses
import io
import json
import os
import sys
import time

from clit_zoo import from_pretrained
from clit_zoo.commands import cli
from clit_zoo.errors import ClitZooError
from clit_zoo.zoo import download, hub, registry

download.GRACE = float(os.environ["GRACE"])


def command(*words):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = cli.run(words)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def save(name, folder, **options):
    return from_pretrained(name, device="cpu", **options).save_pretrained(folder)


CALLS = {"command": command, "save": save}


def answer(request):
    rows = dict(registry.REGISTRY)
    if row := request.get("row"):
        name = row.pop("name")
        registry.REGISTRY[name] = dataclasses.replace(rows[name], **row)
    start = time.perf_counter()
    try:
        call = CALLS.get(request["call"]) or getattr(hub, request["call"])
        result = call(*request["args"], **request["kwargs"])
        if isinstance(result, hub.ModelFiles):
            result = dataclasses.asdict(result)
        reply = {"result": result}
    except ClitZooError as error:
        reply = {"error": type(error).__name__, "message": str(error)}
    except Exception as error:  # a failure of the library: nothing else may escape
        reply = {"error": f"not ours: {type(error).__name__}", "message": str(error)}
    finally:
        registry.REGISTRY.update(rows)
    return reply | {"seconds": time.perf_counter() - start}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line)), default=str), flush=True)
