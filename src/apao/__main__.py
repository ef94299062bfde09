"""The command line: ``apao``, ``python -m apao`` and ``torchrun -m apao``."""

import os


def main() -> None:
    """Entry point."""
    # Read when torch loads OpenMP. Its threads spin while they wait for one another; beside any other process
    # they then wait for a core that a spinning thread holds, and training takes ten times as long.
    if "OMP_WAIT_POLICY" not in os.environ:  # the standard's own switch, which a spin count would override
        os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from apao.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
