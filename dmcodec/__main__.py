"""`python -m dmcodec`, and so `accelerate launch -m dmcodec train fit`."""

from dmcodec.cli import main

if __name__ == "__main__":
    main()
