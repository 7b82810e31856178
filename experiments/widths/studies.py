"""All studies, by name: small ones first."""

import digits
import prices
import text
from task import Study

STUDIES: dict[str, Study] = {study.name: study for study in (*digits.STUDIES, *prices.STUDIES, *text.STUDIES)}
