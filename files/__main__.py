"""The command line: `python -m files train|sample|evaluate|import|figures --help`."""

import argparse
import shlex
import sys
from typing import Annotated, Literal

import tyro

from files.config import PRESETS, Config, Machine, Recipe, preset

Flat = tyro.conf.arg(name="")  # a dataclass's fields as options of the command itself


def main(arguments: list[str]) -> None:
    """Runs one command."""
    # The preset gives the other options their defaults, so it is read before them.
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset", default="smmnist")
    chosen = early.parse_known_args(arguments)[0].preset
    defaults = preset(chosen)

    # Imported late: TensorFlow takes seconds, and a mistyped preset should not.
    from files.evaluate import EvaluateOptions
    from files.evaluate import evaluate as run_evaluate
    from files.figures import FigureOptions, make_figures
    from files.import_checkpoint import ImportOptions
    from files.import_checkpoint import import_checkpoint as run_import
    from files.sample import SampleOptions
    from files.sample import sample as run_sample
    from files.train import train as run_train

    app = tyro.extras.SubcommandApp()

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
    def evaluate(options: Annotated[EvaluateOptions, Flat]) -> None:
        """Evaluate a checkpoint: best of N samples, reference rows, uncertainty, bounds; goes on if it was killed."""
        run_evaluate(options)

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


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt as stop:
        print(f"\n{stop or 'stopped'}\npython -m files {shlex.join(sys.argv[1:])}", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
