"""Build the documentation site from the pages in `asyncdmtl/docs/`: `python tools/docs.py`.

The site is written to `build/site`; open `build/site/index.html`. The extra `docs` has what this needs.
Any warning, such as a link to a page that does not exist, fails the build.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).with_name("mkdocs.yml")


def main() -> int:
    """Build the site; the exit code of mkdocs."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", str(CONFIG)]
    code = subprocess.run(command).returncode
    if not code:
        print(f"built {CONFIG.parents[1] / 'build' / 'site' / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
