"""Starts commands in processes that have everything imported already: a fork takes milliseconds, an import seconds."""

import gc
import importlib
import json
import os
import sys
import traceback
from typing import Any

MODULES = (
    "accelerate",
    "cv2",
    "diffusers.guiders",
    "diffusers.optimization",
    "diffusers.pipelines.wan.pipeline_wan_i2v",
    "jinja2",
    "kornia",
    "matplotlib.backends.backend_svg",
    "peft",
    "scipy.optimize",
    "scipy.stats",
    "torch.utils.tensorboard",
    "videogpa.cli",
    "videogpa.families.shared_noise",
    "videogpa.families.wan",
    "videogpa.geometry.embedded",
    "videogpa.geometry.options",
    "videogpa.report.exhibit",
    "videogpa.report.redrawn",
    "videogpa.run",
    "videogpa.stages.strength_sweep",
    "videogpa.study.material",
    "videogpa.world.linear_autoencoder",
    "videogpa.world.truth",
    "tests.hardness.faults",
    "tests.hardness.tiny",
)


def serve() -> None:
    """Requests are lines of JSON on standard input; answers are lines on standard output."""
    for name in MODULES:
        importlib.import_module(name)
    from videogpa.plugin import available, load

    for name in available("metrics"):
        load("metrics", name)
    gc.freeze()
    children: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "start":
            sys.stdout.flush()
            answer: Any = os.fork()
            if answer == 0:
                _become(request)
        else:
            process = request["process"]
            if process not in children:
                found, status = os.waitpid(process, os.WNOHANG if request["do"] == "poll" else 0)
                if found:
                    children[process] = os.waitstatus_to_exitcode(status)
            answer = children.get(process)
        print(json.dumps(answer), flush=True)


def _become(request: dict[str, Any]) -> None:
    """The command, in this process; never returns."""
    status = 1
    try:
        os.setsid()
        for name, descriptor in (("output", 1), ("errors", 2)):
            file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(request["folder"])
        from tests.hardness import faults
        from videogpa import cli

        for name, *arguments in request["faults"]:
            getattr(faults, name)(*arguments)
        sys.argv = ["videogpa", *request["arguments"]]
        cli.main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
