"""Entry point of `python -m dmcodec`; `accelerate launch -m dmcodec train fit` uses it, too."""

from .cli import main

if __name__ == "__main__":
    main()
