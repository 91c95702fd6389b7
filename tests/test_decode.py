"""Decoding and the store, against the frames that were put into the clips and against Pillow."""

import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import zipfile

import av
import numpy as np
import PIL.Image
import pytest
from make_videos import clip_bytes, moving_frames, write_clip

from files import decode
from files.decode import File, FrameFormat, Video, build_store, default_store

RGB = FrameFormat(64, 3)
LOSSLESS = {"codec": "png", "pix_fmt": "rgb24"}


def video_of(*paths: pathlib.Path, name: str | None = None) -> Video:
    files = tuple(File(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    return Video(name or paths[0].name, files)


def decoded(tmp_path, video, form=RGB) -> np.ndarray:
    store = build_store([video], form, tmp_path / "store", progress=False)
    return store.read(np.array([0]), np.array([0]), store.frames[0])[0]


def resized(frames, width, height):
    """Pillow's bicubic filter, which is wider for smaller pictures as FFmpeg's is."""
    bicubic = PIL.Image.Resampling.BICUBIC
    return np.stack([np.asarray(PIL.Image.fromarray(frame).resize((width, height), bicubic)) for frame in frames])


def assert_alike(ours, theirs, mean):
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(float) - theirs).mean((1, 2, 3)).max() < mean  # of each frame, out of 255


# Pixels -------------------------------------------------------------------------------------------------------------


def test_frames_are_those_of_the_clip_in_order(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (150, 64, 64, 3), np.uint8)
    write_clip(tmp_path / "a.avi", frames, **LOSSLESS)
    video = video_of(tmp_path / "a.avi")
    np.testing.assert_array_equal(decoded(tmp_path, video), frames)
    np.testing.assert_array_equal(decoded(tmp_path, video, FrameFormat(64, 3, frame_step=4)), frames[::4])
    [file] = (tmp_path / "store" / "64x64x3").glob("*.npy")
    np.testing.assert_array_equal(np.load(file), frames)  # anyone can open it


def test_resize_squashes_or_crops_the_centre(tmp_path):
    frames = moving_frames(3, 160, 120)
    write_clip(tmp_path / "a.avi", frames, **LOSSLESS)
    video = video_of(tmp_path / "a.avi")
    assert_alike(decoded(tmp_path, video), resized(frames, 64, 64), 1.5)
    assert_alike(decoded(tmp_path, video, FrameFormat(128, 3)), resized(frames, 128, 128), 1.5)
    centre = resized(np.ascontiguousarray(frames[:, :, 20:140]), 64, 64)
    assert_alike(decoded(tmp_path, video, FrameFormat(64, 3, crop=True)), centre, 1.5)
    assert np.abs(centre.astype(float) - resized(frames, 64, 64)).mean() > 5  # these are different pictures


def test_grey_is_luma_or_the_first_channel(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    write_clip(tmp_path / "a.avi", frames, **LOSSLESS)
    video = video_of(tmp_path / "a.avi")
    luma = np.stack([np.asarray(PIL.Image.fromarray(frame).convert("L")) for frame in frames])[..., None]
    assert np.abs(decoded(tmp_path, video, FrameFormat(64, 1)).astype(int) - luma).max() <= 1
    first = decoded(tmp_path, video, FrameFormat(64, 1, first_channel=True))
    np.testing.assert_array_equal(first, frames[..., :1])


@pytest.mark.parametrize(
    ("name", "size", "how"),
    [
        ("kth.avi", (160, 120), {}),
        ("b_frames.mp4", (160, 120), {"codec": "libx264", "options": {"bf": "3", "g": "25"}}),
        ("web.webm", (96, 64), {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}}),
        ("old.mpg", (96, 64), {"codec": "mpeg1video"}),
        ("win.wmv", (96, 64), {"codec": "wmv2"}),
        ("odd.mkv", (33, 25), {"codec": "ffv1", "pix_fmt": "yuv444p"}),
        ("variable.mkv", (96, 64), {"codec": "libx264", "times": np.cumsum(np.arange(60) % 7 + 1).tolist()}),
        ("alpha.mov", (64, 64), {"codec": "qtrle", "pix_fmt": "argb"}),
        ("name with ü & spaces.MKV", (64, 64), {"codec": "mpeg4"}),
    ],
)
def test_kinds_of_clips(tmp_path, name, size, how):
    frames = moving_frames(40, *size)
    pictures = frames
    if "alpha" in name:  # half of each picture is transparent; the colours are kept
        alpha = np.broadcast_to(np.where(np.arange(size[0]) < size[0] // 2, 128, 255), frames.shape[:3])
        pictures = np.concatenate([frames, alpha[..., None].astype(np.uint8)], -1)
    write_clip(tmp_path / name, pictures, **how)
    assert_alike(decoded(tmp_path, video_of(tmp_path / name)), resized(frames, 64, 64), 6)


def test_a_gif_has_its_frames(tmp_path):
    grey = [PIL.Image.fromarray(np.full((20, 30), value, np.uint8)) for value in range(0, 200, 10)]
    grey[0].save(tmp_path / "a.gif", save_all=True, append_images=grey[1:], duration=[20, 100] * 10)
    frames = decoded(tmp_path, video_of(tmp_path / "a.gif"))
    np.testing.assert_allclose(frames.mean((1, 2, 3)), range(0, 200, 10), atol=2)


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_rotated_phone_videos_are_upright(tmp_path, rotation):
    frames = moving_frames(5, 96, 64)
    write_clip(tmp_path / "phone.mp4", frames, "libx264", rotation=rotation)
    upright = np.rot90(frames, rotation // 90, (1, 2))  # the angle is counterclockwise
    theirs = resized(np.ascontiguousarray(upright), 64, 64)
    assert_alike(decoded(tmp_path, video_of(tmp_path / "phone.mp4")), theirs, 6)
    with av.open(str(tmp_path / "phone.mp4")) as clip:
        assert next(clip.decode(video=0)).rotation % 360 == rotation % 360


# Pictures -----------------------------------------------------------------------------------------------------------


def test_pictures_of_16_bits_are_not_clipped(tmp_path):
    deep = np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    PIL.Image.fromarray(deep).save(tmp_path / "a.png")
    frame = decoded(tmp_path, video_of(tmp_path / "a.png"), FrameFormat(64, 1))[0, ..., 0]
    np.testing.assert_allclose(frame, deep / 257, atol=0.51)


def test_pictures_with_alpha_a_palette_or_an_orientation(tmp_path):
    picture = PIL.Image.fromarray(moving_frames(1, 64, 64)[0])
    rgba = picture.copy()
    rgba.putalpha(7)
    rgba.save(tmp_path / "1.png")
    picture.quantize(256).save(tmp_path / "2.png")
    turned = picture.getexif()
    turned[0x0112] = 6  # to be turned clockwise to be upright
    picture.save(tmp_path / "3.jpg", exif=turned, quality=95)
    np.testing.assert_array_equal(decoded(tmp_path, video_of(tmp_path / "1.png"))[0], np.asarray(picture))
    palette = decoded(tmp_path, video_of(tmp_path / "2.png"))
    assert_alike(palette, np.asarray(picture)[None], 8)
    upright = np.rot90(np.asarray(picture), -1)[None]
    assert_alike(decoded(tmp_path, video_of(tmp_path / "3.jpg")), upright, 4)


def test_an_animated_webp_has_its_frames(tmp_path):
    frames = moving_frames(6, 64, 64)
    first, *others = map(PIL.Image.fromarray, frames)
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, lossless=True)
    np.testing.assert_array_equal(decoded(tmp_path, video_of(tmp_path / "a.webp")), frames)


# Damage -------------------------------------------------------------------------------------------------------------


def no_video_stream(path):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        out.mux(stream.encode(sound))
        out.mux(stream.encode())


def no_frames(path):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        out.start_encoding()


def cut_mp4(path):
    write_clip(path, moving_frames(30), "libx264")  # its index comes last
    path.write_bytes(path.read_bytes()[:-800])


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (no_video_stream, "a.avi", "no video stream"),
        (no_frames, "a.avi", "no frames|Invalid data"),
        (cut_mp4, "a.mp4", "header is cut"),
        (lambda path: path.write_text("not a video\n" * 50), "a.avi", "Invalid data"),
        (lambda path: path.write_bytes(b""), "a.mp4", "is empty"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n"), "a.png", "cannot identify"),
    ],
)
def test_a_video_without_frames_is_refused_by_name_and_reason(tmp_path, make, name, reason):
    make(tmp_path / name)
    with pytest.raises(ValueError, match=f"no frame can be decoded.*{name}.*({reason})"):
        decoded(tmp_path, video_of(tmp_path / name))
    write_clip(tmp_path / "good.avi", moving_frames(5))
    good, bad = video_of(tmp_path / "good.avi"), video_of(tmp_path / name)
    store = build_store([good, bad], RGB, tmp_path / "store", progress=False)
    assert store.frames.tolist() == [5, 0]
    assert list(store.problems) == [name]


def test_a_damaged_video_keeps_its_good_beginning(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (100, 64, 64, 3), np.uint8)
    write_clip(tmp_path / "cut.avi", frames, **LOSSLESS)
    data = (tmp_path / "cut.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    for k, frame in enumerate(frames[:4]):
        PIL.Image.fromarray(frame).save(tmp_path / f"{k}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:5000])
    write_clip(tmp_path / "good.avi", frames, **LOSSLESS)
    write_clip(tmp_path / "fine.avi", frames, **LOSSLESS)
    pictures = video_of(*(tmp_path / f"{k}.png" for k in range(4)), name="pictures")
    videos = [video_of(tmp_path / f"{name}.avi") for name in ("cut", "good", "fine")] + [pictures]
    store = build_store(videos, RGB, tmp_path / "store", progress=False)
    kept = store.frames.tolist()
    assert 45 <= kept[0] <= 50
    assert kept[1:] == [100, 100, 2]
    for video, count in ((0, kept[0]), (3, 2)):
        np.testing.assert_array_equal(store.read([video], [0], count)[0], frames[:count])
    assert set(store.problems) == {"cut.avi", "pictures"}
    assert f"after {kept[0]} frames" in store.problems["cut.avi"]
    again = build_store(videos, RGB, tmp_path / "store", progress=False)
    assert again.problems == store.problems  # remembered

    with pytest.raises(ValueError, match=r"2 of 3 videos are damaged, more than half \(cut.avi: .*pictures: "):
        build_store([videos[0], pictures, videos[1]], RGB, tmp_path / "store", progress=False)


def test_a_playlist_named_avi_opens_nothing_else(tmp_path):
    write_clip(tmp_path / "secret.mp4", moving_frames(5), "libx264")
    (tmp_path / "a.avi").write_text(f"ffconcat version 1.0\nfile '{tmp_path / 'secret.mp4'}'\n")
    with pytest.raises(ValueError, match="no frame can be decoded"):
        decoded(tmp_path, video_of(tmp_path / "a.avi"))


# The store ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path):
    frames = {name: moving_frames(70 + k, seed=k) for k, name in enumerate("abc")}
    for name, clip in frames.items():
        write_clip(tmp_path / f"{name}.avi", clip)
    return [video_of(tmp_path / f"{name}.avi") for name in frames]


def times(folder):
    return {path.name[0]: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}


def test_only_what_is_new_or_changed_is_decoded_again(tmp_path, three):
    store = tmp_path / "store"
    build_store(three, RGB, store, progress=False)
    before = times(store)
    write_clip(tmp_path / "b.avi", moving_frames(33))
    os.utime(tmp_path / "b.avi", ns=(1, three[1].files[0].version + 10**9))
    changed = [three[0], video_of(tmp_path / "b.avi"), three[2]]
    assert build_store(changed, RGB, store, progress=False).frames.tolist() == [70, 33, 72]
    after = times(store)
    assert [name for name in "abc" if before[name] != after[name]] == ["b"]
    build_store(three[:1], FrameFormat(64, 1, 2, crop=True), store, progress=False)
    assert {path.name for path in store.iterdir()} == {"64x64x3", "64x64x1-step2-crop"}


def test_what_power_loss_left_is_decoded_again(tmp_path, three):
    whole = build_store(three, RGB, tmp_path / "store", progress=False)
    journal = tmp_path / "store" / "64x64x3" / "videos.jsonl"
    for path, damage in (
        (whole.files[0], lambda path: path.write_bytes(b"")),
        (whole.files[1], lambda path: path.write_bytes(path.read_bytes()[:-1])),
        (whole.files[2], lambda path: path.unlink()),
        (journal, lambda path: path.write_bytes(path.read_bytes()[:-30])),
        (journal, lambda path: path.write_bytes(b"\0" * 400)),
        (journal, lambda path: path.write_text('[1]\n{"video": "a.avi"}\nnull\n')),
        (journal, lambda path: path.unlink()),
    ):
        expected = whole.read(np.arange(3), np.arange(3), 60)
        damage(path)
        again = build_store(three, RGB, tmp_path / "store", progress=False)
        np.testing.assert_array_equal(again.read(np.arange(3), np.arange(3), 60), expected)


KILLED = """
import os, pathlib, pickle, sys
from files import decode
replace, done = os.replace, []
def replace_twice(part, target):
    if len(done) == 2:
        os._exit(9)
    replace(part, target)
    done.append(target)
decode.os.replace, decode.os.cpu_count = replace_twice, lambda: 1
folder = pathlib.Path(sys.argv[1])
files = [decode.File(path, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.avi"))]
videos = [decode.Video(file.path.name, (file,)) for file in files]
decode.build_store(videos, decode.FrameFormat(64, 3), folder / "store", progress=False)
"""


def test_a_killed_build_goes_on(tmp_path, three):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=60)
    assert killed.returncode == 9
    store = tmp_path / "store"
    before = times(store)
    assert set(before) == {"a", "b"}
    [part] = store.rglob("*.part")  # of the third
    os.utime(part, (time.time() - 3600,) * 2)
    build = build_store(three, RGB, store, progress=False)
    assert build.frames.tolist() == [70, 71, 72]
    assert times(store)["a"] == before["a"]
    assert not list(store.rglob("*.part"))
    assert len((store / "64x64x3" / "videos.jsonl").read_text().splitlines()) <= 4


def test_a_store_that_was_cut_later_is_named(tmp_path, three):
    store = build_store(three, RGB, tmp_path / "store", progress=False)
    os.truncate(store.files[1], 5000)
    with pytest.raises(ValueError, match=r"b\.avi.*npy is cut"):
        store.read(np.array([0, 1]), np.array([0, 0]), 5)


def test_a_full_disk_is_said_before_and_while_decoding(tmp_path, three, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(decode.shutil, "disk_usage", lambda _: usage._replace(free=2_000_000))
    with pytest.raises(ValueError, match=r"need about 0\.00262 GB.* has 0\.002 GB free"):  # 213 frames
        build_store(three, RGB, tmp_path / "store", progress=False)
    monkeypatch.undo()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decode.os, "replace", full)
    with pytest.raises(ValueError, match=r"No space left.*another place"):
        build_store(three, RGB, tmp_path / "store", progress=False)
    assert not list(tmp_path.rglob("*.part"))


def test_names_never_lead_out_of_the_store(tmp_path, three):
    names = [
        "../../evil.avi",
        "/etc/evil.avi",
        "a" * 300 + ".avi",
        "日本.avi",
        "a:b?.avi",
        ".avi",
        "x/y.avi",
        "x_y.avi",
    ]
    videos = [Video(name, three[0].files) for name in names]
    build_store(videos, RGB, tmp_path / "store", progress=False)
    assert len(list((tmp_path / "store" / "64x64x3").glob("*.npy"))) == len(names)
    assert not list(tmp_path.parent.glob("evil*"))


def test_zip_members_are_read_in_place(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/clip.avi", clip_bytes(frames, **LOSSLESS))
        archive.writestr("x/clip.mp4", clip_bytes(frames, "mp4", codec="libx264"))  # is read backwards, too
        for k, frame in enumerate(frames):
            picture = io.BytesIO()
            PIL.Image.fromarray(frame).save(picture, "PNG")
            archive.writestr(f"y/{k}.png", picture.getvalue())
        infos = archive.infolist()
    members = [File(tmp_path / "a.zip", info.file_size, info.CRC, info.filename) for info in infos]
    videos = [Video("avi", (members[0],)), Video("mp4", (members[1],)), Video("y", tuple(members[2:]))]
    store = build_store(videos, RGB, tmp_path / "store", progress=False)
    assert store.frames.tolist() == [9, 9, 9]
    np.testing.assert_array_equal(store.read([0, 2], [2, 2], 5), np.stack([frames[2:7]] * 2))
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "store"}


def test_progress_tells_place_videos_speed_and_time_left(tmp_path, three, capsys):
    build_store(three, RGB, tmp_path / "store")
    out, _ = capsys.readouterr()
    assert "decoding 3 videos to " + str(tmp_path / "store" / "64x64x3") in out
    assert "100% |" in out
    assert re.search(r"00:00 left, \d+ frames/s", out)
    build_store(three, RGB, tmp_path / "store")
    assert capsys.readouterr() == ("", "")  # nothing to do, nothing to say


def test_decoding_holds_one_block_of_frames(tmp_path, monkeypatch):
    write_clip(tmp_path / "a.avi", moving_frames(600))
    alive, most = [], [0]
    take = decode._take

    def counted(frames, count):
        block = take(frames, count)
        most[0] = max(most[0], len(block))
        alive.append(len(block))
        return block

    monkeypatch.setattr(decode, "_take", counted)
    assert len(decoded(tmp_path, video_of(tmp_path / "a.avi"))) == 600
    assert most[0] <= 64
    assert len(alive) > 9


def test_the_store_lies_beside_the_data_or_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_store(tmp_path / "kth") == tmp_path / "kth.frames"
    monkeypatch.setattr(decode.os, "access", lambda *_: False)
    cache = default_store(tmp_path / "kth")
    assert cache.parent == tmp_path / "home" / ".cache" / "svg"
    assert cache != default_store(tmp_path / "b" / "kth")
    (tmp_path / "kth.frames").mkdir()  # somebody has prepared it
    assert default_store(tmp_path / "kth") == tmp_path / "kth.frames"


def test_the_journal_is_plain(tmp_path, three):
    build_store(three, RGB, tmp_path / "store", progress=False)
    lines = map(json.loads, (tmp_path / "store" / "64x64x3" / "videos.jsonl").read_text().splitlines())
    assert {line["video"]: (line["frames"], line["problem"]) for line in lines} == {
        "a.avi": (70, None),
        "b.avi": (71, None),
        "c.avi": (72, None),
    }
