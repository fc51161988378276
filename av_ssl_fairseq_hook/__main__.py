"""`python -m av_ssl_fairseq_hook COMMAND ...`: a stock fairseq command where no `.pth` file is read.

For `PYTHONPATH` and `pip install --target`; `torchrun -m av_ssl_fairseq_hook COMMAND ...` works the same way.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

from av_ssl_fairseq_hook import install

# Not under the guard below: a spawned process imports this module again and needs the finder as well.
install()


def main() -> int:
    """Run the stock command that the first argument names, with the arguments after it."""
    scripts = entry_points(group="console_scripts")
    stock = {script.name: script for script in scripts if script.name.startswith("fairseq-")}
    if len(sys.argv) < 2 or sys.argv[1] not in stock:
        known = ", ".join(sorted(stock)) or "none: fairseq is not installed"
        print(f"usage: python -m av_ssl_fairseq_hook COMMAND ...\ncommands: {known}", file=sys.stderr)
        return 2
    command = stock[sys.argv[1]]
    del sys.argv[0]
    return command.load()() or 0


if __name__ == "__main__":
    sys.exit(main())
