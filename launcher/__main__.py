"""`python -m launcher`, the same as `vlaunch`."""

from launcher.cli import main

main()
