"""Entry point: `python -m hamgr.bench`, which scripts/bench calls."""

from hamgr.bench.commands import bench

if __name__ == "__main__":
    bench(prog_name="scripts/bench")
