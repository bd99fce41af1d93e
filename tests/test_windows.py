"""Long clips in windows, and batches of any lengths: the same tokens as one clip in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dmcodec.bundle import Bundle
from dmcodec.errors import ArgumentError, AudioError, TokensError
from dmcodec.export.agreement import snr_db
from dmcodec.runtime import Codec
from dmcodec.runtime.batching import MAX_BATCH_SIZE, Limits, batches, stack
from dmcodec.runtime.encode_options import EncodeOptions
from dmcodec.runtime.long_clips import Window, WindowPlan, Windows, window_plan
from dmcodec.runtime.pipeline import Pipeline
from dmcodec.sample import speech
from dmcodec.tokens import Tokens


@pytest.fixture(scope="module")
def codec(tiny_bundle: Path) -> Codec:
    return Codec.load(tiny_bundle)


@settings(max_examples=200)
@given(
    num_samples=st.integers(1, 3000),
    core=st.integers(1, 20),
    context=st.integers(0, 12),
    after=st.none() | st.integers(0, 12),
    blocks=st.lists(st.integers(1, 700), min_size=1, max_size=5),
)
def test_windows_cover_every_frame_once_with_its_context(
    num_samples: int, core: int, context: int, after: int | None, blocks: list[int]
) -> None:
    hop = 10
    clip = np.arange(num_samples, dtype=np.float32)
    cut: list[Window] = []
    windows, start = Windows(WindowPlan(core, context, hop, after)), 0
    while start < num_samples:
        size = blocks[start % len(blocks)]
        cut += windows.push(clip[start : start + size])
        start += size
    cut += windows.finish()
    frames = -(-num_samples // hop)
    assert sum(window.num_frames for window in cut) == frames
    position = 0
    for window in cut:
        first = int(window.samples[0])
        assert first == max(0, position - context) * hop  # on a frame border, with the context there is
        assert window.first_frame == position - first // hop
        position += window.num_frames
        end = min(num_samples, (position + (context if after is None else after)) * hop)
        np.testing.assert_array_equal(window.samples, clip[first:end])


@given(lengths=st.lists(st.integers(1, 1000), max_size=60), max_total=st.integers(1, 5000), workers=st.integers(1, 4))
def test_batches_hold_each_clip_once_and_keep_their_bounds(lengths: list[int], max_total: int, workers: int) -> None:
    groups = list(batches(lengths, Limits(max_total, workers)))
    assert len(groups) >= min(len(lengths), workers) - (len(lengths) % workers > 0)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[index] for index in group)
        assert len(group) <= MAX_BATCH_SIZE
        assert len(group) == 1 or len(group) * longest * workers <= max_total
        assert longest <= 1.15 * min(lengths[index] for index in group)


@pytest.mark.parametrize("context_s", [None, 1.0])
def test_codes_of_long_clips_are_16_bit_as_they_come(codec: Codec, context_s: float | None) -> None:
    block = clip(160000, 0)
    pipeline = Pipeline(codec.bundle, codec.backend)
    plan = None if context_s is None else window_plan(codec.config, context_s)
    parts = list(pipeline.encode_blocks([block] * 5, EncodeOptions(plan)))
    assert len(parts) > 0
    assert all(part.dtype == np.uint16 for part in parts)
    assert sum(part.shape[1] for part in parts) == 5 * 500


def test_stack_puts_zeros_behind() -> None:
    stacked, lengths = stack([np.ones((2, 3)), np.full((2, 1), 5.0)])
    np.testing.assert_array_equal(lengths, [3, 1])
    np.testing.assert_array_equal(stacked[1], [[5, 0, 0], [5, 0, 0]])


def clip(num_samples: int, seed: int) -> NDArray[np.float32]:
    return speech(num_samples + 1000 * seed, 16000)[1000 * seed :] * np.float32(0.5 + seed % 3)


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=9), order=st.randoms())
def test_a_batch_changes_nobodys_tokens_or_audio(codec: Codec, lengths: list[int], order: object) -> None:
    waveforms = [clip(length, seed) for seed, length in enumerate(lengths)]
    alone = [codec.encode(waveform, 16000) for waveform in waveforms]
    shuffled = list(range(len(lengths)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    together = codec.encode_batch([waveforms[index] for index in shuffled], 16000)
    decoded = codec.decode_batch(together)
    same = []
    for index, tokens, audio in zip(shuffled, together, decoded, strict=True):
        assert tokens.num_samples == lengths[index]
        np.testing.assert_array_equal(tokens.semantic, alone[index].semantic)
        same.append((tokens.codes == alone[index].codes).mean())
        assert snr_db(codec.decode(tokens), audio) >= 80
    assert np.mean(same) >= 0.999


def test_a_batch_of_tokens_of_several_levels(codec: Codec) -> None:
    whole = codec.encode(clip(5000, 0), 16000)
    kinds = [whole, whole.levels(3), whole.levels(skip=2), whole.frames(0, 4), whole.levels(1).frames(3, 9)]
    for tokens, audio in zip(kinds, codec.decode_batch(kinds), strict=True):
        np.testing.assert_allclose(audio, codec.decode(tokens), atol=1e-6)
        assert len(audio) == tokens.num_samples
    assert codec.decode_batch([]) == []


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Over a minute: several windows, in more than one batch of them."""
    path = tmp_path_factory.mktemp("long") / "long_clip.wav"
    samples = np.concatenate([clip(160000, seed) for seed in range(8)])[: 75 * 16000 - 77]
    soundfile.write(path, samples / np.abs(samples).max(), 16000, subtype="FLOAT")
    return path


