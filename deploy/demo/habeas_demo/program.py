"""The command line of the demo."""

import argparse
import asyncio

from rich.console import Console

from habeas_demo.breaking import BREAKS
from habeas_demo.run import Options, run_demo
from habeas_embedded.errors import EmbeddedError, each_of


def main() -> int:
    """Run the demo; 0 when every check passed, 1 when not, 2 for wrong use."""
    parser = argparse.ArgumentParser(
        prog="habeas-demo", description="a platform, its people, and Habeas keeping its promises"
    )
    parser.add_argument("--accounts", type=int, default=1_000, help="how many accounts to invent (at least 120)")
    parser.add_argument("--days", type=int, default=120, help="days of execution log (more than 91)")
    parser.add_argument("--seed", type=int, default=7, help="other seeds invent other people")
    parser.add_argument(
        "--limit", type=float, default=120.0, metavar="SECONDS", help="how long to wait for a fleet that says nothing"
    )
    parser.add_argument("--keep", action="store_true", help="leave servers and fleet running until Ctrl-C")
    parser.add_argument("--break", dest="breaking", choices=sorted(BREAKS), help="break something on purpose")
    parser.add_argument("--mend", action="store_true", help="after --break: mend it and see everything completed")
    given = parser.parse_args()
    if given.accounts < 120 or given.days <= 91:  # noqa: PLR2004 - as the help says
        parser.error("the demo needs at least 120 accounts and more than 91 days")
    if given.mend and given.breaking is None:
        parser.error("--mend needs --break")
    console = Console()
    options = Options(
        accounts=given.accounts,
        days=given.days,
        seed=given.seed,
        limit_s=given.limit,
        keep=given.keep,
        breaking=given.breaking,
        mend=given.mend,
    )
    code = 1
    try:
        code = 0 if asyncio.run(run_demo(options, console)) else 1
    except* EmbeddedError as group:
        for error in each_of(group):
            console.print(str(error), style="bold red", markup=False, soft_wrap=True)
    except* KeyboardInterrupt:
        code = 130
    return code
