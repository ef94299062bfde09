"""``python -m apao``, and ``torchrun -m apao``."""

from apao.cli import main

main()