def test_windows_give_the_codes_of_the_whole_clip(codec: Codec, long_clip: Path, tmp_path: Path) -> None:
    samples = soundfile.read(long_clip, dtype="float32")[0]
    latents = codec.run_graph("encoder", waveform=samples[None, None], lengths=np.array([len(samples)]))
    whole = codec.run_graph("quantizer", latents=latents)[:, 0]
    tokens = codec.encode_file(long_clip, tmp_path / "out.dmc", context_s=codec.context_s)
    assert tokens.num_samples == len(samples)
    np.testing.assert_array_equal(tokens.semantic, whole[0])
    assert (tokens.codes == whole).mean() >= 0.999
    assert Tokens.load(tmp_path / "out.dmc") == tokens == codec.encode(samples, 16000, context_s=codec.context_s)
    short = codec.encode_file(long_clip, context_s=0)
    assert (short.codes == whole).mean() < 0.999  # the context is what does it
    assert codec.encode_file(long_clip, n_q=2).codes.shape[0] == 2


def test_long_decodes_are_those_of_the_whole_clip(codec: Codec, long_clip: Path, tmp_path: Path) -> None:
    tokens = codec.encode_file(long_clip)
    latents = codec.run_graph(
        "dequantizer", codes=tokens.codes[:, None].astype(np.int64), first_level=np.array(0, np.int64)
    )
    whole = codec.run_graph("decoder", latents=latents, lengths=np.array([tokens.num_frames]))[0, 0]
    decoded = codec.decode(tokens)
    assert len(decoded) == tokens.num_samples
    np.testing.assert_allclose(decoded, whole[: len(decoded)], atol=1e-5)
    codec.decode_file(tokens, tmp_path / "out.flac")
    assert soundfile.info(tmp_path / "out.flac").frames == tokens.num_samples


