"""Programs that read measurement tables which were not built before: until then a table says 16 TiB."""

from __future__ import annotations

import csv
import io

from tooling.checks import equal, same_output
from tooling.program import Attempt, Program, package, python

FOUR = "~/xnat/tables/*/freesurfer7/aseg"
VOLUMES = "~/xnat/tables/ALFA/ashs/volumes"
ROWS = r"\b5,?512\b"  # of the four tables together


def _as_csv(_: Program, attempt: Attempt) -> str:
    def rows(text: str) -> list[list[str]]:
        return list(csv.reader(io.StringIO(text)))

    true = rows((attempt.copy / "tables/ALFA/ashs/volumes.csv").read_text())
    found = rows((attempt.work / "volumes.csv").read_text())
    equal("number of rows", len(found), len(true))
    columns = [true[0].index(name) for name in ("ID", "subject", "label", "region")]
    for row, other in zip(found, true, strict=True):
        equal("row", [row[one] for one in columns], [other[one] for one in columns])
    return f"{len(true) - 1} rows with their ids, as in the .csv"


TABLES = [
    Program("cat", "cat --version", f"cat {VOLUMES}.csv", same_output("^ID,")),
    Program(
        "pandas",
        package("pandas"),
        python("import pandas as pd", f't = pd.read_csv("{VOLUMES}.csv")', "print(t.shape, t.volume.sum())"),
        same_output(r"\(119, "),
    ),
    Program(
        "polars, a glob of .csv",
        package("polars"),
        python("import polars as pl", f't = pl.read_csv("{FOUR}.csv")', 'print(t.height, t["value"].sum())'),
        same_output(ROWS),
        "The first look at four tables; read whole.",
    ),
    Program(
        "polars.scan_csv, a glob",
        package("polars"),
        python(
            "import polars as pl",
            f't = pl.scan_csv("{FOUR}.csv").select(pl.len(), pl.col("value").sum()).collect()',
            "print(t.rows())",
        ),
        same_output(ROWS),
        "The same.",
    ),
    Program(
        "polars, one .parquet",
        package("polars"),
        python(
            "import polars as pl",
            f't = pl.scan_parquet("{VOLUMES}.parquet").select(pl.len(), pl.col("volume").sum()).collect()',
            "print(t.rows())",
        ),
        same_output(r"\(119, "),
    ),
    Program(
        "polars, a glob of .parquet",
        package("polars"),
        python(
            "import polars as pl",
            f't = pl.scan_parquet("{FOUR}.parquet").select(pl.len(), pl.col("value").sum()).collect()',
            "print(t.rows())",
        ),
        same_output(ROWS),
        "The first time: polars trusts the sizes that its search for files gave. It reads all of them the "
        "second time, or from a list, as in the next row.",
        fails="range.end as u64 <= self.size",
    ),
    Program(
        "polars, a list of .parquet",
        package("polars"),
        python(
            "import polars as pl, sys",
            't = pl.scan_parquet(sys.argv[1:]).select(pl.len(), pl.col("value").sum()).collect()',
            "print(t.rows())",
            on=f"{FOUR}.parquet",
        ),
        same_output(ROWS),
        "The first look at four tables.",
    ),
    Program(
        "pyarrow.dataset",
        package("pyarrow"),
        python(
            "import pyarrow.dataset as ds, sys",
            "t = ds.dataset(sys.argv[1:]).to_table()",
            "print(t.num_rows, t.column_names)",
            on=f"{FOUR}.parquet",
        ),
        same_output(ROWS),
        "The first look at four tables.",
    ),
    Program(
        "DuckDB, a glob",
        package("duckdb"),
        'python3 -c "import duckdb; '
        f"print(duckdb.sql('select count(*), round(sum(value), 3) from \\'{FOUR}.parquet\\'').fetchall())\"",
        same_output(ROWS),
        "The first look at four tables.",
    ),
    Program(
        "openpyxl",
        package("openpyxl"),
        python(
            "import openpyxl, sys",
            "s = openpyxl.load_workbook(sys.argv[1], read_only=True).active",
            'print(*s.iter_rows(values_only=True), sep="\\n")',
            on=f"{VOLUMES}.xlsx",
        ),
        same_output("region"),
    ),
    Program(
        "LibreOffice",
        "soffice --version",
        f"soffice --headless --convert-to csv --outdir . {VOLUMES}.xlsx",
        _as_csv,
    ),
    Program(
        "R fread",
        "Rscript -e 'cat(as.character(packageVersion(\"data.table\")))'",
        f'Rscript -e \'t <- data.table::fread("{VOLUMES}.csv"); cat(dim(t), sum(t$volume), "\\n")\'',
        same_output("^119 "),
    ),
    Program(
        "R read.csv",
        "R --version",
        f"Rscript -e 't <- read.csv(\"{VOLUMES}_wide.csv\"); print(dim(t)); print(names(t))'",
        same_output("subject"),
    ),
    Program(
        "SQLite",
        "sqlite3 --version",
        f"cat {VOLUMES}.csv | "
        "sqlite3 :memory: '.import --csv /dev/stdin t' 'select count(*), sum(volume) from t'",
        same_output(r"^119\|"),
    ),
    Program(
        "Miller",
        "mlr --version",
        f"mlr --icsv --ojson stats1 -a mean,count -f volume -g region {VOLUMES}.csv",
        same_output("volume_count"),
    ),
    Program(
        "datamash",
        "datamash --version",
        f"datamash -t, --header-in -g region,side -s mean volume < {VOLUMES}.csv",
        same_output("left"),
    ),
]
