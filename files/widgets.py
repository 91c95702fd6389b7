"""The sampler of the notebook: choose a video, a seed, the number of samples and a temperature; watch the futures."""

import base64
import io

import ipywidgets
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageOps

from files.model_svg import SVG
from files.utils import GROUND_TRUTH, Rows, frame_style, to_rgb

MAX_SAMPLES = 7  # with the ground truth two lines of panels
COLUMNS = 4
SIZE, EDGE, TITLE, GAP = 128, 4, 18, 8  # of a panel: picture, frame around it, text above it, space; in screen pixels
MS_PER_FRAME = 250


class Sampler(ipywidgets.VBox):
    """Controls above the true video and sampled futures; a change of theirs samples anew.

    Where no kernel runs, on an exported page or on GitHub, an animation of the first futures stands in its place.
    """

    def __init__(self, model: SVG, videos: np.ndarray, video: int = 0):
        """`videos` [N, T, H, W, C], float32 in [0, 1]: `n_past` frames are given, the others are the truth.

        `video` is the number of the one that is shown first.
        """
        self.model, self.videos = model, videos
        box = dict(
            continuous_update=False, layout=ipywidgets.Layout(width="320px"), style={"description_width": "90px"}
        )
        self.video = ipywidgets.IntSlider(video, 0, len(videos) - 1, description="test video", **box)
        self.seed = ipywidgets.BoundedIntText(0, 0, 2**31 - 1, description="seed", **box)
        self.samples = ipywidgets.IntSlider(3, 1, MAX_SAMPLES, description="samples", **box)
        self.temperature = ipywidgets.FloatSlider(1.0, min=0.0, max=2.0, step=0.1, description="temperature", **box)
        last = videos.shape[1] - 1
        self.frame = ipywidgets.IntSlider(model.config.n_past, 0, last, description="frame", **box)
        self.play = ipywidgets.Play(value=self.frame.value, min=0, max=last, interval=MS_PER_FRAME, repeat=True)
        ipywidgets.jslink((self.play, "value"), (self.frame, "value"))
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(object_fit="contain", max_width="100%"))
        for control in (self.video, self.seed, self.samples, self.temperature):
            control.observe(self.sample, "value")
        self.frame.observe(self.show, "value")
        lines = [(self.video, self.seed), (self.samples, self.temperature), (self.play, self.frame)]
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        super().__init__([*(ipywidgets.HBox(line, layout=wrap) for line in lines), self.picture])
        self.sample()

    def sample(self, change=None) -> None:
        """Samples as the controls say."""
        video, n_past = self.videos[self.video.value], self.model.config.n_past
        # Always as many, so that TensorFlow traces the graph once; only those asked for are shown.
        futures = self.model.generate(
            video[None, :n_past],
            len(video) - n_past,
            MAX_SAMPLES,
            self.seed.value,
            temperature=self.temperature.value,
        ).numpy()[0, : self.samples.value]
        rows = {f"sample {n}": np.concatenate([video[:n_past], future]) for n, future in enumerate(futures, 1)}
        self.pictures = draw_frames({GROUND_TRUTH: video} | rows, n_past)
        self.picture.layout.width = f"{self.pictures[0].width}px"
        self.show()

    def show(self, change=None) -> None:
        """Shows the chosen frame."""
        png = io.BytesIO()
        self.pictures[self.frame.value].save(png, "png")
        self.picture.value = png.getvalue()

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and the animation for where it can't be; as PNG, because the export to HTML drops GIFs."""
        gif = io.BytesIO()
        first, *others = self.pictures
        first.save(gif, "gif", save_all=True, append_images=others, duration=MS_PER_FRAME, loop=0)
        bundle = {**super()._repr_mimebundle_(**kwargs), "image/png": base64.b64encode(gif.getvalue()).decode()}
        alt = f"Animation of a test video and {self.samples.value} futures that the model samples from its first frames"
        return bundle, {"image/png": {"alt": alt, "unconfined": True}}


def draw_frames(rows: Rows, n_past: int) -> list[PIL.Image.Image]:
    """A picture per frame, with the videos side by side, framed as in `film_strip`: much faster than matplotlib."""
    videos = np.uint8(np.round(255 * to_rgb(np.stack(list(rows.values())))))  # [R, T, H, W, 3]
    lines, columns = -(-len(videos) // COLUMNS), min(len(videos), COLUMNS)
    framed = SIZE + 2 * EDGE
    empty = PIL.Image.new("RGB", (columns * (framed + GAP), lines * (framed + GAP + TITLE)), "white")
    corners = [(n % COLUMNS * (framed + GAP), n // COLUMNS * (framed + GAP + TITLE)) for n in range(len(videos))]
    for title, corner in zip(rows, corners, strict=True):
        PIL.ImageDraw.Draw(empty).text(corner, title, "black", font_size=13)

    def draw(frame: int) -> PIL.Image.Image:
        picture = empty.copy()
        for title, images, (x, y) in zip(rows, videos, corners, strict=True):
            image = PIL.Image.fromarray(images[frame]).resize((SIZE, SIZE), PIL.Image.Resampling.NEAREST)
            colour = frame_style(title, frame, n_past)["edgecolor"]
            picture.paste(PIL.ImageOps.expand(image, EDGE, colour), (x, y + TITLE))
        return picture

    return [draw(frame) for frame in range(videos.shape[1])]
