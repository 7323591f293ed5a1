"""Training on a Dask cluster: rows stay at the workers that hold them, and what these hold is the placement.

`train` trains on a Dask DataFrame, or on a list of futures of tables. Estimators take a Dask client as
`cluster`. All this needs `pip install 'asyncdmtl[dask]'`.
"""

from asyncdmtl.dask.training import TrainedRun as TrainedRun
from asyncdmtl.dask.training import train as train