def test_progress_reaches_the_end(codec: Codec, long_clip: Path, tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []
    tokens = codec.encode_file(long_clip, progress=lambda done, total: seen.append((done, total)))
    codec.decode_file(tokens, tmp_path / "out.wav", progress=lambda done, total: seen.append((done, total)))
    assert len(seen) > 10
    assert seen[-1][0] == pytest.approx(seen[-1][1])


def test_the_manifest_says_how_much_context_is_enough(codec: Codec, tiny_bundle: Path) -> None:
    record = Bundle.open(tiny_bundle).manifest.encoder_context
    by_length = {case["context_s"]: case for case in record["cases"]}
    assert by_length[0.1]["latents_relative_error"] > by_length[4.0]["latents_relative_error"]
    assert by_length[record["default_context_s"]]["code_agreement"] >= 0.999
    assert codec.context_s == record["default_context_s"] >= 1


@pytest.mark.parametrize("context_s", [-1, 61, float("nan")])
def test_wrong_context_is_refused(codec: Codec, context_s: float) -> None:
    with pytest.raises(ArgumentError, match="context_s"):
        codec.encode(np.zeros(10, np.float32), 16000, context_s=context_s)


def test_nothing_is_left_of_an_encode_that_fails(codec: Codec, long_clip: Path, tmp_path: Path) -> None:
    samples = soundfile.read(long_clip, dtype="float32")[0]
    samples[-100] = np.nan  # found when most codes are written already
    path = tmp_path / "nan.wav"
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        codec.encode_file(path, tmp_path / "out.dmc")
    assert [file.name for file in tmp_path.iterdir()] == ["nan.wav"]


@pytest.mark.parametrize("change", ["cut", "grow"])
def test_a_file_that_changes_while_it_is_read(codec: Codec, long_clip: Path, tmp_path: Path, change: str) -> None:
    path = tmp_path / "live.wav"
    path.write_bytes(long_clip.read_bytes())

    def alter(done_s: float, total_s: float) -> None:
        with path.open("r+b") as file:
            if change == "cut":
                file.truncate(path.stat().st_size // 2)
            else:
                file.seek(0, 2)
                file.write(bytes(4000))

    with pytest.raises(AudioError, match=r"live\.wav: (cut short|was changed)"):
        codec.encode_file(path, tmp_path / "out.dmc", progress=alter)
    assert not (tmp_path / "out.dmc").exists()


def test_slices_and_joins(codec: Codec) -> None:
    tokens = codec.encode(clip(3300, 0), 16000)
    assert tokens.num_frames == 11
    assert tokens.frames(2, 5).num_samples == 3 * 320
    assert tokens.frames(-1).num_samples == 3300 - 3200
    assert tokens.frames(5, 5).num_frames == 0
    assert Tokens.join([tokens.frames(0, 4), tokens.frames(4)]) == tokens
    assert Tokens.join([tokens.levels(2).frames(0, 4), tokens.levels(2).frames(7)]).num_samples == 3300 - 3 * 320
    higher = tokens.levels(skip=3)
    assert (higher.n_q, higher.first_level) == (5, 3)
    assert higher.levels(1, skip=1).first_level == 4
    np.testing.assert_array_equal(higher.acoustic, tokens.codes[3:])
    np.testing.assert_array_equal(tokens.levels(skip=1).acoustic, tokens.acoustic)
    with pytest.raises(TokensError, match="level 0 was dropped"):
        _ = higher.semantic
    with pytest.raises(TokensError, match="over 255"):
        Tokens(tokens.codes, 3300, 16000, 320, 64, "", 250)
    with pytest.raises(TokensError, match="ends within a frame"):
        Tokens.join([tokens, tokens])
    with pytest.raises(TokensError, match="part 1"):
        Tokens.join([tokens.frames(0, 4), tokens.levels(3)])
    with pytest.raises(TokensError, match="nothing"):
        Tokens.join([])
    for wrong in ({"n_q": 0}, {"n_q": 9}, {"skip": 8}, {"skip": -1}, {"n_q": 8, "skip": 1}):
        with pytest.raises(TokensError):
            tokens.levels(**wrong)


def test_higher_levels_decode_from_where_they_start(codec: Codec, tmp_path: Path) -> None:
    tokens = codec.encode(clip(3300, 0), 16000)
    higher = tokens.levels(skip=3)
    higher.save(tmp_path / "higher.dmc")
    loaded = Tokens.load(tmp_path / "higher.dmc")
    assert loaded == higher
    latents = codec.run_graph(
        "dequantizer", codes=tokens.codes[3:, None].astype(np.int64), first_level=np.array(3, np.int64)
    )
    expected = codec.run_graph("decoder", latents=latents, lengths=np.array([11]))[0, 0, :3300]
    np.testing.assert_allclose(codec.decode(loaded), expected, atol=1e-6)
    with pytest.raises(TokensError, match="levels 3 to 10"):
        codec.decode(Tokens(np.zeros((8, 11), int), 3300, 16000, 320, 64, "", 3))
