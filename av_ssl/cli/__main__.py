"""`python -m av_ssl.cli` is `av-ssl`."""

import sys

from av_ssl.cli.main import main

sys.exit(main())
