"""All studies, by name."""

import bytes_lm
import digits
import houses
from task import Study

STUDIES: dict[str, Study] = {
    study.name: study for study in (*digits.STUDIES, *houses.STUDIES, *bytes_lm.STUDIES)
}
