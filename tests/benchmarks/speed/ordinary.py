"""`python -m tests.benchmarks.speed.ordinary MODELS PORT`: the app alone, on uvicorn's own HTTP
protocol.
"""

import sys
from functools import partial
from pathlib import Path

import uvicorn

from hourglass.service.app import create_app
from hourglass.service.settings import Settings

if __name__ == "__main__":
    uvicorn.run(
        partial(create_app, Settings(models=Path(sys.argv[1]))),
        factory=True,
        port=int(sys.argv[2]),
        http="httptools",
        loop="uvloop",
        lifespan="on",
        access_log=False,
        server_header=False,
        log_level="warning",
    )
