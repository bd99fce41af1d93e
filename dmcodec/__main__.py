"""`python -m dmcodec`, and so `accelerate launch -m dmcodec train fit`."""

from .cli import main

if __name__ == "__main__":
    main()
