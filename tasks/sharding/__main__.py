"""`python -m tasks.sharding verify DATASET_DIR`: read a data set from end to end."""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.sharding.shards import ShardError
from tasks.sharding.verify import verify


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] != "verify":
        print("usage: python -m tasks.sharding verify DATASET_DIR", file=sys.stderr)
        return 2
    try:
        count = verify(Path(sys.argv[2]))
    except ShardError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{count} clip pairs are whole.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
