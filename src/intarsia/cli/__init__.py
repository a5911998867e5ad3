"""The command line: one file per command, each of which parses, calls the library and prints.

`command` holds what all commands share (groups of options, errors as one line), `output` what they print with.
"""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run `intarsia` with the arguments of this process, and exit."""
    for stream in (sys.stdout, sys.stderr):
        # A file name that the terminal cannot spell is shown escaped; it is no reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # Whoever asks a command to end, as `docker stop` does, is answered as at a terminal: nothing stays half-written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from intarsia.cli.app import app

        app(prog_name="intarsia")
    except KeyboardInterrupt:  # before any command had begun
        sys.exit(130)
