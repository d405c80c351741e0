"""`python -m imagenette VERB`: the same as `imagenette VERB`."""

from imagenette.cli import main

main()
