"""``python -m ops_core.cli`` is ``opspawn``."""

from __future__ import annotations

from ops_core.cli import main

if __name__ == "__main__":
    main()
