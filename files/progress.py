"""The progress bar of long work, in a terminal, a notebook or a log file."""

import sys

from tqdm import tqdm


def progress_bar(total: int, initial: int = 0, shown: bool = True) -> tqdm:
    """A bar on standard output with the time left; `set_postfix_str` adds figures. A log file gets it once a minute.

    `initial` of `total` steps are done already, and don't count for the time.
    """
    in_terminal = sys.stdout.isatty()
    in_notebook = "ipykernel" in sys.modules
    return tqdm(
        total=total,
        initial=initial,
        disable=not shown,
        file=sys.stdout,
        ncols=None if in_terminal else 110,
        bar_format="{desc} {percentage:3.0f}% |{bar}| {remaining} left{postfix}",
        # In a notebook the default, which the environment variable TQDM_MININTERVAL may change.
        **({} if in_terminal or in_notebook else {"mininterval": 60}),
    )
