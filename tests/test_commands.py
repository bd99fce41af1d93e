"""The check of commands accepts what the program accepts, and names what it does not."""

from __future__ import annotations

import pytest
from commands import BadCommandError, check_command


@pytest.mark.parametrize(
    "text",
    [
        "dmcodec --help",
        "dmcodec --version",
        "dmcodec encode --help",
        "dmcodec encode speech.wav -o speech.dmc --n-q 4 --debug",
        "$ dmcodec encode speech.wav -o speech.dmc  # a comment",
        "dmcodec encode IN... -o OUT.dmc --threads N",
        "cat a.dmc | dmcodec decode --stream > a.wav",
        "python -m dmcodec train teach DATA --sm MODEL \\\n  --asr MODEL",
        "CUDA_VISIBLE_DEVICES=0 accelerate launch -m dmcodec train fit DATA --out RUN",
        "dmcodec encode ...",
        "dmcodec export --checkpoint FILE --out BUNDLE && dmcodec info BUNDLE",
        'pip install "dmcodec[cpu,export]"',
        "pip install -e '.[dev]'",
        "pip install numpy && python app.py",
        "docker run image --what-ever",
        "for data in a b; do dmcodec train teach $data --lm x --asr y; done",
        "cat codes | dmcodec decode --stream < a.dmc > b.wav",
        "(dmcodec info)",
    ],
)
def test_right_commands(text: str) -> None:
    check_command(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dmcodec encoder a.wav", "no verb 'encoder'"),
        ("dmcodec train", "names no verb"),
        ("dmcodec encode a.wav -o a.dmc --levels 4", "--levels"),
        ("dmcodec encode a.wav -o a.dmc --n-q many", "many"),
        ("dmcodec encode a.wav", "--out"),
        ("dmcodec pull", "Missing"),
        ("dmcodec train fit DATA --out RUN extra", "extra"),
        ("dmcodec encode 'a.wav", "quotation"),
        ("for data in a b; do dmcodec train teach $data --lma x; done", "--lma"),
        ("cat codes | dmcodec decode --streams < a.dmc > b.wav", "--streams"),
        ('pip install "dmcodec[cpu]" && dmcodec encode a.wav', "--out"),
        ("pip install dmcodec[cpu]", "quotes"),
        ("pip install -e .[dev]", "quotes"),
        ('pip install "dmcodec[cpus]"', "no extra 'cpus'"),
    ],
)
def test_wrong_commands(text: str, reason: str) -> None:
    with pytest.raises(BadCommandError, match=reason):
        check_command(text)
