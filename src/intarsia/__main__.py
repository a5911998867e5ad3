"""`python -m intarsia` is `intarsia`."""

from intarsia.cli import main

main()
