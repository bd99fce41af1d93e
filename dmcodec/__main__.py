"""The command line as `python -m dmcodec`; `accelerate launch -m dmcodec train fit` uses it."""

from dmcodec.cli import main

if __name__ == "__main__":
    main()
