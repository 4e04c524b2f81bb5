"""``python -m grainline``: the command line, for launchers that want a module (``torchrun -m grainline align ...``)."""

from grainline.cli import main

if __name__ == "__main__":
    main()
