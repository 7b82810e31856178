"""The paper's figures, made anew: many networks side by side, and what they come to.

`settings` says what to run, `runs` trains one network, `store` keeps it, `backends` and `grid` run many,
`summary`, `results` and `report.paper` say what came out, `study` ties them together.
"""
