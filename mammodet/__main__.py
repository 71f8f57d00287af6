"""`python -m mammodet`."""

from mammodet.commands import run_command

run_command()
