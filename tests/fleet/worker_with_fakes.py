"""`llamaforge worker run` with fake ranks: the same supervisor, another command for a rank."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from llamaforge import log
from llamaforge.worker.configuration import Configuration
from llamaforge.worker.process_runner import ProcessRunner
from llamaforge.worker.supervisor import Supervisor

CANARY = ("-c", """print('{"canary": "ca"}')""")
"""The real one imports torch; here it is not needed to tell machines apart."""


async def main() -> None:
    flags = dict(word.split("=", 1) for word in sys.argv[1:])
    configuration = Configuration(flags, os.environ)
    log.set_up("worker")
    fake = str(Path(__file__).with_name("fake_rank.py"))
    runner = ProcessRunner(
        configuration.settings, configuration.exports, rank=(fake,), canary=CANARY
    )
    await Supervisor(configuration, runner).run()


asyncio.run(main())
