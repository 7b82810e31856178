"""The paper's figures, reproduced from many networks trained side by side.

`settings` says what to run, `runs` trains one network, `store` keeps its result; `backends`, `side_by_side`
and `grid` run many; `summary`, `results`, `curves` and `figures.bands` report the results; `study` ties them
together.
"""
