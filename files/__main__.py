"""The command line: `python -m files prepare|train|sample|evaluate|import|figures --help`."""

import argparse
import dataclasses
import itertools
import pathlib
import re
import shlex
import sys
from typing import Annotated, Literal

import tyro

from files.compare import compare as run_compare
from files.config import PRESETS, Config, Machine, Recipe, preset
from files.data import prepare_data
from files.evaluate import EvaluateOptions
from files.evaluate import evaluate as run_evaluate
from files.figures import FigureOptions, make_figures
from files.import_checkpoint import ImportOptions
from files.import_checkpoint import import_checkpoint as run_import
from files.sample import SampleOptions
from files.sample import sample as run_sample
from files.train import train as run_train

Flat = tyro.conf.arg(name="")  # a dataclass's fields as options of the command itself


def main(arguments: list[str]) -> None:
    """Runs one command.

    Raises ValueError for an option with nothing in it, as an unset variable of the shell leaves it.
    """
    for before, word in itertools.pairwise(["", *arguments]):
        if not word or re.fullmatch("--[a-z_-]+=", word):
            raise ValueError(f"{(word or before).rstrip('=')} has no value; expected one, or to leave the option out")
    # The preset gives the other options their defaults, so it is read before them.
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset", default="smmnist")
    chosen = early.parse_known_args(arguments)[0].preset
    defaults = preset(chosen)

    app = tyro.extras.SubcommandApp()

    @app.command(name="prepare")
    def prepare(
        preset: Literal[tuple(PRESETS)] = chosen,
        data: str = defaults.config.data,
        image_size: Literal[64, 128] = defaults.config.image_size,
        channels: Literal[1, 3] = defaults.config.channels,
        frame_step: int = defaults.config.frame_step,
        crop: bool = defaults.config.crop,
        store: str | None = None,
    ) -> None:
        """Find and decode the videos of a path, as training would at its start, and print a table of them.

        Args:
            preset: Published settings, of which the data is prepared; the options below change them.
            data: A video, a folder or archive of them, KTH's or BAIR's folder, or an .npy or .npz array.
            image_size: Height and width of a frame in pixels.
            channels: Channels of a frame.
            frame_step: Every how many-th frame of a video is taken.
            crop: Cut the centre out of frames, instead of squashing them to a square.
            store: Folder for decoded videos; by default DATA.frames beside the data.
        """
        form = dict(image_size=image_size, channels=channels, frame_step=frame_step, crop=crop)
        print(prepare_data(defaults.config.replace(data=data, **form), store))

    @app.command(name="train")
    def train(
        name: str,
        preset: Literal[tuple(PRESETS)] = chosen,
        config: Annotated[Config, Flat] = defaults.config,
        recipe: Annotated[Recipe, Flat] = defaults.recipe,
        machine: Annotated[Machine, Flat] = Machine(),  # noqa: B008, it's frozen
    ) -> None:
        """Train a model, or go on with the run of that name.

        Args:
            name: Name of the run: its folder under checkpoints/ and results/.
            preset: Published settings; the options below change them.
            config: The model and its data.
            recipe: How it is trained.
            machine: How training runs on this machine.
        """
        run_train(config, recipe, machine, name)

    @app.command(name="sample")
    def sample(options: Annotated[SampleOptions, Flat]) -> None:
        """Sample futures of a test video from a checkpoint, as an animation, a film strip or arrays."""
        run_sample(options)

    @app.command(name="evaluate")
    def evaluate(
        options: Annotated[EvaluateOptions, Flat] = EvaluateOptions(),  # noqa: B008, it's frozen
        checkpoints: tyro.conf.Positional[tuple[pathlib.Path, ...]] = (),
    ) -> None:
        """Evaluate a checkpoint: best of N samples, reference rows, uncertainty, bounds; goes on if it was killed.

        Several are compared, on the same sequences with the same noise.

        Args:
            options: What to evaluate, and on what.
            checkpoints: Folders under checkpoints/.
        """
        named = [options.checkpoint] if options.checkpoint else []
        named += checkpoints
        if len(named) > 1:
            run_compare(named, options)
        else:
            run_evaluate(dataclasses.replace(options, checkpoint=next(iter(named), None)))

    @app.command(name="import")
    def import_(options: Annotated[ImportOptions, Flat]) -> None:
        """Turn a checkpoint of the authors' PyTorch code, or an .npz of its arrays, into one of this project."""
        run_import(options)

    @app.command(name="figures")
    def figures(options: Annotated[FigureOptions, Flat]) -> None:
        """Draw what results/ holds of your runs and evaluations, into figs/."""
        for path in make_figures(options):
            print(path)

    app.cli(prog="python -m files", args=arguments)


def sentence(error: Exception) -> str | None:
    """What a mistake or damaged data is told by; None for errors of the program's own."""
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return str(error)
    # What reading a batch of videos raises, TensorFlow's graph passes on as a text.
    told = re.search(r"^(?:ValueError|OSError|FileNotFoundError): (.+)$", str(error), re.MULTILINE)
    return told and told[1]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt as stop:
        print(f"\n{stop or 'stopped'}\npython -m files {shlex.join(sys.argv[1:])}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not (told := sentence(error)):
            raise
        sys.exit(f"error: {told}")
