"""The embedded model, whose process the system kills (out of memory) when it draws the prompt that BROKEN names."""

import os
import signal
from typing import Any

from videogpa.families import wan
from videogpa.families.base import Samples


class Family(wan.Family):
    def sample(self, text: str, *arguments: Any) -> Samples:
        if text == os.environ["BROKEN"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(text, *arguments)
