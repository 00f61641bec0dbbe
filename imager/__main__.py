"""``python -m imager`` is the ``picloud-image`` command."""

from imager.cli.main import main

if __name__ == "__main__":
    main()
